"""Bucket sort: say the symbols of a string in their order."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import LengthColumn, Places, TargetTokens, Tokens
from longlag.tasks.outputs import SymbolTask
from longlag.tasks.task import Floor, sketch

__all__ = ["BucketSort"]


class BucketSort(SymbolTask):
    """Bucket sort: after a string, give its symbols in increasing order.

    Symbols are uniform in 0..symbols-1, and so is the length in min_length..max_length; the input
    of an output step is one more token, `symbols`. Every sequence is padded to 2 * max_length under
    a false mask. With min_length=1, max_length=7, symbols=5, where the output token is written `>`
    and `-` is padding:

        inputs  2 1 0 2 1 > > > > > - - - -
        targets . . . . . 0 1 1 2 2 - - - -

    One counter for each symbol is enough, and no order need be remembered.

    Floor: the likeliest symbol by the length and the place, as the k-th smallest of n draws is far
    from uniform: among lengths 1..40 with five symbols it has 0.6343 in loss and 0.7154 in
    accuracy, where all symbols alike give ln 5 = 1.6094 and the published chance of 0.2. The longer
    the string, the better it does: 0.9365 in accuracy at length 500.

    Attributes:
        min_length: the shortest string.
        max_length: the longest string; T is twice that.
        symbols: how many different symbols there are.

    Raises:
        ValueError: if min_length < 1, max_length < min_length or symbols < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (five symbols, lengths 1..40, tested on
    41..500), whose code has an output token too.
    """

    symbols: int = 5

    def answers(self, symbols: Tokens, lengths: LengthColumn, places: Places) -> TargetTokens:
        """At each place the number of symbols that are used up before it."""
        steps = jnp.arange(symbols.shape[1], dtype=jnp.int32)[None]
        symbols = jnp.where(steps < lengths, symbols, self.symbols)
        kinds = jnp.arange(self.symbols, dtype=jnp.int32)[:, None, None]
        # [symbols, B], of these or less
        counts = (symbols[None] <= kinds).sum(axis=2, dtype=jnp.int32)
        return (counts[..., None] <= places[None]).sum(axis=0, dtype=jnp.int32)

    def floor(self) -> Floor:
        """The likeliest symbol by the length and the place."""
        # Chance of this symbol or a less one.
        less = np.arange(1, self.symbols + 1)[:, None] / self.symbols
        counts = np.zeros((self.symbols, self.max_length + 1))  # chances of how many such there are
        counts[:, 0] = 1
        cases = []
        for length in range(1, self.max_length + 1):
            counts[:, 1:] = less * counts[:, :-1] + (1 - less) * counts[:, 1:]
            counts[:, 0] *= 1 - less[:, 0]
            if length >= self.min_length:
                # Chance of more such symbols than places before.
                exhausted = 1 - np.cumsum(counts, axis=1)[:, :length]
                cases.append(np.diff(exhausted, axis=0, prepend=0).clip(0).T)
        return Floor.of_chances(np.concatenate(cases), "likeliest at each place")

    def picture(self) -> str:
        """One string of at most 7 of five symbols."""
        return sketch(BucketSort(min_length=1, max_length=7), seed=1, names={5: ">"})
