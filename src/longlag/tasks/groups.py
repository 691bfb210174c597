"""Finite groups as multiplication tables, for tasks whose state is an element of a group."""

from __future__ import annotations

import functools
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Group", "multiplication_table", "prefix_products"]

Group = Literal["z5", "s3", "a5", "s5", "z60", "a4xz5"]


@functools.cache
def multiplication_table(group: str) -> np.ndarray:
    """The table of a group of n elements: entry [g, h] is g * h, and 0 is the identity.

    Args:
        group: "z" and a number, the numbers modulo it under addition; "s" or "a" and a number, all
            or the even permutations of so many things in lexicographic order; or several of these
            with "x" between, their direct product, whose last factor counts fastest. In `g * h` the
            permutation g comes first: it moves i to h[g[i]].

    Returns:
        `[n, n]` int32.
    """
    tables = (_factor(name[0], int(name[1:])) for name in group.split("x"))
    return functools.reduce(_direct_product, tables).astype(np.int32)


def prefix_products(group: str, letters: jax.Array) -> jax.Array:
    """The products g1, g1 * g2, g1 * g2 * g3, ... of every row.

    Args:
        group: as `multiplication_table` takes it.
        letters: `[B, T]` int32, elements by their numbers.

    Returns:
        `[B, T]` int32.
    """
    table = jnp.asarray(multiplication_table(group))

    def multiply(product: jax.Array, letter: jax.Array) -> tuple[jax.Array, jax.Array]:
        product = table[product, letter]
        return product, product

    return jax.lax.scan(multiply, jnp.zeros_like(letters[:, 0]), letters.T)[1].T


def _factor(kind: str, size: int) -> np.ndarray:
    if kind == "z":
        return (np.arange(size)[:, None] + np.arange(size)) % size
    rows = [p for p in itertools.permutations(range(size)) if kind == "s" or _is_even(p)]
    number = {p: i for i, p in enumerate(rows)}
    return np.array([[number[tuple(h[i] for i in g)] for h in rows] for g in rows])


def _is_even(permutation: tuple[int, ...]) -> bool:
    return sum(i > j for i, j in itertools.combinations(permutation, 2)) % 2 == 0


def _direct_product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    n = len(first) * len(second)
    pairs = first[:, None, :, None] * len(second) + second[None, :, None, :]
    return pairs.reshape(n, n)
