"""Parity: say whether the number of ones is odd."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.tasks.task import Batch, Floor, Task, sketch

__all__ = ["Parity"]


class Parity(Task):
    """Parity of a bit string, asked at its last bit only.

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

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500). The
    form that asks at every bit is another task.
    """

    min_length: int = 1
    max_length: int = 40

    lag_field = "max_length"

    def __post_init__(self) -> None:
        self.require(self.min_length >= 1, "min_length >= 1")
        self.require(self.max_length >= self.min_length, "max_length >= min_length")

    @property
    def time_steps(self) -> int:
        """T, the longest string."""
        return self.max_length

    @property
    def in_features(self) -> int:
        """The bits 0 and 1."""
        return 2

    @property
    def out_features(self) -> int:
        """Even and odd."""
        return 2

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last bit."""
        B, T = batch_size, self.max_length
        of_bits, of_lengths = jax.random.split(key)
        lengths = jax.random.randint(of_lengths, (B, 1), self.min_length, T + 1, jnp.int32)
        steps = jnp.arange(T, dtype=jnp.int32)
        mask, last = steps < lengths, steps == lengths - 1
        bits = jnp.where(mask, jax.random.randint(of_bits, (B, T), 0, 2, jnp.int32), 0)
        odd = jnp.sum(bits, axis=1, keepdims=True, dtype=jnp.int32) % 2
        return Batch(
            inputs=bits,
            targets=jnp.where(last, odd, 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=mask,
        )

    def at_lag(self, lag: int) -> Parity:
        """Strings of exactly `lag` bits; for the present lag the task itself, with all lengths."""
        return self if lag == self.max_length else Parity(lag, lag)

    def floor(self) -> Floor:
        """Both answers alike."""
        return Floor(math.log(2), 0.5, "a coin")

    def picture(self) -> str:
        """One string of at most 10 bits."""
        return sketch(Parity(min_length=1, max_length=10), seed=2)
