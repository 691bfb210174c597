"""Copy memory: hold a few symbols over a long gap, then say them all."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["CopyMemory"]


class CopyMemory(Task):
    """Copy memory, as for the unitary RNN: hold symbols over a gap, give them after a marker.

    `items` symbols, drawn uniformly from 1..symbols, are followed by `lag - 1` blanks, one marker
    and `items` blanks, during which the symbols are to be said in order. The answer is the blank
    class at every other step. With lag=4, symbols=8, items=5:

        inputs  7 3 6 3 5 0 0 0 9 0 0 0 0 0
        targets 0 0 0 0 0 0 0 0 0 7 3 6 3 5

    The loss is the mean over all T = lag + 2 * items steps, as published; it shrinks as the gap
    grows, so accuracy and exact match are scored on the `items` recalled symbols alone. The output
    steps look alike: attention needs positions, or a recurrence below it, to tell them apart.

    Floor: blank until the marker, then every symbol alike: items * ln(symbols) / T in loss and
    1/symbols in accuracy.

    Attributes:
        lag: T of the paper: from a symbol to its recall there are `lag + items` steps.
        symbols: how many different symbols there are; tokens are 0 (blank), 1..symbols and
            symbols + 1 (marker), answers 0..symbols.
        items: how many symbols are to be held.

    Raises:
        ValueError: if lag < 1, symbols < 2 or items < 1.

    Reference: Arjovsky, Shah, Bengio (2016), arXiv 1511.06464, after Hochreiter, Schmidhuber
    (1997). The variant with a marker at every output step (TCN, arXiv 1803.01271) is easier.
    """

    lag: int = 30  # pyright: ignore[reportIncompatibleMethodOverride]  # is Task.lag
    symbols: int = 8
    items: int = 10

    lag_field = "lag"

    def __post_init__(self) -> None:
        self.require(self.lag >= 1, "lag >= 1")
        self.require(self.symbols >= 2, "symbols >= 2")
        self.require(self.items >= 1, "items >= 1")

    @property
    def time_steps(self) -> int:
        """Symbols, gap with marker, recall: lag + 2 * items."""
        return self.lag + 2 * self.items

    @property
    def in_features(self) -> int:
        """Blank, symbols, marker."""
        return self.symbols + 2

    @property
    def out_features(self) -> int:
        """Blank and symbols."""
        return self.symbols + 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, weighted everywhere, scored on the recall."""
        B, T = batch_size, self.time_steps
        symbols = jax.random.randint(key, (B, self.items), 1, self.symbols + 1, jnp.int32)
        blanks = jnp.zeros((B, T - self.items), jnp.int32)
        marker = self.items + self.lag - 1
        recalled = jnp.arange(T, dtype=jnp.int32) >= T - self.items
        return Batch(
            inputs=jnp.concatenate([symbols, blanks], 1).at[:, marker].set(self.symbols + 1),
            targets=jnp.concatenate([blanks, symbols], 1),
            weights=jnp.ones((B, T), jnp.float32),
            scored=jnp.broadcast_to(recalled, (B, T)),
            mask=None,
        )

    def floor(self) -> Floor:
        """Blank until the recall, then every symbol alike."""
        loss = self.items * math.log(self.symbols) / self.time_steps
        return Floor(loss, 1 / self.symbols, "blank, then any symbol")

    def picture(self) -> str:
        """A gap of 4, five symbols out of 8."""
        return sketch(CopyMemory(lag=4, symbols=8, items=5), seed=4)
