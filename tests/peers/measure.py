"""One counterpart, run on both sides and compared."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from longlag import Cell, unroll
from tests.peers.counterpart import B, Counterpart, Peer, T

__all__ = ["Arguments", "arguments", "draw", "measure", "ours"]


class Arguments(NamedTuple):
    """What both sides run on: weights, inputs, first carry, and weights for what comes out."""

    weights: Any
    xs: jax.Array
    first: Any
    pulled: Any


@functools.partial(jax.jit, static_argnums=0)
def ours(layer: Any, weights: Any, xs: jax.Array, first: Any, pulled: Any) -> tuple[Any, Any]:
    """As `Peer.run`, for a cell or layer of ours."""
    out, pull = jax.vjp(functools.partial(_outputs, layer), weights, xs, first)
    return out, pull(pulled)


def _outputs(layer: Any, params: Any, xs: jax.Array, first: Any) -> tuple[Any, jax.Array]:
    if isinstance(layer, Cell):
        return unroll(layer, params, xs, first)
    _, ys = layer.apply(params, jnp.swapaxes(xs, 0, 1))
    return first, jnp.swapaxes(ys, 0, 1)


def draw(tree: Any, seed: int, scale: float = 1.0) -> Any:
    """Normal numbers like a tree, in the precision that jax is in."""
    rng, dtype = np.random.default_rng(seed), jnp.result_type(float)
    return jax.tree.map(lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(dtype), tree)


def arguments(counterpart: Counterpart, peer: Peer) -> Arguments:
    """Drawn at random, weights so small that no state runs away: else rounding is all there is."""
    layer = counterpart.ours
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), counterpart.features))
    weights = draw(counterpart.drawn(params, peer.fresh), 1, 0.3)
    xs = draw(jax.ShapeDtypeStruct((B, T, counterpart.features), float), 2)
    first: Any = ()
    if isinstance(layer, Cell):
        first = draw(jax.eval_shape(lambda p: layer.initial_carry(p, (B,)), params), 3)
    run = functools.partial(_outputs, layer)
    return Arguments(weights, xs, first, draw(jax.eval_shape(run, params, xs, first), 4))


def measure(counterpart: Counterpart, peer: Peer) -> dict[str, float]:
    """The largest absolute difference in outputs and in gradients, and the largest entry.

    Outputs are those of every step and the last carry; gradients are those in the weights as drawn,
    in the inputs and in the first carry.

    Returns:
        `outputs`, `gradients`, `largest`.
    """
    drawn, *others = arguments(counterpart, peer)

    def side(carry_over, run):
        weights, pull = jax.vjp(carry_over, drawn)
        out, (in_weights, *rest) = run(weights, *others)
        in_weights = jax.tree.map(lambda g, w: jnp.asarray(g, w.dtype), in_weights, weights)
        return out, (pull(in_weights), rest)

    here = side(counterpart.to_ours, functools.partial(ours, counterpart.ours))
    there = side(counterpart.to_theirs, peer.run)
    outputs, gradients = map(_difference, here, there)
    largest = _greatest(np.abs(leaf).max() for leaf in jax.tree.leaves(here))
    return {"outputs": outputs, "gradients": gradients, "largest": largest}


def _difference(one: Any, other: Any) -> float:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    pairs = list(zip(*map(jax.tree.leaves, (one, other))))
    for a, b in pairs:
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return _greatest(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs)


def _greatest(numbers: Iterable[Any]) -> float:
    """NaN if one is NaN; the `max` of Python may pass over it."""
    return float(np.max([*numbers]))
