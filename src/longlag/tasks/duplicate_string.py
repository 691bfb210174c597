"""Duplicate string: hold a string, then say it twice."""

from __future__ import annotations

from typing import Any

from longlag.core.array_types import LengthColumn, Places, TargetTokens, Tokens
from longlag.tasks.outputs import SymbolTask, pick
from longlag.tasks.task import sketch

__all__ = ["DuplicateString"]


class DuplicateString(SymbolTask):
    """Duplicate string: after a string, give it twice in its order.

    Symbols are uniform in 0..symbols-1, and so is the length in min_length..max_length; the input
    of an output step is one more token, `symbols`. Every sequence is padded to 3 * max_length under
    a false mask. With min_length=1, max_length=5, symbols=2, where the output token is written `>`
    and `-` is padding:

        inputs  1 0 1 1 > > > > > > > > - - -
        targets . . . . 1 0 1 1 1 0 1 1 - - -

    A queue does it, and a stack does not: what came first is wanted first, and wanted again.

    Floor: every symbol alike, ln(symbols) in loss and 1/symbols in accuracy.

    Attributes:
        min_length: the shortest string.
        max_length: the longest string; T is three times that.
        symbols: how many different symbols there are.

    Raises:
        ValueError: if min_length < 1, max_length < min_length or symbols < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (two symbols, lengths 1..40, tested on
    41..500), whose code has an output token too.
    """

    def output_length(self, length: Any) -> Any:
        """Twice the string."""
        return 2 * length

    def answers(self, symbols: Tokens, lengths: LengthColumn, places: Places) -> TargetTokens:
        """The string, and once more."""
        return pick(symbols, places % lengths)

    def picture(self) -> str:
        """One string of at most 5 bits."""
        return sketch(DuplicateString(min_length=1, max_length=5), seed=7, names={2: ">"})
