"""Modular arithmetic with brackets: say what a nested expression comes to."""

from __future__ import annotations

import numpy as np

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.tasks.brackets import expressions
from longlag.tasks.strings import AnswerTask
from longlag.tasks.task import Floor, sketch

__all__ = ["ModularArithmeticBrackets"]


class ModularArithmeticBrackets(AnswerTask):
    """Modular arithmetic with brackets: at the end of an expression, give its value.

    By its length, which is uniform in min_length..max_length, an expression is d, -d, (d), (-d), or
    from five tokens on (left op right), where left has any length, 1..length - 4, and right what
    remains. Digits d are uniform in 0..M-1, operators among + - *; all is modulo M. Every sequence
    is padded to max_length under a false mask. With min_length=13, max_length=13, modulus=5:

        inputs  ( ( 2 ) * ( - 4 + - 2 ) )
        targets . . . . . . . . . . . . 3

    Every bracket that opens has to wait for its other half: a stack of results and operators.

    Floor: the likeliest result by the length, which is 0, since a product is 0 as soon as one
    factor is: at lengths 1..40 with modulus 5 it has 1.5934 in loss and 0.2701 in accuracy, where
    all results alike give ln 5 = 1.6094 and the published chance of 0.2. At length 500 its accuracy
    is 0.3160.

    Attributes:
        min_length: the shortest expression in tokens.
        max_length: the longest expression in tokens, T.
        modulus: M; tokens are 0..M-1, then + - * ( ).

    Raises:
        ValueError: if min_length < 1, max_length < min_length or modulus < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (modulus 5, lengths 1..40, tested on
    41..500), whose code draws expressions from the same distribution by recursion, on the host, and
    asks at an output token after the string. It has three more tokens, which never come.
    """

    modulus: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.modulus >= 2, "modulus >= 2")

    @property
    def in_features(self) -> int:
        """Numbers, three operators, two brackets."""
        return self.modulus + 5

    @property
    def out_features(self) -> int:
        """Numbers."""
        return self.modulus

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Expressions and what they come to."""
        return expressions(key, lengths, self.max_length, self.modulus, operators=3)

    def floor(self) -> Floor:
        """The likeliest result by the length."""
        M = self.modulus
        left, right = np.indices((M, M))
        results = np.stack([left + right, left - right, left * right]) % M
        of_pair = (results[..., None] == np.arange(M)).mean(axis=0)  # [left, right, result]
        chances = np.full((self.max_length + 1, M), 1 / M)
        for length in range(5, self.max_length + 1):
            lefts, rights = chances[1 : length - 3], chances[length - 4 : 0 : -1]
            pairs = lefts.T @ rights / (length - 4)
            chances[length] = np.tensordot(pairs, of_pair)
        return Floor.of_chances(chances[self.min_length :], "likeliest result")

    def picture(self) -> str:
        """One expression of 13 tokens."""
        task = ModularArithmeticBrackets(min_length=13, max_length=13)
        return sketch(task, seed=0, names=dict(enumerate("+-*()", 5)))
