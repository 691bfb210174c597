"""Reverse: hold a string, then say it backwards."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.tasks.strings import StringTask
from longlag.tasks.task import Batch, Floor, sketch

__all__ = ["Reverse"]


class Reverse(StringTask):
    """Reverse: a string, then as many output steps, at which it is to be said from its end.

    Symbols are uniform in 0..symbols-1, and so is the length in min_length..max_length; the input
    of an output step is one more token, `symbols`. Every sequence is padded to 2 * max_length under
    a false mask. With min_length=1, max_length=5, symbols=2, where the output token is written `>`
    and `-` is padding:

        inputs  1 0 1 1 > > > > - -
        targets . . . . 1 1 0 1 - -

    The last symbol is wanted at once and the first one last, after 2 * length - 1 steps: what a
    stack does at any length, and a finite state up to its size.

    Floor: every symbol alike, ln(symbols) in loss and 1/symbols in accuracy.

    Attributes:
        min_length: the shortest string.
        max_length: the longest string; T is twice that.
        symbols: how many different symbols there are.

    Raises:
        ValueError: if min_length < 1, max_length < min_length or symbols < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (two symbols, lengths 1..40, tested on
    41..500), whose code has an output token too.
    """

    symbols: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.symbols >= 2, "symbols >= 2")

    @property
    def time_steps(self) -> int:
        """The longest string and its output steps: 2 * max_length."""
        return 2 * self.max_length

    @property
    def in_features(self) -> int:
        """Symbols, output token."""
        return self.symbols + 1

    @property
    def out_features(self) -> int:
        """Symbols."""
        return self.symbols

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the output steps."""
        B, T = batch_size, self.time_steps
        of_symbols, of_lengths = jax.random.split(key)
        lengths = self.lengths(of_lengths, B)
        steps = jnp.arange(T, dtype=jnp.int32)
        symbols = jax.random.randint(of_symbols, (B, T), 0, self.symbols, jnp.int32)
        place = 2 * lengths - 1 - steps  # of the symbol to say
        mask, output = place >= 0, (place >= 0) & (steps >= lengths)
        said = jnp.take_along_axis(symbols, jnp.maximum(place, 0), axis=1)
        return Batch(
            inputs=jnp.where(mask, jnp.where(output, self.symbols, symbols), 0),
            targets=jnp.where(output, said, 0),
            weights=output.astype(jnp.float32),
            scored=output,
            mask=mask,
        )

    def floor(self) -> Floor:
        """Every symbol alike."""
        return Floor(math.log(self.symbols), 1 / self.symbols, "any symbol")

    def picture(self) -> str:
        """One string of at most 5 bits."""
        return sketch(Reverse(min_length=1, max_length=5), seed=7, names={2: ">"})
