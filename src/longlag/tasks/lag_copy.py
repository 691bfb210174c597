"""Lag copy: say every symbol again, a fixed number of steps later."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["LagCopy"]


class LagCopy(Task):
    """Lag copy: give each symbol of a stream again, `lag` steps later.

    Symbols are uniform in 0..symbols-1. From step `lag` on, when there is something to say, every
    step asks: `items` answers in all. With lag=3, symbols=4, items=6:

        inputs  3 3 1 2 0 0 3 0 2
        targets . . . 3 3 1 2 0 0

    A queue: `lag` symbols are held at any time, and each step takes one in and lets one go. In copy
    memory they come and go together; here the memory never rests.

    Floor: every symbol alike, ln(symbols) in loss and 1/symbols in accuracy.

    Attributes:
        lag: steps from a symbol to its answer, and the number of symbols to be held; T = lag +
            items.
        symbols: how many different symbols there are.
        items: how many answers are asked.

    Raises:
        ValueError: if lag < 1, symbols < 2 or items < 1.

    Reference: the `lag` form of copying in the S4 repository (Gu et al. 2022, arXiv 2111.00396),
    whose loss also asks for zeros in the first `lag` steps; RepeatPrevious of POPGym (Morad et al.
    2023, arXiv 2303.01859: four suits, lags 4, 32, 64) as a supervised sequence.
    """

    lag: int = 16  # pyright: ignore[reportIncompatibleMethodOverride]  # is Task.lag
    symbols: int = 4
    items: int = 32

    lag_field = "lag"

    def __post_init__(self) -> None:
        self.require(self.lag >= 1, "lag >= 1")
        self.require(self.symbols >= 2, "symbols >= 2")
        self.require(self.items >= 1, "items >= 1")

    @property
    def time_steps(self) -> int:
        """The lag and the answers: lag + items."""
        return self.lag + self.items

    @property
    def in_features(self) -> int:
        """The symbols."""
        return self.symbols

    @property
    def out_features(self) -> int:
        """The symbols."""
        return self.symbols

    @property
    def weighted_steps(self) -> int:
        """Every step after the lag."""
        return self.items

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked from step `lag` on."""
        B, T = batch_size, self.time_steps
        symbols = jax.random.randint(key, (B, T), 0, self.symbols, jnp.int32)
        late = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32) >= self.lag, (B, T))
        return Batch(
            inputs=symbols,
            targets=jnp.where(late, jnp.roll(symbols, self.lag, axis=1), 0),
            weights=late.astype(jnp.float32),
            scored=late,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every symbol alike."""
        return Floor(math.log(self.symbols), 1 / self.symbols, "any symbol")

    def picture(self) -> str:
        """Six answers, three steps late."""
        return sketch(LagCopy(lag=3, symbols=4, items=6), seed=3)
