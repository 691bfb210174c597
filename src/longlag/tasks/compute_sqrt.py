"""Compute sqrt: say the square root of a binary number, rounded down."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.tasks.binary import draw_positive, propagate_carries
from longlag.tasks.outputs import OutputTask, pick
from longlag.tasks.task import Floor, sketch

__all__ = ["ComputeSqrt"]

DIGIT = 28  # bits; four times a digit, and a carry, fit into 31


class ComputeSqrt(OutputTask):
    """Compute sqrt: after a binary number, give its square root, rounded down.

    The number is written from its highest bit and is uniform in 1..2^length - 1 (beyond 30 bits,
    almost: `longlag.tasks.binary.draw_positive`), the length is uniform in min_length..max_length.
    The root has half as many bits, rounded up, from the highest, zeros too; the input of an output
    step is one more token, 2. Every sequence is padded under a false mask. With min_length=1,
    max_length=9, where the output token is written `>` and `-` is padding:

        inputs  1 0 1 0 0 1 1 > > > > - - -
        targets . . . . . . . 1 0 0 1 - - -

    Digit by digit, as by hand, each bit of the root takes a comparison of numbers as long as the
    root.

    Floor: the likelier bit by the length and the place, as more numbers have a large root than a
    small one: among lengths 1..40 it has 0.6803 in loss and 0.5330 in accuracy.

    Attributes:
        min_length: the shortest number in bits.
        max_length: the longest number in bits; T is that and half of it, rounded up.

    Raises:
        ValueError: if min_length < 1 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500), whose
    code has an output token too.
    """

    @property
    def in_features(self) -> int:
        """Bits, output token."""
        return 3

    @property
    def out_features(self) -> int:
        """Bits."""
        return 2

    def output_length(self, length: Any) -> Any:
        """Half of it, rounded up."""
        return (length + 1) // 2

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Numbers, and the last bits of their roots."""
        longest = self.output_length(self.max_length)
        bits = draw_positive(key, lengths, 2 * longest)
        from_the_highest = jnp.arange(self.max_length, dtype=jnp.int32)[None]
        tokens = pick(bits, lengths - 1 - from_the_highest)
        places = jnp.arange(longest, dtype=jnp.int32)[None] - self.output_length(lengths)
        return tokens, pick(_root(bits), longest + places)

    def floor(self) -> Floor:
        """The likelier bit by the length and the place."""
        ones = [
            _ones(length, place)
            for length in range(self.min_length, self.max_length + 1)
            for place in range(self.output_length(length))
        ]
        chances = np.stack([1 - np.array(ones), ones], axis=1)
        return Floor.of_chances(chances, "likelier at each place")

    def picture(self) -> str:
        """One number of at most 9 bits."""
        return sketch(ComputeSqrt(min_length=1, max_length=9), seed=7, names={2: ">"})


def _root(bits: jax.Array) -> jax.Array:
    """The roots of numbers `[B, 2H]`, lowest bit first, as bits `[B, H]`, highest first.

    Of the highest pairs of bits, more and more of them, `root` is the root, and `rest` is what the
    square of the root leaves of them. One more pair makes 4 rest + pair of the rest, and doubles
    the root; it then ends with a one if 4 root + 1 can be taken off the rest.
    """
    B, size = bits.shape
    digits = -(-(size // 2 + 3) // DIGIT)
    unit = jnp.zeros((digits, 1), jnp.int32).at[0].set(1)

    def extend(held: tuple[jax.Array, jax.Array], pair: jax.Array):
        rest, root = held
        rest = 4 * rest + unit * pair[None]
        columns = jnp.stack([rest, rest - 4 * root - unit, 2 * root], axis=1)
        carried, out = propagate_carries(columns, DIGIT)
        one = (out[1] >= 0).astype(jnp.int32)
        rest = jnp.where(one[None] > 0, carried[:, 1], carried[:, 0])
        return (rest, carried[:, 2] + unit * one[None]), one

    pairs = (bits[:, ::2] + 2 * bits[:, 1::2]).T[::-1]
    zero = jnp.zeros((digits, B), jnp.int32)
    return jax.lax.scan(extend, (zero, zero), pairs)[1].T


def _ones(length: int, place: int) -> float:
    """How likely a one stands at this place of the root, counted exactly.

    Roots with a one as bit b make blocks of 2^b, and the numbers below 2^length that have them, as
    r has 2r + 1: 4^b (4i + 3) in block i of those that are whole, then the rest of the last.
    """
    b = (length + 1) // 2 - 1 - place
    whole = math.isqrt(2**length) >> (b + 1)
    rest = max(0, 2**length - ((2 * whole + 1) << b) ** 2)
    return (4**b * (2 * whole**2 + whole) + rest) / (2**length - 1)
