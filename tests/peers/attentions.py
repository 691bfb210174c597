"""The attentions that somebody else has too.

Their weights go over here: `longlag.interop` is for cells. Masks of theirs are what ours is by
itself, causal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from flax import nnx

from longlag.attention import Additive, DotProduct, Multiplicative
from longlag.nn import Layer
from tests.peers.counterpart import (
    B,
    Counterpart,
    H,
    N,
    Peer,
    T,
    differentiated,
    inputs,
    keras_peer,
    nnx_function,
    torch_peer,
    with_weights,
)

__all__ = ["ATTENTION_COUNTERPARTS"]

CAUSAL = np.tril(np.ones((T, T), bool))
NAMES = ("query", "key", "value", "out")


def _by_head(params: Any) -> dict[str, jax.Array]:
    """Kernels `[D, heads, width]`, and `[heads, width, features]` for "out"."""
    split = {name: jnp.asarray(params[name]["kernel"]) for name in NAMES}
    found = {name: split[name].reshape(H, -1, H // N) for name in NAMES[:3]}
    return found | {"out": split["out"].reshape(N, H // N, H)}


def _flax_kernels(params: Any) -> Any:
    return {name: {"kernel": kernel} for name, kernel in _by_head(params).items()}


def _linen_attention() -> Peer:
    layer = nn.MultiHeadDotProductAttention(N, use_bias=False)

    def run(weights, xs, first):
        found: Any = layer.apply({"params": weights}, xs, mask=CAUSAL[None, None])
        return first, found

    fresh: Any = jax.eval_shape(layer.init, jax.random.key(0), inputs(H))
    return Peer(fresh["params"], differentiated(run))


def _nnx_attention() -> Peer:
    zeros = nnx.initializers.zeros_init()
    layer = nnx.MultiHeadAttention(
        N, H, use_bias=False, decode=False, kernel_init=zeros, rngs=nnx.Rngs(0)
    )
    call, fresh = nnx_function(layer)

    def run(weights, xs, first):
        return first, call(weights, xs, mask=CAUSAL[None, None])

    return Peer(fresh, differentiated(run))


def _haiku_attention() -> Peer:
    def attend(xs):
        init = hk.initializers.VarianceScaling()
        layer = hk.MultiHeadAttention(N, H // N, w_init=init, with_bias=False, name="mha")
        return layer(xs, xs, xs, mask=jnp.asarray(CAUSAL[None, None]))

    made = hk.without_apply_rng(hk.transform(attend))
    fresh = jax.eval_shape(made.init, jax.random.key(0), inputs(H))
    return Peer(fresh, differentiated(lambda weights, xs, first: (first, made.apply(weights, xs))))


def _equinox_attention(turn: bool) -> Peer:
    module = eqx.filter_eval_shape(eqx.nn.MultiheadAttention, N, H, key=jax.random.key(0))
    rotary = jax.vmap(eqx.nn.RotaryPositionalEmbedding(H // N), in_axes=1, out_axes=1)

    def heads(query, key, value):
        return (rotary(query), rotary(key), value) if turn else (query, key, value)

    def run(weights, xs, first):
        layer = with_weights(module, weights)
        row = lambda xs: layer(xs, xs, xs, mask=jnp.asarray(CAUSAL), process_heads=heads)  # noqa: E731
        return first, jax.vmap(row)(xs)

    fresh = {name: jnp.zeros((H, H)) for name in EQUINOX.values()}
    return Peer(fresh, differentiated(run))


EQUINOX = {"out": "output_proj.weight"} | {name: f"{name}_proj.weight" for name in NAMES[:3]}


def _to_equinox(params: Any) -> Any:
    return {EQUINOX[name]: jnp.asarray(params[name]["kernel"]).T for name in NAMES}


def _torch_attention() -> Peer:
    unseen = torch.tensor(~CAUSAL)

    def run(call, xs, first):
        return first, call(xs, xs, xs, attn_mask=unseen, need_weights=False)[0]

    return torch_peer(torch.nn.MultiheadAttention(H, N, bias=False, batch_first=True), run)


def _to_torch_attention(params: Any) -> Any:
    kernels = [jnp.asarray(params[name]["kernel"]).T for name in NAMES]
    return {"in_proj_weight": jnp.concatenate(kernels[:3]), "out_proj.weight": kernels[3]}


def _keras_attention(kind: Any, *arguments: Any, **options: Any) -> Peer:
    return keras_peer(
        functools.partial(kind, *arguments, use_bias=False, kernel_initializer="zeros", **options),
        [(B, T, H)] * 2,
        lambda call, weights, xs, first: (first, call(weights, xs, xs, use_causal_mask=True)),
    )


def _keras_score(kind: Any, parts: Callable[[Any, jax.Array], tuple[Any, Any, Any]]) -> Peer:
    """A layer that scores and sums; `parts` gives its weights, and queries and keys."""

    def run(call, weights, xs, first):
        own, queries, keys = parts(weights, xs)
        return first, call(own, [queries, xs, keys], use_causal_mask=True)

    return keras_peer(kind, [[(B, T, H)] * 3], run)


def _additive(params: Any, xs: jax.Array) -> tuple[Any, Any, Any]:
    queries = xs @ params["query"]["kernel"] + params["query"]["bias"]
    return [params["score"]["kernel"][:, 0]], queries, xs @ params["key"]["kernel"]


def _dot(params: Any, xs: jax.Array) -> tuple[Any, Any, Any]:
    return [], xs, xs


def _general(params: Any, xs: jax.Array) -> tuple[Any, Any, Any]:
    return [], xs, xs @ params["key"]["kernel"]


# The first three stand on `jax.nn.dot_product_attention`, whose softmax is float32 whatever it is
# given; the last has keras's tanh.
IN_SINGLE = (
    "nnx.MultiHeadAttention",
    "keras.layers.MultiHeadAttention",
    "keras.layers.GroupQueryAttention",
    "keras.layers.AdditiveAttention",
)
PACKAGES = {"linen": "flax", "nnx": "flax", "hk": "dm-haiku", "eqx": "equinox"}


def _attention(
    ours: Layer,
    name: str,
    to_theirs: Callable[[Any], Any],
    build: Callable[..., Peer],
    *given: Any,
    **named: Any,
) -> Counterpart:
    prefix = name.partition(".")[0]
    return Counterpart(
        ours,
        PACKAGES.get(prefix, prefix),
        name,
        functools.partial(build, *given, **named),
        to_theirs,
        features=H,
        float64=name not in IN_SINGLE,
    )


def _same(params: Any) -> Any:
    return params


def _kernels(params: Any) -> list[jax.Array]:
    return list(_by_head(params).values())


def _to_haiku(params: Any) -> Any:
    modules = {name: "linear" if name == "out" else name for name in NAMES}
    return {f"mha/{modules[name]}": {"w": params[name]["kernel"]} for name in NAMES}


PLAIN = DotProduct(H, heads=N, positions="none")
ROTARY = DotProduct(H, heads=N)
GROUPED = DotProduct(H, heads=N, positions="none", kv_heads=1)
WINDOW = DotProduct(H, heads=N, positions="none", window=5)
DOT, GENERAL = Multiplicative(H, score="dot"), Multiplicative(H)
MULTI_HEAD, GROUP = keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention
SCORED = keras.layers.Attention

ATTENTION_COUNTERPARTS = [
    _attention(PLAIN, "linen.MultiHeadDotProductAttention", _flax_kernels, _linen_attention),
    _attention(PLAIN, "nnx.MultiHeadAttention", _flax_kernels, _nnx_attention),
    _attention(PLAIN, "hk.MultiHeadAttention", _to_haiku, _haiku_attention),
    _attention(PLAIN, "eqx.nn.MultiheadAttention", _to_equinox, _equinox_attention, False),
    _attention(
        PLAIN,
        "keras.layers.MultiHeadAttention",
        _kernels,
        _keras_attention,
        MULTI_HEAD,
        N,
        H // N,
    ),
    _attention(PLAIN, "torch.nn.MultiheadAttention", _to_torch_attention, _torch_attention),
    _attention(ROTARY, "eqx.nn.RotaryPositionalEmbedding", _to_equinox, _equinox_attention, True),
    _attention(
        GROUPED,
        "keras.layers.GroupQueryAttention",
        _kernels,
        _keras_attention,
        GROUP,
        H // N,
        N,
        1,
    ),
    _attention(
        WINDOW,
        "keras.layers.MultiHeadAttention",
        _kernels,
        _keras_attention,
        MULTI_HEAD,
        N,
        H // N,
        sliding_window=5,
    ),
    _attention(
        Additive(H),
        "keras.layers.AdditiveAttention",
        _same,
        _keras_score,
        keras.layers.AdditiveAttention,
        _additive,
    ),
    _attention(DOT, "keras.layers.Attention", _same, _keras_score, SCORED, _dot),
    _attention(GENERAL, "keras.layers.Attention", _same, _keras_score, SCORED, _general),
]
