"""Expressions in brackets: what the tasks of arithmetic with brackets share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["expressions"]

CLOSE = -1  # in a plan, with the operators below it


def expressions(
    key: jax.Array, lengths: jax.Array, size: int, modulus: int, operators: int
) -> tuple[jax.Array, jax.Array]:
    """Draws expressions of these lengths, and what they come to.

    By their lengths, expressions are d, -d, (d), (-d), and from five tokens on (left op right),
    with all lengths of left, 1..length - 4, alike. Digits are uniform in 0..modulus-1, operators
    among the first `operators` of + - *. Tokens are the digits, the operators and the brackets, in
    this order; `-` before a digit is the operator's token.

    Args:
        key: a typed key.
        lengths: `[B, 1]` int32, at least 1 where the row is looked at.
        size: N, the longest length.
        modulus: M.
        operators: 2 or 3.

    Returns:
        Tokens `[B, N]` int32, anything from the length on, and results `[B, 1]`, modulo M.
    """
    of_lefts, of_operators, of_digits = jax.random.split(key, 3)
    shape = (size, len(lengths))
    coins = jax.random.randint(of_lefts, shape, 0, 2**30, jnp.int32)
    choices = jax.random.randint(of_operators, shape, 0, operators, jnp.int32)
    digits = jax.random.randint(of_digits, shape, 0, modulus, jnp.int32)
    places = jnp.arange(size, dtype=jnp.int32)
    column = places[:, None]

    def begin(plan: jax.Array, at: tuple[jax.Array, jax.Array, jax.Array]):
        """Writes into the plan where the parts of the expression begin that begins here."""
        place, coin, choice = at
        length = plan[place]
        pair = length >= 5
        first = 1 + coin % jnp.maximum(length - 4, 1)
        left = jnp.where(pair, first, length - jnp.where(length > 2, 2, 1))
        operator, close = place + 1 + left, place + length - 1
        for where, what, if_so in (
            (place + 1, left, length >= 2),
            (operator, CLOSE - 1 - choice, pair),
            (operator + 1, length - 3 - left, pair),
            (close, jnp.full_like(length, CLOSE), length >= 3),
        ):
            here = (column == jnp.reshape(where, (1, -1))) & if_so[None]
            plan = jnp.where(here, what[None], plan)
        return plan, operator

    # The plan has the length of an expression where it begins, a sign where an operator or a
    # closing bracket stands. It is read from left to right and written ahead of the reader.
    plan = jnp.where(column == 0, lengths.T, jnp.zeros(shape, jnp.int32))
    plan, operator = jax.lax.scan(begin, plan, (places, coins, choices))

    def evaluate(values: jax.Array, at: tuple[jax.Array, ...]):
        """From right to left, so that the parts of what begins here have their values."""
        place, length, operator, choice, digit = at
        left = values[jnp.minimum(place + 1, size - 1)]
        right = jnp.take_along_axis(values, operator[None] + 1, axis=0, mode="clip")[0]
        both = jnp.where(
            choice == 0, left + right, jnp.where(choice == 1, left - right, left * right)
        )
        one = jnp.where(length == 1, digit, jnp.where(length == 2, -left, left))
        return values.at[place].set(jnp.where(length >= 5, both, one) % modulus), None

    # (-d) needs no case of its own: its -d begins at the next place.
    steps = (places, plan, operator, choices, digits)
    values = jax.lax.scan(evaluate, jnp.zeros(shape, jnp.int32), steps, reverse=True)[0]

    brackets = modulus + operators
    tokens = jnp.where(plan >= 3, brackets, jnp.where(plan == 2, modulus + 1, digits))
    tokens = jnp.where(plan == CLOSE, brackets + 1, tokens)
    return jnp.where(plan < CLOSE, modulus + CLOSE - 1 - plan, tokens).T, values[:1].T
