"""Classes that answers name: the likeliest class, or none where an answer is NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["NO_CLASS", "is_nan", "likeliest_class"]

NO_CLASS = -1
"""Stands for the class of an answer that is NaN. No target and no token is -1."""


def is_nan(answers: jax.Array | np.ndarray) -> jax.Array:
    """Whether an answer is NaN in any of its numbers: `[..., K]` to `[...]` bool."""
    return jnp.isnan(answers).any(axis=-1)


def likeliest_class(answers: jax.Array | np.ndarray) -> jax.Array:
    """The class with the greatest score.

    `argmax` alone names a class for an answer of NaN, which then counts as right where the target
    is that class. An infinite score is a score: plus infinity is the greatest.

    Args:
        answers: `[..., K]`, scores of K classes.

    Returns:
        `[...]` int32, `NO_CLASS` where an answer is NaN.
    """
    best = jnp.argmax(answers, axis=-1).astype(jnp.int32)
    return jnp.where(is_nan(answers), NO_CLASS, best)
