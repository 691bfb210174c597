"""Masked and reset sequences, and how to compare and compile, for tests of what streams."""

from __future__ import annotations

import jax
import numpy as np

T, B, CHUNK = 15, 8, 5


def flags(steps: int = T) -> tuple[np.ndarray, np.ndarray]:
    """Mask and resets `[T, B]`, every row another case."""
    rng = np.random.default_rng(1)
    mask, resets = np.ones((steps, B), bool), np.zeros((steps, B), bool)
    mask[:, 1] = rng.random(steps) < 0.6
    resets[[1, 3, 4, steps - 2], 2] = True  # several within one chunk
    mask[:, 3], resets[:, 3] = rng.random(steps) < 0.5, rng.random(steps) < 0.3
    mask[:, 4], resets[7, 4] = False, True  # masked everywhere
    mask[:3, 5], mask[8, 5], resets[8, 5] = False, False, True  # a reset at a masked step
    resets[[0, CHUNK], 6], mask[[CHUNK - 1, CHUNK], 6] = True, False  # at the borders of chunks
    mask[10:, 7], resets[12, 7] = False, True  # the last chunk masked, and reset
    return mask, resets


def close(got, expected) -> None:
    """Leaf by leaf, to the last digits of float64."""
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-10, 1e-10), got, expected)


def same(got, expected) -> None:
    """Leaf by leaf, to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def drawn_like(shapes, rng: np.random.Generator):
    """Parameters none of which is zero, in float64; a fresh head would hide what is below it."""
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.7, shapes)
