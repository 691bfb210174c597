"""Binary multiplication: say the product of two binary numbers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import TargetTokens, Tokens
from longlag.tasks.binary import BinaryTask
from longlag.tasks.task import sketch

__all__ = ["BinaryMultiplication"]

ENUMERATED = 8  # bits of a number of which the floor counts every case


class BinaryMultiplication(BinaryTask):
    """Binary multiplication: after two binary numbers with `*` between them, give their product.

    Numbers are written from the lowest bit. They share the length, which is uniform in
    min_length..max_length, in any way, and are uniform among the positive numbers of their bits (of
    more than 30 bits, almost: `longlag.tasks.binary.draw_positive`). The product has no zeros at
    its high end, where an end token comes, 2, and zeros up to as many output steps as the string
    has tokens; the loss counts them all, accuracy up to the end token. The input of an output step
    is a token of its own. Every sequence is padded to 2 * max_length under a false mask. With
    min_length=3, max_length=8, where the output token is written `>`, the end token `$`, and `-` is
    padding:

        inputs  1 1 * 1 1 > > > > > - - - - - -
        targets . . . . . 1 0 0 1 $ - - - - - -

    Each bit of the product asks for all bits of both numbers below it, and for the carries.

    Floor: the likeliest answer by the length and the place: among lengths 3..40 it has 0.7383 in
    loss and 0.5268 in accuracy. It counts all products where both numbers have at most 8 bits; of
    longer ones the high bits of the product are taken from the 8 highest bits of each, which is
    right within 0.001.

    Attributes:
        min_length: the shortest product in tokens.
        max_length: the longest product in tokens; T is twice that.

    Raises:
        ValueError: if min_length < 3 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500), whose
    code has lengths 1 and 2 too, with an arbitrary answer.
    """

    def columns(self, first: Tokens, second: Tokens) -> TargetTokens:
        """As at school: the second number once for each one of the first, shifted to its place."""

        def add(held: tuple[jax.Array, jax.Array], bit: jax.Array):
            total, shifted = held
            # What is rolled over the end is zero as long as the first number has ones.
            return (total + bit[:, None] * shifted, jnp.roll(shifted, 1, axis=1)), None

        return jax.lax.scan(add, (jnp.zeros_like(second), second), first.T)[0][0]

    def chances(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counted over all pairs of short numbers; the low bits by the zeros at the low end."""
        by_first_length = [_chances(n, length - 1 - n) for n in range(1, length - 1)]
        one, more = np.pad(by_first_length, ((0, 0), (0, 0), (0, 1))).mean(axis=0)
        return one, more

    def picture(self) -> str:
        """One product of at most 8 tokens."""
        task = BinaryMultiplication(min_length=3, max_length=8)
        return sketch(task, seed=28, names={2: "*", 3: ">"}, answers={2: "$"})


def _chances(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of the n + m bits of a product: that it is a one, that the product reaches it."""
    kept = min(n, ENUMERATED), min(m, ENUMERATED)
    cut = n + m - sum(kept)
    one, more = (np.pad(x, (cut, 0), constant_values=1) for x in _enumerate_products(*kept))
    if cut:
        # The lowest one of a product stands where the lowest ones of its factors add up to; the
        # bits above it are fair as far as the longer number reaches, and nearly so beyond, until
        # near the high end.
        one_of, other_of = (0.5 ** np.arange(1, x + 1) / (1 - 0.5**x) for x in (n, m))
        first = np.append(np.convolve(one_of, other_of), 0)
        fair = first + (np.cumsum(first) - first) / 2
        one = np.where(np.arange(n + m) < cut + ENUMERATED, fair, one)
    return one, more


@functools.cache
def _enumerate_products(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    products = np.outer(np.arange(1, 2**n), np.arange(1, 2**m)).ravel()
    reached = products >> np.arange(n + m)[:, None]
    return (reached % 2).mean(axis=1), (reached > 0).mean(axis=1)
