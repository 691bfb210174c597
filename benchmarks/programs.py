"""The programs of `benchmarks.compiled`: every cell, attention and published block, and hybrids.

A program is a value with its gradient, or a whole train step. Parameters are the same on every
chip, and each chip has its own part of the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["PROGRAMS", "Shape", "compile_for", "measure"]


class Shape(NamedTuple):
    """B sequences and T steps of a chip, D input features and H features."""

    batch: int
    steps: int
    inputs: int
    features: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A program before it is traced.

    Attributes:
        shape: of one chip.
        make: from a shape, that of all chips, to a function of parameters and data, the shapes of
            the parameters, and those of the data, which begin with B and T.
        over: what chips share out, "data" or "time".
    """

    shape: Shape
    make: Callable[[Shape], tuple[Callable[..., Any], Any, Any]]
    over: str = "data"


def compile_for(program: Program, target: str, chips: int) -> Any:
    """Compiles a program, its batch shared out over chips.

    Args:
        program: the program.
        target: a key of `TARGETS`.
        chips: one of `CHIPS`.
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from benchmarks.targets import devices

    mesh = Mesh(np.array(devices(target, chips)), program.over)
    shape, in_time = program.shape, program.over == "time"
    if in_time:
        shape = shape._replace(steps=shape.steps * chips)
    else:
        shape = shape._replace(batch=shape.batch * chips)
    function, params, data = program.make(shape)

    def place(tree: Any, *axes: str | None) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    data = place(data, None, "time") if in_time else place(data, "data")
    with jax.set_mesh(mesh) if in_time else contextlib.nullcontext():
        return jax.jit(function).lower(place(params), data).compile()


def measure(
    name: str, target: str, chips: int = 1, shape: Sequence[int] | None = None
) -> dict[str, Any]:
    """Compiles a program, in the child process of a `Compiler`.

    Args:
        name: a key of `PROGRAMS`.
        target: a key of `TARGETS`.
        chips: one of `CHIPS`.
        shape: B a chip, T, D and H, in place of the program's own.

    Returns:
        A row, without the names: `shape`; bytes a chip of `arguments`, `outputs` and `temporary`;
        the fields of `hlo.Counts`; `compile_s`, seconds of all cores for tracing and compiling.
    """
    from benchmarks import hlo

    program, began = PROGRAMS[name], _cpu_seconds()
    if shape is not None:
        program = dataclasses.replace(program, shape=Shape(*shape))
    compiled = compile_for(program, target, chips)
    seconds = _cpu_seconds() - began
    memory = compiled.memory_analysis()
    return {
        "shape": list(program.shape),
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        **dataclasses.asdict(hlo.count(compiled.as_text())),
        "compile_s": round(seconds, 1),
    }


def _cpu_seconds() -> float:
    """Of this process and of those it started, such as ptxas. A busy machine changes little."""
    return sum(os.times()[:4])


def gradient(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The value and the gradient in the first argument."""
    import jax

    return jax.value_and_grad(loss)


def _floats(*shape: int) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _flags(shape: Shape) -> dict[str, Any]:
    """Any mask and any resets, as data."""
    import jax
    import jax.numpy as jnp

    type_ = jax.ShapeDtypeStruct((shape.batch, shape.steps), jnp.bool_)
    return {"mask": type_, "resets": type_}


def of_cell(cell: Any, shape: Shape, **options: Any) -> tuple[Callable[..., Any], Any, Any]:
    """The mean square of all outputs of a cell, with any mask and any resets."""
    import jax

    import longlag as ll

    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), shape.inputs))

    def loss(params: Any, data: Any) -> jax.Array:
        xs, flags = data
        return (ll.unroll(cell, params, xs, **flags, **options)[1] ** 2).mean()

    xs = _floats(shape.batch, shape.steps, shape.inputs)
    return gradient(loss), params, (xs, _flags(shape))


def side_by_side(cell: Any, shape: Shape) -> tuple[Callable[..., Any], Any, Any]:
    """Four seeds of a cell in one program, each with parameters and data of its own."""
    import jax

    def with_axis(tree: Any, axis: int) -> Any:
        def add(x: Any) -> Any:
            return jax.ShapeDtypeStruct((*x.shape[:axis], 4, *x.shape[axis:]), x.dtype)

        return jax.tree.map(add, tree)

    function, params, data = of_cell(cell, shape)
    return jax.vmap(function, (0, 1)), with_axis(params, 0), with_axis(data, 1)


def of_layer(layer: Any, shape: Shape) -> tuple[Callable[..., Any], Any, Any]:
    """The mean square of all outputs of an attention or a block, with any mask and any resets."""
    import jax
    import jax.numpy as jnp

    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), shape.inputs))

    def loss(params: Any, data: Any) -> jax.Array:
        xs, flags = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), data)
        return (layer.apply(params, xs, **flags)[1] ** 2).mean()

    xs = _floats(shape.batch, shape.steps, shape.inputs)
    return gradient(loss), params, (xs, _flags(shape))


def in_time(layer: Any, shape: Shape) -> tuple[Callable[..., Any], Any, Any]:
    """As `of_layer`, with the time of each sequence cut over the chips of a mesh."""
    import jax
    import jax.numpy as jnp

    import longlag as ll

    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), shape.inputs))

    def local(params: Any, data: Any) -> jax.Array:
        xs, flags = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), data)
        with ll.time_over_devices("time"):
            ys = layer.apply(params, xs, **flags)[1]
        return jax.lax.pmean((ys**2).mean(), "time")

    cut = jax.sharding.PartitionSpec(None, "time")
    loss = jax.shard_map(
        local, in_specs=(jax.sharding.PartitionSpec(), cut), out_specs=jax.sharding.PartitionSpec()
    )
    xs = _floats(shape.batch, shape.steps, shape.inputs)
    return gradient(loss), params, (xs, _flags(shape))


def of_model(model: Any, shape: Shape) -> tuple[Callable[..., Any], Any, Any]:
    """A whole train step by Adam on tokens: loss, gradient, clipping, update."""
    import jax
    import jax.numpy as jnp
    import optax

    from longlag.training import Training

    training = Training()
    optimizer = training.transformation_for(model)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    state = params, jax.eval_shape(optimizer.init, params)
    tokens = jax.ShapeDtypeStruct((shape.batch, shape.steps), jnp.int32)

    def step(state: Any, data: Any) -> Any:
        params, opt_state = state
        inputs, targets, flags = data

        def loss(params: Any) -> jax.Array:
            answers = model.apply(params, inputs, **flags)[1]
            of_positions = optax.softmax_cross_entropy_with_integer_labels(answers, targets)
            return jnp.where(flags["mask"], of_positions, 0).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return step, state, (tokens, tokens, _flags(shape))


def _cells(shape: Shape) -> dict[str, Any]:
    from longlag.runs import cell_names

    kinds: dict[str, Any] = cell_names()
    return {kind.__name__: kind(shape.features) for kind in kinds.values()}


def _fused(shape: Shape) -> dict[str, Any]:
    """The cells that `method="fused"` takes.

    Cells with a matrix for a state have no loop of single steps, and GSA, whose decays are spread
    over the features of a head, has no normal form.
    """
    import longlag as ll
    from longlag.core.matrix_cell import MatrixCell

    others = (MatrixCell, ll.GSA)
    return {name: cell for name, cell in _cells(shape).items() if not isinstance(cell, others)}


def _few(shape: Shape) -> dict[str, Any]:
    """One dense cell and one matrix cell."""
    import longlag as ll

    H = shape.features
    return {"LSTM": ll.LSTM(H), "Retention": ll.Retention(H, heads=2)}


def _cut_in_time(shape: Shape) -> dict[str, Any]:
    """A linear cell, a matrix cell and an attention, as layers."""
    import longlag as ll

    H = shape.features
    return {
        "MinGRU": ll.Recurrent(ll.MinGRU(H)),
        "Retention": ll.Recurrent(ll.Retention(H, heads=2)),
        "dot product": ll.DotProduct(H, heads=2),
    }


def _attentions(shape: Shape) -> dict[str, Any]:
    from longlag.attention import Additive, DotProduct, Local, Multiplicative

    H = shape.features
    return {
        "additive": Additive(H),
        "additive, window 64": Additive(H, window=64),
        "multiplicative": Multiplicative(H),
        "dot product": DotProduct(H, heads=4),
        "dot product, window 64": DotProduct(H, heads=4, window=64),
        "local, radius 8": Local(H, attention=Additive(H), radius=8),
    }


def _blocks(shape: Shape) -> dict[str, Any]:
    from longlag.contrib import blocks

    H = shape.features
    return {
        "Griffin, recurrent": blocks.griffin_recurrent(H),
        "Griffin, attention": blocks.griffin_attention(H, window=256),
        "Mamba": blocks.mamba(H),
        "mLSTM": blocks.mlstm(H),
        "sLSTM": blocks.slstm(H),
        "Gated DeltaNet": blocks.gated_delta_net(H),
    }


def _models(shape: Shape) -> dict[str, Any]:
    import longlag as ll
    from longlag.models import build

    H = shape.features
    common = {"inputs": "tokens", "in_features": 256, "out_features": 256, "width": H}
    common |= {"depth": 6, "heads": 8, "mlp": 3 * H}
    return {
        "LSTM and attention": build(**common, cell=ll.LSTM(H), attention="full"),
        "RG-LRU and windows": build(
            **common, cell=ll.RGLRU(H), attention="window", window=128, pattern="interleaved"
        ),
    }


def _programs() -> dict[str, Program]:
    cells, layers = Shape(32, 1024, 128, 256), Shape(8, 1024, 256, 256)
    kinds: dict[str, tuple[Callable[[Shape], dict[str, Any]], Callable[..., Any], Shape]] = {
        "cell": (_cells, of_cell, cells),
        "fused cell": (_fused, functools.partial(of_cell, method="fused"), cells),
        "long": (_few, of_cell, cells._replace(steps=4096)),
        "four seeds": (_few, side_by_side, cells._replace(batch=8)),
        "attention": (_attentions, of_layer, layers),
        "block": (_blocks, of_layer, layers),
        "train step": (_models, of_model, Shape(16, 1024, 256, 512)),
        "cut in time": (_cut_in_time, in_time, layers._replace(batch=1, steps=4096)),
    }
    return {
        f"{kind}: {name}": Program(
            shape,
            functools.partial(_make, members, make, name),
            "time" if kind == "cut in time" else "data",
        )
        for kind, (members, make, shape) in kinds.items()
        for name in members(shape)
    }


def _make(
    members: Callable[[Shape], dict[str, Any]], make: Callable[..., Any], name: str, shape: Shape
) -> tuple[Callable[..., Any], Any, Any]:
    return make(members(shape)[name], shape)


PROGRAMS = _programs()
