"""One recurrent layer over a batch of sequences in every framework that is compared.

Each maker returns a function without arguments that runs the layer once, waits for the result and
returns nothing. Inputs and outputs are `[B, T, features]`; "train" takes the gradient of the mean
square of all outputs in the parameters. A framework is imported by its maker alone, since each runs
in a process of its own.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import jax

    from longlag.core.ops import Params

__all__ = [
    "FRAMEWORKS",
    "GATES",
    "JAX_PEERS",
    "Layer",
    "jit_run",
    "linen_rnn",
    "longlag_cell",
    "torch_run",
]

GATES = {"lstm": 4, "gru": 3, "elman": 1}


@dataclass(frozen=True)
class Layer:
    """What is run.

    Attributes:
        cell: "lstm", "gru" or "elman".
        shape: B, T, D, H.
        training: value and gradient, rather than the value alone.
    """

    cell: str
    shape: tuple[int, int, int, int]
    training: bool

    @property
    def inputs(self) -> np.ndarray:
        """`[B, T, D]` float32, the same in every process."""
        batch, steps, features, _ = self.shape
        return np.random.default_rng(0).normal(size=(batch, steps, features)).astype(np.float32)


Run = Callable[[], None]


def jit_run(
    layer: Layer, apply: Callable[[Any, Any], Any], params: Any, *, time_major: bool = False
) -> Run:
    """Runs `ys = apply(params, xs)` compiled, with gradients if the layer trains.

    Its `note()` has the compiled `program` as text, and `temp_bytes`, the memory that it takes
    beside inputs and outputs.
    """
    import jax

    xs = jax.device_put(layer.inputs.swapaxes(0, 1) if time_major else layer.inputs)

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        return (apply(params, xs) ** 2).mean()

    function = jax.value_and_grad(loss) if layer.training else apply
    run = jax.jit(function).lower(params, xs).compile()

    def run_once() -> None:
        jax.block_until_ready(run(params, xs))

    def note() -> dict[str, Any]:
        memory: Any = run.memory_analysis()
        return {"program": run.as_text(), "temp_bytes": memory.temp_size_in_bytes}

    run_once.note = note  # type: ignore[attr-defined]
    return run_once


def longlag_cell(name: str, width: int) -> Any:
    """The cell of this name: one of `GATES`, or "min_gru"."""
    import longlag as ll

    kinds = {"lstm": ll.LSTM, "gru": ll.GRU, "elman": ll.Elman, "min_gru": ll.MinGRU}
    return kinds[name](width)


def longlag(layer: Layer) -> Run:
    return _longlag(layer, lambda cell: cell)


def longlag_plain(layer: Layer) -> Run:
    """The same cell with a `step` of its own, so that `unroll` knows nothing of its parts."""

    def make_plain(cell: Any) -> Any:
        kind = type(cell)

        def step(self: Any, params: Params, carry: Any, z: Any) -> tuple[Any, Any]:
            return kind.step(self, params, carry, z)

        return type(f"Plain{kind.__name__}", (kind,), {"step": step})(cell.features)

    return _longlag(layer, make_plain)


def _longlag(layer: Layer, change: Callable[[Any], Any]) -> Run:
    import jax

    import longlag as ll

    _, _, features, width = layer.shape
    cell = change(longlag_cell(layer.cell, width))
    params = cell.init(jax.random.key(0), features)
    return jit_run(layer, lambda params, xs: ll.unroll(cell, params, xs)[1], params)


def linen(layer: Layer) -> Run:
    import jax

    rnn = linen_rnn(layer)
    return jit_run(layer, rnn.apply, rnn.init(jax.random.key(0), layer.inputs))


def linen_rnn(layer: Layer, *, time_major: bool = False) -> Any:
    """The layer in flax linen, by its fastest cell."""
    import flax.linen as nn

    cells: dict[str, Any] = {
        "lstm": nn.OptimizedLSTMCell,
        "gru": nn.GRUCell,
        "elman": nn.SimpleCell,
    }
    return nn.RNN(cells[layer.cell](layer.shape[-1]), time_major=time_major)


def nnx(layer: Layer) -> Run:
    from flax import nnx

    cells: dict[str, Any] = {
        "lstm": nnx.OptimizedLSTMCell,
        "gru": nnx.GRUCell,
        "elman": nnx.SimpleCell,
    }
    _, _, features, width = layer.shape
    rngs = nnx.Rngs(0)
    rnn = nnx.RNN(cells[layer.cell](features, width, rngs=rngs), rngs=rngs)
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)

    def apply(params: Any, xs: jax.Array) -> Any:
        return nnx.merge(graph, params, rest)(xs, rngs=nnx.Rngs(0))  # asked for zeros

    return jit_run(layer, apply, params)


def haiku(layer: Layer) -> Run:
    import haiku as hk
    import jax

    cells = {"lstm": hk.LSTM, "gru": hk.GRU, "elman": hk.VanillaRNN}

    def forward(xs: jax.Array) -> Any:
        core = cells[layer.cell](layer.shape[-1])
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[0]), time_major=False)[0]

    made = hk.without_apply_rng(hk.transform(forward))
    return jit_run(layer, made.apply, made.init(jax.random.key(0), layer.inputs))


def equinox(layer: Layer) -> Run:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    cells = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}
    _, _, features, width = layer.shape
    cell = cells[layer.cell](features, width, key=jax.random.key(0))

    def one_sequence(cell: Any, xs: jax.Array) -> jax.Array:  # [T, D] to [T, H]
        zero = jnp.zeros(width)

        def step(state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            state = cell(x, state)
            return state, state[0] if layer.cell == "lstm" else state

        return jax.lax.scan(step, (zero, zero) if layer.cell == "lstm" else zero, xs)[1]

    params, static = eqx.partition(cell, eqx.is_array)

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        return jax.vmap(functools.partial(one_sequence, eqx.combine(params, static)))(xs)

    return jit_run(layer, apply, params)


def keras(layer: Layer) -> Run:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    cells = {
        "lstm": keras.layers.LSTM,
        "gru": keras.layers.GRU,
        "elman": keras.layers.SimpleRNN,
    }
    rnn = cells[layer.cell](layer.shape[-1], return_sequences=True)
    rnn.build(layer.inputs.shape)
    others = [variable.value for variable in rnn.non_trainable_variables]

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        return rnn.stateless_call(params, others, xs)[0]

    return jit_run(layer, apply, [variable.value for variable in rnn.trainable_variables])


def torch(layer: Layer) -> Run:
    import torch

    cells = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
    _, _, features, width = layer.shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rnn = cells[layer.cell](features, width, batch_first=True).to(device)
    xs = torch.from_numpy(layer.inputs).to(device)

    return torch_run(layer, lambda: rnn(xs)[0], rnn)


def torch_run(layer: Layer, apply: Callable[[], Any], module: Any) -> Run:
    """Runs `ys = apply()`, with gradients in the parameters of `module` if the layer trains."""
    import torch

    def run_once() -> None:
        if layer.training:
            module.zero_grad(set_to_none=True)
            (apply() ** 2).mean().backward()
        else:
            with torch.no_grad():
                apply()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run_once


def matmul(layer: Layer) -> Run:
    """A square product, from whose rate the floor is taken; not a layer."""
    import jax

    del layer
    square = jax.random.normal(jax.random.key(0), (MATMUL, MATMUL))
    run = jax.jit(lambda x: x @ x).lower(square).compile()
    return lambda: jax.block_until_ready(run(square))


# Size of the square product.
MATMUL = 2048

FRAMEWORKS: dict[str, Callable[[Layer], Run]] = {
    "longlag": longlag,
    "flax linen": linen,
    "flax nnx": nnx,
    "haiku": haiku,
    "equinox": equinox,
    "keras": keras,
    "torch": torch,
    "matmul": matmul,
}
JAX_PEERS = ("flax linen", "flax nnx", "haiku", "equinox")
