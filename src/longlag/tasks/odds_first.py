"""Odds first: say the symbols at odd places, then those at even ones."""

from __future__ import annotations

import jax.numpy as jnp

from longlag.core.array_types import LengthColumn, Places, TargetTokens, Tokens
from longlag.tasks.outputs import SymbolTask, pick
from longlag.tasks.task import sketch

__all__ = ["OddsFirst"]


class OddsFirst(SymbolTask):
    """Odds first: after a string, give its odd places and then its even ones.

    Places count from 0, so the second symbol is said first. Symbols are uniform in 0..symbols-1,
    and so is the length in min_length..max_length; the input of an output step is one more token,
    `symbols`. Every sequence is padded to 2 * max_length under a false mask. With min_length=1,
    max_length=7, symbols=5, where the output token is written `>` and `-` is padding:

        inputs  2 1 0 2 1 > > > > > - - - -
        targets . . . . . 1 2 2 0 1 - - - -

    The string is read twice, each time with half of it left out: two queues, or a tape.

    Floor: every symbol alike, ln(symbols) in loss and 1/symbols in accuracy.

    Attributes:
        min_length: the shortest string.
        max_length: the longest string; T is twice that.
        symbols: how many different symbols there are.

    Raises:
        ValueError: if min_length < 1, max_length < min_length or symbols < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (two symbols, lengths 1..40, tested on
    41..500). This is what their code does; its docstring, which counts places from 1, has the
    halves the other way round.
    """

    def answers(self, symbols: Tokens, lengths: LengthColumn, places: Places) -> TargetTokens:
        """Places 1, 3, 5, ..., then 0, 2, 4, ..."""
        odds = lengths // 2
        even = 2 * (places - odds)
        return pick(symbols, jnp.where(places < odds, 2 * places + 1, even))

    def picture(self) -> str:
        """One string of at most 7 of five symbols."""
        return sketch(OddsFirst(min_length=1, max_length=7, symbols=5), seed=1, names={5: ">"})
