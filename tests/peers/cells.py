"""The cells that somebody else has too, alone and in both directions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
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

from longlag import GRU, LSTM, Cell, Elman, interop
from longlag.cells import ProjectedLSTM
from longlag.nn import Bidirectional
from tests.peers.counterpart import (
    B,
    Counterpart,
    D,
    H,
    Peer,
    T,
    differentiated,
    dtype,
    inputs,
    keras_peer,
    like,
    nnx_function,
    torch_peer,
    with_weights,
)

__all__ = ["BOTH_WAYS", "CELLS"]


def _bare(leaves: Sequence[Any]) -> Any:
    """The state of one part as all have it: no tuple of one."""
    return tuple(leaves) if len(leaves) > 1 else leaves[0]


def _flax_first(first: Any) -> Any:
    """Flax has c before h."""
    return _bare(jax.tree.leaves(first)[::-1])


def _flax_last(first: Any, last: Any) -> Any:
    return like(first, jax.tree.leaves(last)[::-1])


def _linen(kind: Any, **options: Any) -> Peer:
    rnn = nn.RNN(kind(H, param_dtype=dtype(), **options), return_carry=True)

    def run(weights, xs, first):
        found: Any = rnn.apply({"params": {"cell": weights}}, xs, initial_carry=_flax_first(first))
        return _flax_last(first, found[0]), found[1]

    fresh: Any = jax.eval_shape(rnn.init, jax.random.key(0), inputs())
    return Peer(fresh["params"]["cell"], differentiated(run))


# Theirs draw nothing where they can be told so: weights are given, and drawing takes long.
ZEROS = nnx.initializers.zeros_init()
NNX_ZEROS: Any = {"kernel_init": ZEROS, "recurrent_kernel_init": ZEROS, "rngs": nnx.Rngs(0)}
KERAS_ZEROS: Any = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def _nnx(kind: Any, **options: Any) -> Peer:
    cell = kind(D, H, dtype=dtype(), param_dtype=dtype(), **NNX_ZEROS, **options)
    call, fresh = nnx_function(nnx.RNN(cell, return_carry=True, rngs=nnx.Rngs(0)))

    def run(weights, xs, first):
        last, ys = call({"cell": weights}, xs, initial_carry=_flax_first(first))
        return _flax_last(first, last), ys

    return Peer(fresh["cell"], differentiated(run))


def _haiku(kind: Any) -> Peer:
    def unrolled(xs, first):
        leaves = jax.tree.leaves(first)
        first = hk.LSTMState(*leaves) if kind is hk.LSTM else _bare(leaves)
        return hk.dynamic_unroll(kind(H), xs, first, time_major=False)

    made = hk.without_apply_rng(hk.transform(unrolled))

    def run(weights, xs, first):
        ys, last = made.apply(weights, xs, first)
        return like(first, jax.tree.leaves(last)), ys

    first = [jnp.zeros((B, H))] * (2 if kind is hk.LSTM else 1)
    return Peer(jax.eval_shape(made.init, jax.random.key(0), inputs(), first), differentiated(run))


def _equinox(kind: Any) -> Peer:
    module = eqx.filter_eval_shape(kind, D, H, key=jax.random.key(0))
    names = ["weight_ih", "weight_hh", "bias", *(["bias_n"] if hasattr(module, "bias_n") else [])]

    def run(weights, xs, first):
        def row(xs, first):
            def step(state, x):
                state = with_weights(module, weights)(x, state)
                return state, jax.tree.leaves(state)[0]

            return jax.lax.scan(step, _bare(jax.tree.leaves(first)), xs)

        last, ys = jax.vmap(row)(xs, first)
        return like(first, jax.tree.leaves(last)), ys

    return Peer({name: getattr(module, name) for name in names}, differentiated(run))


def _keras(kind: Any, **options: Any) -> Peer:
    def run(call, weights, xs, first):
        ys, *last = call(weights, xs, initial_state=jax.tree.leaves(first))
        return like(first, last), ys

    options |= {"return_sequences": True, "return_state": True, **KERAS_ZEROS}
    return keras_peer(functools.partial(kind, H, **options), [(B, T, D)], run)


def _torch(kind: Any, **options: Any) -> Peer:
    def run(call, xs, first):
        leaves = [leaf[None] for leaf in jax.tree.leaves(first)]
        if not leaves:
            return [], call(xs)[0]
        ys, last = call(xs, _bare(leaves))
        return [leaf[0] for leaf in (last if len(leaves) > 1 else [last])], ys

    return torch_peer(kind(D, H, batch_first=True, **options), run)


def _one(params: Sequence[Any]) -> Any:
    (only,) = params
    return only


# By the first word of a name: the package, how its cells are run, and the two converters.
FRAMEWORKS: dict[str, tuple[str, Callable[..., Peer], Callable[..., Any], Callable[..., Any]]] = {
    "linen": ("flax", _linen, interop.to_linen, interop.from_linen),
    "nnx": ("flax", _nnx, interop.to_nnx, interop.from_nnx),
    "hk": ("dm-haiku", _haiku, interop.to_haiku, interop.from_haiku),
    "eqx": ("equinox", _equinox, interop.to_equinox, interop.from_equinox),
    "keras": ("keras", _keras, interop.to_keras, interop.from_keras),
    "torch": (
        "torch",
        _torch,
        interop.to_torch,
        lambda cell, theirs: _one(interop.from_torch(cell, theirs)),
    ),
}


ELMAN, RELU = Elman(H), Elman(H, activation="relu")
LSTM_, PROJECTED = LSTM(H), ProjectedLSTM(H, projection=3)
AFTER, BEFORE = GRU(H), GRU(H, reset="before")


# Keras has no tanh in float64, whatever it is given, except over tensorflow.
def _cell(cell: Cell, prefix: str, kind: type, **options: Any) -> Counterpart:
    """A counterpart whose weights `longlag.interop` carries over both ways."""
    package, build, there, back = FRAMEWORKS[prefix.partition(".")[0]]
    return Counterpart(
        cell,
        package,
        f"{prefix}.{kind.__name__}",
        functools.partial(build, kind, **options),
        functools.partial(there, cell),
        functools.partial(back, cell),
        float64=package != "keras" or cell == RELU,
    )


def _no_candidate_bias(params: Any) -> Any:
    return params | {"recurrent": {"kernel": params["recurrent"]["kernel"]}}


def _zero_candidate_bias(params: Any) -> Any:
    kernel = params["recurrent"]["kernel"]
    return params | {"recurrent": {"kernel": kernel, "bias": np.zeros(H, kernel.dtype)}}


CELLS = [
    _cell(ELMAN, "linen", nn.SimpleCell),
    _cell(ELMAN, "nnx", nnx.SimpleCell),
    _cell(ELMAN, "keras.layers", keras.layers.SimpleRNN),
    _cell(ELMAN, "torch.nn", torch.nn.RNN),
    _cell(RELU, "linen", nn.SimpleCell, activation_fn=jax.nn.relu),
    _cell(RELU, "nnx", nnx.SimpleCell, activation_fn=jax.nn.relu),
    _cell(RELU, "hk", hk.VanillaRNN),
    _cell(RELU, "keras.layers", keras.layers.SimpleRNN, activation="relu"),
    _cell(RELU, "torch.nn", torch.nn.RNN, nonlinearity="relu"),
    _cell(LSTM_, "linen", nn.LSTMCell),
    _cell(LSTM_, "linen", nn.OptimizedLSTMCell),
    dataclasses.replace(
        _cell(LSTM_, "nnx", nnx.LSTMCell),
        to_theirs=functools.partial(interop.to_nnx, LSTM_, optimized=False),
    ),
    _cell(LSTM_, "nnx", nnx.OptimizedLSTMCell),
    _cell(LSTM_, "hk", hk.LSTM),
    _cell(LSTM_, "eqx.nn", eqx.nn.LSTMCell),
    _cell(LSTM_, "keras.layers", keras.layers.LSTM),
    _cell(LSTM_, "torch.nn", torch.nn.LSTM),
    _cell(PROJECTED, "torch.nn", torch.nn.LSTM, proj_size=3),
    _cell(AFTER, "linen", nn.GRUCell),
    # Its candidate has no bias at the product: ours is zero there, and not drawn.
    dataclasses.replace(
        _cell(AFTER, "nnx", nnx.GRUCell),
        to_theirs=lambda params: interop.to_nnx(AFTER, _zero_candidate_bias(params)),
        to_ours=_zero_candidate_bias,
        drawn=lambda ours, theirs: _no_candidate_bias(ours),
        note="c = 0",
    ),
    # With r = z a GRU is what flax calls an MGU; the weights drawn are flax's.
    dataclasses.replace(
        _cell(AFTER, "linen", nn.MGUCell),
        to_theirs=lambda params: params,
        to_ours=functools.partial(interop.from_linen, AFTER),
        drawn=lambda ours, theirs: theirs,
        note="r = z",
    ),
    _cell(AFTER, "eqx.nn", eqx.nn.GRUCell),
    _cell(AFTER, "keras.layers", keras.layers.GRU),
    _cell(AFTER, "torch.nn", torch.nn.GRU),
    _cell(BEFORE, "hk", hk.GRU),
    _cell(BEFORE, "keras.layers", keras.layers.GRU, reset_after=False),
]

# --- both directions ----------------------------------------------------------------------------

BOTH = Bidirectional(LSTM_)
WAYS = ("forward", "backward")


def _linen_both() -> Peer:
    forward, backward = (nn.RNN(nn.OptimizedLSTMCell(H, param_dtype=dtype())) for _ in WAYS)
    layer = nn.Bidirectional(forward, backward)

    def run(weights, xs, first):
        found: Any = layer.apply({"params": weights}, xs)
        return first, found

    fresh: Any = jax.eval_shape(layer.init, jax.random.key(0), inputs())
    return Peer(fresh["params"], differentiated(run))


def _nnx_both() -> Peer:
    cells = [nnx.OptimizedLSTMCell(D, H, param_dtype=dtype(), **NNX_ZEROS) for _ in WAYS]
    forward, backward = (nnx.RNN(cell, rngs=nnx.Rngs(0)) for cell in cells)
    call, fresh = nnx_function(nnx.Bidirectional(forward, backward, rngs=nnx.Rngs(0)))
    run = differentiated(lambda weights, xs, first: (first, call(weights, xs, rngs=nnx.Rngs(0))))
    return Peer(fresh, run)


def _keras_both() -> Peer:
    def make(dtype):
        cell = keras.layers.LSTM(H, return_sequences=True, dtype=dtype, **KERAS_ZEROS)
        return keras.layers.Bidirectional(cell, dtype=dtype)

    return keras_peer(
        make,
        [(B, T, D)],
        lambda call, weights, xs, first: (first, call(weights, xs)),
    )


BOTH_WAYS = [
    Counterpart(
        BOTH,
        "flax",
        "linen.Bidirectional",
        _linen_both,
        lambda params: {
            f"{way}_rnn": {"cell": interop.to_linen(LSTM_, params[way])} for way in WAYS
        },
    ),
    Counterpart(
        BOTH,
        "flax",
        "nnx.Bidirectional",
        _nnx_both,
        lambda params: {f"{way}_rnn": {"cell": interop.to_nnx(LSTM_, params[way])} for way in WAYS},
    ),
    Counterpart(
        BOTH,
        "keras",
        "keras.layers.Bidirectional",
        _keras_both,
        lambda params: [w for way in WAYS for w in interop.to_keras(LSTM_, params[way])],
        float64=False,
    ),
    Counterpart(
        BOTH,
        "torch",
        "torch.nn.LSTM",
        functools.partial(_torch, torch.nn.LSTM, bidirectional=True),
        lambda params: interop.to_torch(LSTM_, [params[way] for way in WAYS], bidirectional=True),
    ),
]
