"""Binary addition: say the sum of two binary numbers."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import TargetTokens, Tokens
from longlag.tasks.binary import BinaryTask
from longlag.tasks.task import sketch

__all__ = ["BinaryAddition"]


class BinaryAddition(BinaryTask):
    """Binary addition: after two binary numbers with `+` between them, give their sum.

    Numbers are written from the lowest bit. They share the length, which is uniform in
    min_length..max_length, in any way, and are uniform among the positive numbers of their bits (of
    more than 30 bits, almost: `longlag.tasks.binary.draw_positive`). The sum has no zeros at its
    high end, where an end token comes, 2, and zeros up to length + 1 output steps; the loss counts
    them all, accuracy up to the end token. The input of an output step is a token of its own. Every
    sequence is padded to 2 * max_length + 1 under a false mask. With min_length=3, max_length=8,
    where the output token is written `>`, the end token `$`, and `-` is padding:

        inputs  1 + 1 1 0 1 > > > > > > > - - - -
        targets . . . . . . 0 0 1 1 $ 0 0 - - - -

    A cell has to keep the first number until the second comes, bit by bit as in a queue.

    Floor: the likeliest answer by the length and the place: among lengths 3..40 it has 0.6537 in
    loss and 0.5084 in accuracy.

    Attributes:
        min_length: the shortest sum in tokens.
        max_length: the longest sum in tokens; T = 2 * max_length + 1.

    Raises:
        ValueError: if min_length < 3 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500), whose
    code has lengths 1 and 2 too: one number, to be said again.
    """

    def output_length(self, length: Any) -> Any:
        """The sum, a bit longer than a number at most, and the end token."""
        return length + 1

    def columns(self, first: Tokens, second: Tokens) -> TargetTokens:
        """Bit upon bit."""
        return jnp.pad(first + second, ((0, 0), (0, 1)))

    def chances(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counted in closed form over all pairs of positive numbers, for each way to share."""
        share, k = np.arange(1, length - 1)[:, None], np.arange(length + 1)
        n, m = np.minimum(share, share[::-1]), np.maximum(share, share[::-1])
        short, long = 2.0**-n, 2.0**-m  # of zero among all numbers of n bits, of m bits
        pairs = (1 - short) * (1 - long)
        # The longer number alone makes a bit fair; pairs with a zero in them are taken off.
        one = np.where(k < n, (1 - short - long) / 2 / pairs, 0.5 / (1 - long))
        one = np.where(k < m, one, np.where(k == m, 2.0 ** (n - 1 - m) / (1 - long), 0))
        # Below 2^k is a triangle of all pairs, or, where the short numbers end, a trapezium.
        k = np.minimum(k, m)
        under = (2.0 ** (k - n) - short) * (2.0 ** (k - m) - 2 * long) / 2 / pairs
        above = (1 - 2.0 ** (k - m) + 2.0 ** (n - 1 - m)) / (1 - long)
        more = np.where(np.arange(length + 1) > m, 0, np.where(k < n, 1 - under, above))
        return one.mean(axis=0), more.mean(axis=0)

    def picture(self) -> str:
        """One sum of at most 8 tokens."""
        task = BinaryAddition(min_length=3, max_length=8)
        return sketch(task, seed=9, names={2: "+", 3: ">"}, answers={2: "$"})
