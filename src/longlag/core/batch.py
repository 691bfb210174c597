"""A batch of sequences with its targets."""

from __future__ import annotations

import flax.struct

from longlag.core.array_types import Inputs, Mask, Resets, Scored, Targets, Weights

__all__ = ["Batch"]


@flax.struct.dataclass
class Batch:
    """One batch of sequences, all of them padded to the same length T.

    What is learned and what is reported are two things: the loss counts the positions with a
    weight, accuracy and exact match count the scored ones. In copy memory the loss runs over every
    step and would look solved at long lags, so only the recalled symbols are scored. A scored
    position is weighted, and a weighted one is real.

    Attributes:
        inputs: tokens `[B, T]` int32, or real features `[B, T, D]` float32.
        targets: classes `[B, T]` int32, or real values `[B, T, K]` float32. Where the weight is
            zero the target is zero and means nothing.
        weights: `[B, T]` float32, what each position counts in the loss; zero where nothing is
            asked. The loss of a batch is `sum(weights * losses) / sum(weights)`.
        scored: `[B, T]` bool, true where an answer counts in accuracy and exact match.
        mask: `[B, T]` bool, true at real positions, false at padding; None where there is no
            padding, which spares a model the selections.
        resets: `[B, T]` bool or None: true where a new sequence begins and the state is forgotten.
    """

    inputs: Inputs
    targets: Targets
    weights: Weights
    scored: Scored
    mask: Mask | None
    resets: Resets | None = None
