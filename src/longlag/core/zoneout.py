"""Zoneout: numbers of the carry that stay as they were."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def draw_held(key: jax.Array, rate: float, carry: Any, steps: int) -> list[jax.Array | None]:
    """Which numbers of the carry stay at which step: `[T, ...]` bool, None for what is no float."""
    leaves = jax.tree.leaves(carry)
    return [
        jax.random.bernoulli(k, rate, (steps, *leaf.shape))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else None
        for k, leaf in zip(jax.random.split(key, len(leaves)), leaves)
    ]


def _zone_out(rate, old, new, y, held):
    """Keeps some numbers of the old carry, or without noise the mean of keeping and not.

    An output that is a part of the carry, like the h of an LSTM, is so after this too.
    """
    olds, (news, structure) = jax.tree.leaves(old), jax.tree.flatten(new)
    kept = []
    for i, (o, n) in enumerate(zip(olds, news)):
        if not jnp.issubdtype(n.dtype, jnp.floating):
            kept.append(n)
        elif held is None:
            kept.append(rate * o + (1 - rate) * n)
        else:
            kept.append(jnp.where(held[i], o, n))
    ys = [next((k for n, k in zip(news, kept) if n is leaf), leaf) for leaf in jax.tree.leaves(y)]
    return jax.tree.unflatten(structure, kept), jax.tree.unflatten(jax.tree.structure(y), ys)
