"""Functions over every member of the library, to be traced in a mode or a dtype of jax.

A test that needs no numbers traces them: `jax.make_jaxpr` costs a tenth of what a program does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from longlag.analysis.diagnostics import attention_by_lag, gradient_by_lag, jacobians
from longlag.attention import Additive, Attention, DotProduct, Local, Multiplicative
from longlag.cells import GRU, LSTM, Elman
from longlag.contrib.newton_method import newton
from longlag.core.cell import Cell
from longlag.core.chunks import sum_over_time
from longlag.core.linear_cell import LinearCell
from longlag.core.matrix_cell import MatrixCell
from longlag.core.promotion import widen
from longlag.core.scans.linear import linear_scan
from longlag.core.scans.matrix import matrix_scan
from longlag.core.unrolling import unroll
from longlag.models import Seq2Seq, SequenceModel, beam_search, build, generate, sample
from longlag.nn import Bidirectional, Layer, Recurrent
from longlag.runs import Captioner
from longlag.tasks import Batch, CopyMemory
from longlag.training import losses
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, LAYERS, D

# Longer than two blocks of queries of `Additive`, and than two of every window.
T, LONG, B = 5, 35, 2


class Program(NamedTuple):
    """A function to be traced.

    Attributes:
        init: draws parameters; called under `jax.eval_shape`.
        run: `(params, inputs) -> outputs`, trees.
        inputs: shapes; floats are replaced by floats of the dtype that is asked for.
        differentiable: whether the gradient of the floating outputs is taken too.
    """

    init: Callable[[], Any]
    run: Callable[[Any, Any], Any]
    inputs: Any
    differentiable: bool = True


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def tokens(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def flags(*shape: int) -> dict[str, Any]:
    return {"mask": jnp.ones(shape, bool), "resets": jnp.zeros(shape, bool)}


def in_dtype(tree: Any, dtype: Any) -> Any:
    """Shapes whose floats have this dtype; None: the one that they come with."""

    def cast(leaf):
        floating = dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype if floating else leaf.dtype)

    return jax.tree.map(cast, tree)


def trace(program: Program, of_params: Any = None, of_inputs: Any = None) -> tuple[Any, Any]:
    """The jaxpr of the value and the gradient, and the shapes of (outputs, gradients).

    Args:
        program: what to trace.
        of_params: dtype of the floating parameters; None: that of `init`.
        of_inputs: dtype of the floating inputs.
    """
    params = in_dtype(jax.eval_shape(program.init), of_params)
    inputs = in_dtype(program.inputs, of_inputs)

    def run(params, inputs):
        if not program.differentiable:
            return program.run(params, inputs), ()
        (leaves, structure), kept = jax.tree.flatten((params, inputs)), []
        floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

        def total(given):
            given = iter(given)
            joined = [next(given) if f else x for x, f in zip(leaves, floating)]
            outputs = program.run(*jax.tree.unflatten(structure, joined))
            kept[:] = [outputs]
            each = [x for x in jax.tree.leaves(outputs) if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum(x.astype(jnp.float32).sum() for x in each), outputs

        gradients, outputs = jax.grad(total, has_aux=True)(
            [x for x, f in zip(leaves, floating) if f]
        )
        return outputs, gradients

    return jax.make_jaxpr(run, return_shape=True)(params, inputs)


def of_cell(cell: Cell) -> dict[str, Program]:
    """Whole sequences by every method and backward, with all that `unroll` takes."""
    xs = floats(B, T, D)
    matrix, linear = isinstance(cell, MatrixCell), isinstance(cell, LinearCell)

    def init():
        return cell.init(jax.random.key(0), D)

    def given(params, xs):
        """A carry in the dtype of the inputs, and all flags."""
        first = cell.initial_carry(jax.lax.stop_gradient(params), (B,))
        carry = jax.tree.map(lambda leaf: leaf.astype(xs.dtype), first)
        zoneout = {} if matrix else {"zoneout": 0.3, "key": jax.random.key(0)}
        options = flags(B, T) | zoneout
        return unroll(cell, params, xs, carry, reverse=True, remat=2, **options)

    def other_ways(params, xs):
        options: list[dict[str, Any]] = [{"carries": "all"}]
        if not matrix:
            options.append({"zoneout": 0.3} | flags(B, T))
        if matrix or linear:
            options += [{"method": method} | flags(B, T) for method in ("scan", "chunked")]
        if linear:
            options.append({"method": "associative"} | flags(B, T))
        if not matrix and not linear:
            options += [{"backward": way} | flags(B, T) for way in ("store", "autodiff")]
        return [unroll(cell, params, xs, **each) for each in options]

    def looked_at(params, xs):
        carry, x = cell.initial_carry(params, (B,)), xs[:, 0]
        z = cell.project(params, x)
        return cell.probe(params, carry, z), cell.step(params, carry, z)

    programs = {
        "given": Program(init, given, xs),
        "other ways": Program(init, other_ways, xs),
        "step": Program(init, looked_at, xs),
        "jacobians": Program(init, lambda p, xs: jacobians(cell, p, xs[0]), xs, False),
    }
    if by_newton(cell):
        options = flags(B, T)
        programs["newton"] = Program(init, lambda p, xs: newton(cell, p, xs, **options)[:2], xs)
    return programs


def by_newton(cell: Cell) -> bool:
    """Whether `newton` runs it: it knows no pairs, and no decay without an axis of time."""
    return type(cell).__name__ not in ("LRU", "S5", "Retention")


def of_layer(layer: Layer) -> dict[str, Program]:
    """Without a state and flags, streaming with both, and what a probe shows."""

    def init():
        return layer.init(jax.random.key(0), D)

    def whole(params, xs):
        return layer.apply(params, xs, key=jax.random.key(0))[1]

    def streaming(params, xs):
        state = layer.init_state(params, (B,), len(xs))
        new, ys = layer.apply(params, xs, state, key=jax.random.key(0), **flags(*xs.shape[:2]))
        # Without parameters the state has jax's own default dtype, float64 under x64.
        return (new if jax.tree.leaves(params) else None), ys

    def probed(params, xs):
        return layer.probe(params, xs, **flags(*xs.shape[:2]))

    def read_memory(params, xs):
        assert isinstance(layer, Attention)
        mask = jnp.ones((B, T), bool)
        return layer.read_memory(
            params, xs, layer.write_memory(params, jnp.swapaxes(xs, 0, 1), mask)
        )

    programs = {"whole": Program(init, whole, floats(T, B, D))}
    if not isinstance(layer, Bidirectional):
        programs["streaming"] = Program(init, streaming, floats(T, B, D))
    if not isinstance(layer, Attention):
        return programs | {"probed": Program(init, probed, floats(T, B, D))}
    programs["long"] = Program(init, streaming, floats(LONG, B, D))
    inner = layer.attention if isinstance(layer, Local) else layer
    if not isinstance(inner, DotProduct) or inner.positions == "none":
        programs["memory"] = Program(init, read_memory, floats(T, B, D))
    return programs


# Every mixer, a block as an inner layer, a run of equal layers, dropout, tokens and features.
HYBRID = build(
    inputs="tokens", in_features=6, out_features=6, cell=LSTM(4), attention="full", width=4,
    depth=4, heads=2, convolution=2, mlp=6, dropout=0.1,
)  # fmt: skip
OF_FEATURES = build(
    inputs="features", in_features=D, out_features=3, cell=GRU(5), attention="additive", width=4
)
SEQ2SEQ = Seq2Seq(
    "tokens", 7, 6, width=4, encoder=(Bidirectional(LSTM(3)),), decoder=(Recurrent(LSTM(5)),)
)
_PICTURES = type("Pictured", (), {"in_features": 24, "out_features": 6})
SEQ2SEQS: dict[str, Seq2Seq] = {
    "additive-fed": dataclasses.replace(SEQ2SEQ, attention=Additive(3), input_feeding=True),
    "features-local": dataclasses.replace(
        SEQ2SEQ, inputs="features", attention=Local(2, attention=Multiplicative(5), radius=2),
        encoder=(Recurrent(LSTM(5)),),
    ),
    "heads-mean": dataclasses.replace(
        SEQ2SEQ, attention=DotProduct(4, heads=2, positions="none"), summary="mean"
    ),
    "pictures": Captioner("additive", width=8).build(_PICTURES, LSTM(5)),  # type: ignore[arg-type]
}  # fmt: skip


def of_model(model: SequenceModel) -> dict[str, Program]:
    """Answers whole, streaming and at a few steps; what it learns from; tokens drawn."""
    inputs = tokens(B, T) if model.inputs == "tokens" else floats(B, T, D)

    def init():
        return model.init(jax.random.key(0))

    def streaming(params, inputs):
        state = model.init_state(params, B, T)
        return model.apply(params, inputs, state, key=jax.random.key(0), **flags(B, T))

    def at(params, inputs):
        batch = Batch(inputs, *[None] * 3, **flags(B, T))  # type: ignore[arg-type]
        return model.answer(params, batch, at=jnp.zeros((B, 2), jnp.int32))

    def learns(params, inputs):
        return gradient_by_lag(model, params, inputs, mask=jnp.ones((B, T), bool))

    def drawn(params, inputs):
        return sample(model, params, inputs, 3, jax.random.key(0))

    programs = {
        "streaming": Program(init, streaming, inputs),
        "at": Program(init, at, inputs),
        "gradient by lag": Program(init, learns, inputs, False),
    }
    if model.inputs == "tokens":
        programs["sample"] = Program(init, drawn, inputs, False)
    return programs


def of_seq2seq(model: Seq2Seq) -> dict[str, Program]:
    """Teacher forcing, where it looks, and search."""
    pictures = model.inputs == "pictures"
    source = tokens(B, T) if model.inputs == "tokens" else floats(B, T, model.in_features)
    source = floats(B, 8, 24) if pictures else source
    mask = None if pictures else jnp.ones((B, T), bool)

    def init():
        return model.init(jax.random.key(0))

    def taught(params, given):
        inputs, targets = given
        return (
            model.apply(params, inputs, targets, mask=mask, key=jax.random.key(0)),
            model.alignment(params, inputs, targets, mask=mask),
        )

    def found(params, inputs):
        return generate(
            model, params, inputs, stop=0, max_length=3, mask=mask, beams=2, length_penalty=0.6
        )

    return {
        "taught": Program(init, taught, (source, tokens(B, 4))),
        "generate": Program(init, found, source, False),
    }


def of_functions() -> dict[str, Program]:
    """What is called by itself."""

    def nothing():
        return {}

    def scanned(_, given):
        a, b, h = given
        resets = jnp.zeros((T, B), bool)
        return [
            linear_scan(a, b, h, method="scan"),
            linear_scan((a, a), (b, b), (h, h), method="associative"),
            linear_scan(a, b, h, method="chunked", reverse=True),
            linear_scan(a[:1], b, h[0], resets=resets, h_reset=h[0], method="scan"),
        ]

    def matrices(_, given):
        q, v, S = given
        options: dict[str, Any] = {"log_decay": -q * q, "rate": q[..., 0] * q[..., 0]}
        return [
            matrix_scan(q, q, v, S, **options, method="chunked", resets=jnp.zeros((T, B), bool)),
            matrix_scan(q, q, v, S, method="chunked", reverse=True),
            matrix_scan(q, q, v, S, **options, every_state=True),
        ]

    def searched(_, logits):
        return beam_search(
            lambda state, token: (state, logits), jnp.int32(0), start=0, stop=1, max_length=3,
            beams=2, length_penalty=0.5,
        )  # fmt: skip

    def looked(_, weights):
        return attention_by_lag(weights, jnp.ones((B, T), bool), jnp.zeros(B, jnp.int32))

    def summed(params, xs):
        params = widen(params)  # `sum_over_time` leaves the dtype of sums over chunks to the caller

        def step(carry, chunk, index):
            carry, ys = unroll(Elman(3), params, chunk, carry)
            return carry, (ys * ys).sum() + 0 * index.astype(ys.dtype)

        carry = Elman(3).initial_carry(params, (B,))
        return [sum_over_time(step, carry, xs, chunk=2, truncate=cut) for cut in (False, True)]

    programs = {
        "linear_scan": Program(nothing, scanned, (floats(T, B, 3), floats(T, B, 3), floats(B, 3))),
        "matrix_scan": Program(
            nothing, matrices, (floats(T, B, 2, 3), floats(T, B, 2, 4), floats(B, 2, 3, 4))
        ),
        "beam_search": Program(nothing, searched, floats(4), False),
        "attention_by_lag": Program(nothing, looked, floats(B, T, T)),
        "sum_over_time": Program(
            lambda: Elman(3).init(jax.random.key(0), D), summed, floats(B, T, D)
        ),
    }
    for kind, targets in (
        ("classes", tokens(B, T)), ("values", floats(B, T, 3)), ("transcripts", tokens(B, 2)),
    ):  # fmt: skip
        programs[f"losses of {kind}"] = Program(nothing, _loss(kind), (floats(B, T, 3), targets))
    return programs


def _loss(kind: str) -> Callable[[Any, Any], Any]:
    task = type(kind, (CopyMemory,), {"targets_kind": kind, "tolerance": 0.1})(lag=2)

    def loss(_, given):
        answers, targets = given
        weights = jnp.ones(targets.shape[:2], jnp.float32)
        mask = jnp.ones((B, T), bool)
        batch = Batch(jnp.zeros((B, T), jnp.int32), targets, weights, weights > 0, mask)
        return losses(task, answers, batch)

    return loss


PROGRAMS: dict[str, dict[str, Program]] = {
    **{f"{i}-{type(cell).__name__}": of_cell(cell) for i, cell in enumerate(CELLS)},
    **{name: of_layer(layer) for name, layer in (ATTENTION_LAYERS | BLOCKS | LAYERS).items()},
    "hybrid": of_model(HYBRID),
    "of-features": of_model(OF_FEATURES),
    **{f"seq2seq-{name}": of_seq2seq(model) for name, model in SEQ2SEQS.items()},
    "functions": of_functions(),
}
