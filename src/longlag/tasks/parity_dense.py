"""Parity, asked at every bit."""

from __future__ import annotations

from longlag.tasks.parity import Parity
from longlag.tasks.task import sketch

__all__ = ["ParityDense"]


class ParityDense(Parity):
    """Dense parity: after every bit, give the parity of the bits so far.

    The strings are those of `Parity`, and the same key draws the same ones. With min_length=1,
    max_length=10, where `-` is padding:

        inputs  1 0 1 1 0 1 0 0 - -
        targets 1 1 0 1 1 0 0 0 - -

    To learn it is far easier, because the first steps teach what the later ones need; to run it
    over a long string is as hard. It has a name of its own so that its numbers are never put
    beside those of `Parity`.

    Floor: both answers alike, ln 2 in loss and 1/2 in accuracy. (Repeating the bit is right at the
    first step and a coin toss beyond.)

    Attributes:
        min_length: the shortest string.
        max_length: the longest string, T.

    Raises:
        ValueError: if min_length < 1 or max_length < min_length.

    Reference: ours, after Delétang et al. (2023), arXiv 2207.02098, who ask at the last bit.
    """

    dense = True

    def picture(self) -> str:
        """One string of at most 10 bits."""
        return sketch(ParityDense(min_length=1, max_length=10), seed=2)
