"""Binary numbers as arrays of digits, lowest first: sizes have no limit, and all is exact."""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.tasks.outputs import EndedTask, append_end, pick

__all__ = ["BinaryTask", "draw_positive", "propagate_carries"]

OPERATOR = 2


class BinaryTask(EndedTask):
    """Two binary numbers with an operator between them, answered by what comes out."""

    min_length: int = 3

    shortest = 3

    @property
    def in_features(self) -> int:
        """Bits, operator, output token."""
        return 4

    @abc.abstractmethod
    def columns(self, first: Tokens, second: Tokens) -> TargetTokens:
        """Sums by place, not yet carried.

        Args:
            first: `[B, max_length]` int32, bits from the lowest, zeros beyond the number.
            second: likewise.

        Returns:
            `[B, N]` int32, for N output steps.
        """

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Two positive numbers that share the length in any way, and the result."""
        of_share, of_first, of_second = jax.random.split(key, 3)
        share = jax.random.randint(of_share, lengths.shape, 1, lengths - 1, jnp.int32)
        first = draw_positive(of_first, share, self.max_length)
        second = draw_positive(of_second, lengths - 1 - share, self.max_length)
        places = jnp.arange(self.max_length, dtype=jnp.int32)[None]
        tokens = jnp.where(places < share, first, pick(second, places - share - 1))
        bits = propagate_carries(self.columns(first, second).T)[0].T
        counts = jnp.arange(1, bits.shape[1] + 1, dtype=jnp.int32)[None] * bits
        answers = append_end(bits, counts.max(axis=1, keepdims=True))
        return jnp.where(places == share, OPERATOR, tokens), answers


def draw_positive(key: jax.Array, lengths: jax.Array, size: int) -> jax.Array:
    """Draws numbers of 1..2^length - 1, leading zeros allowed, as bits from the lowest.

    They are uniform up to 30 bits. Of longer numbers one in 2^30 never comes, whose 30 lowest bits
    are all zero: that spares a second draw.

    Args:
        key: a typed key.
        lengths: `[B, 1]` int32, in bits.
        size: N, not less than any length.

    Returns:
        `[B, N]` int32, zero from the length on.
    """
    of_low, of_high = jax.random.split(key)
    places = jnp.arange(size, dtype=jnp.int32)[None]
    beyond = jnp.left_shift(jnp.int32(1), jnp.minimum(lengths, 30))
    low = jax.random.randint(of_low, lengths.shape, 1, beyond, jnp.int32)
    high = jax.random.randint(of_high, (len(lengths), size), 0, 2, jnp.int32)
    bits = jnp.where(places < 30, low >> jnp.minimum(places, 30) & 1, high)
    return jnp.where(places < lengths, bits, 0)


def propagate_carries(columns: jax.Array, bits: int = 1) -> tuple[jax.Array, jax.Array]:
    """Carries sums by place, of any sign, so that each becomes a digit.

    Args:
        columns: `[N, ...]` int32, from the lowest place.
        bits: of a digit, whose base is 2^bits.

    Returns:
        Digits `[N, ...]`, and what the highest place carries on `[...]`: negative if the whole
        number is.
    """

    def add(carried: jax.Array, column: jax.Array):
        total = column + carried
        return total >> bits, total & (1 << bits) - 1

    out, digits = jax.lax.scan(add, jnp.zeros_like(columns[0]), columns)
    return digits, out
