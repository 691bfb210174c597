"""Solve equation: say what x has to be."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.tasks.brackets import expressions
from longlag.tasks.outputs import pick
from longlag.tasks.strings import AnswerTask
from longlag.tasks.task import Floor, sketch

__all__ = ["SolveEquation"]


class SolveEquation(AnswerTask):
    """Solve equation: give the one unknown digit of an expression in brackets with a known value.

    Expressions are those of `ModularArithmeticBrackets` without products, so that there is one
    solution. A place is drawn among all tokens, and the next digit from there on, in a circle, is
    x: a digit behind a row of brackets is likelier than one behind an operator. After `=` the
    equation ends with its right side, where the solution is asked. The length of the equation is
    uniform in min_length..max_length; every sequence is padded to max_length under a false mask.
    With min_length=13, max_length=13, modulus=5:

        inputs  ( ( x + - 4 ) - - 0 ) = 1
        targets . . . . . . . . . . . . 0

    The sum that is known and the sign of x, which every minus before a bracket turns, solve it.

    Floor: every number alike, ln(M) in loss and 1/M in accuracy: without products each digit is
    independent of all that is known of the rest.

    Attributes:
        min_length: the shortest equation in tokens.
        max_length: the longest equation in tokens, T.
        modulus: M; tokens are 0..M-1, then + - ( ) x =.

    Raises:
        ValueError: if min_length < 3, max_length < min_length or modulus < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (modulus 5, lengths 1..40, tested on
    41..500), whose code draws equations from the same distribution by recursion, on the host, and
    asks at an output token after the string. It has lengths 1 and 2 too, zeros with the answer 0.
    """

    min_length: int = 3
    modulus: int = 5

    shortest = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.modulus >= 2, "modulus >= 2")

    @property
    def in_features(self) -> int:
        """Numbers, two operators, two brackets, the unknown, the equals sign."""
        return self.modulus + 6

    @property
    def out_features(self) -> int:
        """Numbers."""
        return self.modulus

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Equations and their solutions."""
        of_expression, of_place = jax.random.split(key)
        M, size, left = self.modulus, self.max_length - 2, lengths - 2
        tokens, values = expressions(of_expression, left, size, M, operators=2)
        start = jax.random.randint(of_place, left.shape, 0, left, jnp.int32)
        places = jnp.arange(self.max_length, dtype=jnp.int32)[None]
        ahead = jnp.where(
            (tokens < M) & (places[:, :-2] < left), (places[:, :-2] - start) % left, size
        )
        x = ahead.argmin(axis=1, keepdims=True).astype(jnp.int32)
        equation = jnp.where(places == x, M + 4, jnp.pad(tokens, ((0, 0), (0, 2))))
        equation = jnp.where(places == left, M + 5, equation)
        return jnp.where(places > left, values, equation), pick(tokens, x)

    def floor(self) -> Floor:
        """Every number alike."""
        return Floor(math.log(self.modulus), 1 / self.modulus, "any number")

    def picture(self) -> str:
        """One equation of 13 tokens."""
        task = SolveEquation(min_length=13, max_length=13)
        return sketch(task, seed=0, names=dict(enumerate("+-()x=", 5)))
