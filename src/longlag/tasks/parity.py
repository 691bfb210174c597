"""Parity: say whether the number of ones is odd."""

from __future__ import annotations

import math

from longlag.core.array_types import Tokens
from longlag.tasks.strings import BitTask, prefix_sums
from longlag.tasks.task import Floor, sketch

__all__ = ["Parity"]


class Parity(BitTask):
    """Parity: at the last bit of a bit string, give its parity.

    Bits are uniform and the length is uniform in min_length..max_length; every sequence is padded
    to max_length under a false mask. With min_length=1, max_length=10, where `-` is padding:

        inputs  1 0 1 1 0 1 0 0 - -
        targets . . . . . . . 0 - -

    No bit may be missed and nothing but one bit of state is needed: it tells cells that track a
    state from those that only average. `at_lag` gives a single length, to test beyond the
    training lengths.

    Floor: both answers alike, ln 2 in loss and 1/2 in accuracy, since the last bit alone makes
    odd and even equally frequent. (Repeating the last bit is right at length 1 and a coin toss
    beyond; among lengths 1..40 that is 0.5125.)

    Attributes:
        min_length: the shortest string.
        max_length: the longest string, T.

    Raises:
        ValueError: if min_length < 1 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500).
    `ParityDense` asks at every bit.
    """

    def answers(self, tokens: Tokens) -> Tokens:
        """Whether the number of ones so far is odd."""
        return prefix_sums(tokens) % 2

    def floor(self) -> Floor:
        """Both answers alike."""
        return Floor(math.log(2), 0.5, "a coin")

    def picture(self) -> str:
        """One string of at most 10 bits."""
        return sketch(Parity(min_length=1, max_length=10), seed=2)
