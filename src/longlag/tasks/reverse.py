"""Reverse: hold a string, then say it backwards."""

from __future__ import annotations

from longlag.core.array_types import LengthColumn, Places, TargetTokens, Tokens
from longlag.tasks.outputs import SymbolTask, pick
from longlag.tasks.task import sketch

__all__ = ["Reverse"]


class Reverse(SymbolTask):
    """Reverse: after a string, give it from its end.

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

    def answers(self, symbols: Tokens, lengths: LengthColumn, places: Places) -> TargetTokens:
        """The string from its end."""
        return pick(symbols, lengths - 1 - places)

    def picture(self) -> str:
        """One string of at most 5 bits."""
        return sketch(Reverse(min_length=1, max_length=5), seed=7, names={2: ">"})
