"""Remember the first input."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["FirstInput"]


class FirstInput(Task):
    """First input: hold the first symbol through noise, and give it at every step.

    The first token is one of V symbols, 0..V-1; the `lag` tokens after it are noise, drawn from
    V..2V-1 at every step. Every step counts in the loss, so that a short memory is rewarded and can
    grow; only the last one is scored. With dense=False the last one alone counts in the loss too,
    and nothing helps a memory on its way. With lag=8, symbols=4:

        inputs  1 4 4 5 7 7 4 7 5
        targets 1 1 1 1 1 1 1 1 1

    It asks for nothing but holding: what has to be kept comes first and looks like nothing else. A
    cell that fails here fails at every task with a lag.

    Floor: every symbol alike, ln V in loss and 1/V in accuracy.

    Attributes:
        lag: steps from the first input to the answer.
        symbols: V.
        dense: whether every step counts in the loss, or the last one alone.

    Raises:
        ValueError: if lag < 1 or symbols < 2.

    Reference: the learning test of memax for its every cell. With symbols=2 and dense=False it is
    the T-maze of Bakker (2002), NeurIPS 14, as a supervised sequence: the cue says left or right,
    the lag is the corridor, here of noise, and the last step the junction, which nothing marks,
    since its place is fixed. RepeatFirst of POPGym (Morad et al. 2023, arXiv 2303.01859) is the
    dense form.
    """

    lag: int = 50  # pyright: ignore[reportIncompatibleMethodOverride]  # is Task.lag
    symbols: int = 4
    dense: bool = True

    lag_field = "lag"

    def __post_init__(self) -> None:
        self.require(self.lag >= 1, "lag >= 1")
        self.require(self.symbols >= 2, "symbols >= 2")

    @property
    def time_steps(self) -> int:
        """The first input and the lag."""
        return self.lag + 1

    @property
    def in_features(self) -> int:
        """Symbols, and as many tokens of noise."""
        return 2 * self.symbols

    @property
    def out_features(self) -> int:
        """The symbols."""
        return self.symbols

    @property
    def weighted_steps(self) -> int | None:
        """The last step, or as many as there are."""
        return None if self.dense else 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, scored at the last step."""
        B, T, V = batch_size, self.time_steps, self.symbols
        drawn = jax.random.randint(key, (B, T), 0, V, jnp.int32)
        steps = jnp.arange(T, dtype=jnp.int32)[None]
        last = jnp.broadcast_to(steps == T - 1, (B, T))
        weighted = last | self.dense
        return Batch(
            inputs=jnp.where(steps > 0, drawn + V, drawn),
            targets=jnp.where(weighted, drawn[:, :1], 0),
            weights=weighted.astype(jnp.float32),
            scored=last,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every symbol alike."""
        return Floor(math.log(self.symbols), 1 / self.symbols, "any symbol")

    def picture(self) -> str:
        """One sequence of 9 steps."""
        return sketch(FirstInput(lag=8, symbols=4), seed=0)
