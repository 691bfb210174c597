"""A scan whose backward does for all steps at once whatever does not need the step after.

Autodiff of `jax.lax.scan` adds to the gradient of every parameter at every step, and keeps
intermediates of every step: 12 arrays `[T, B, H]` for an LSTM. Here the forward keeps the carries
alone, and the backward goes chunk by chunk, from the last to the first:

1. linearise all steps of the chunk at once. The carries are known, so no step waits for another,
   and a recurrent product is one product over all steps;
2. go back through the steps one after another, for the carry only: `lam[t-1] = J[t]ᵀ lam[t] + ..`;
3. pull `lam` back through all steps of the chunk at once to parameters and inputs, where the
   gradient of a kernel is one product.

It knows nothing of cells: any pure step will do, in two parts, `begin` and `finish`. The result of
the first, the products of a state with its kernels, may be stored by the forward in place of being
computed again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from longlag.core.any_length import is_known
from longlag.core.chunks import chunk_length, over_chunks
from longlag.core.derivative import custom_derivative, derivative_like, split
from longlag.core.placement import use_mesh
from longlag.core.promotion import through_float32
from longlag.core.scans.step_back import prepare_step, pull_back
from longlag.kernels.looping import loop_or_else

__all__ = ["BACKWARDS", "Backward", "step_scan"]

Backward = Literal["auto", "recompute", "store", "autodiff"]
BACKWARDS = ("auto", "recompute", "store", "autodiff")

# Rows of a product that is taken for a chunk at once, about: enough for its full speed, and few
# enough that all of the chunk stays in the cache. By hand, 256 and 1024 were no better on CPU.
ROWS = 512
AIM_AT_LEAST, AIM_AT_MOST = 16, 64

Prepare = Callable[[Any, Any], Any]
Begin = Callable[[Any, Any, Any], Any]
Finish = Callable[[Any, Any, Any, Any], tuple[Any, Any]]

# Constants, xs, the first carry, the carries after every step, and z or None.
Residuals = tuple[Any, Any, Any, Any, Any]


class Static(NamedTuple):
    """What a scan is, but for its arrays: `step_scan` has the meaning of each."""

    prepare: Prepare
    begin: Begin
    finish: Finish
    reverse: bool
    every_carry: bool
    store: bool
    length: int
    fused: Literal["no", "cpu", "anywhere"]


@use_mesh
def step_scan(
    prepare: Prepare,
    begin: Begin,
    finish: Finish,
    consts: Any,
    carry: Any,
    xs: Any,
    *,
    reverse: bool = False,
    every_carry: bool = False,
    backward: Literal["recompute", "store", "autodiff"] = "recompute",
    rows: int = 1,
    fused: Literal["no", "cpu", "anywhere"] = "no",
) -> tuple[Any, Any]:
    """`jax.lax.scan` of a step over `prepare(consts, xs)`, with the backward described above.

    A step is `z = begin(consts, carry, u)`, then `carry, y = finish(consts, carry, u, z)`. None of
    the three functions may close over anything that is differentiated.

    Args:
        prepare: `(consts, xs) -> us` for many steps at once, leaves `[C, ...]`.
        begin: `(consts, carry, u) -> z`, the costly part of the step.
        finish: `(consts, carry, u, z) -> (carry, y)`. The new carry has the structure, shapes and
            dtypes of the old one.
        consts: a tree, the same for every step.
        carry: a tree. Leaves that are not floating (counters, flags, typed keys) are carried along
            without a gradient, and so are None.
        xs: a tree, leaves `[T, ...]`.
        reverse: from the last step to the first.
        every_carry: return the carries after every step, leaves `[T, ...]`, not the last.
        backward: what the forward keeps beside the carries: "recompute", nothing; "store", what
            `begin` returned. Both can be differentiated in both modes, to any order. In forward
            mode they take the steps twice. "autodiff" takes them once: it is `jax.lax.scan` with
            JAX's own derivative. Only gradients of constants in half precision are added up in
            float32.
        rows: the batch size, from which the length of the chunks follows.
        fused: where to run the forward and the backward as one native call each, if the step has a
            normal form (`docs/design/kernels.md`): nowhere, in programs for a CPU, or in those for
            a GPU or a TPU too.

    Returns:
        The carry or carries, and the outputs `[T, ...]`.
    """
    if backward == "autodiff":
        consts_of_step = through_float32(consts)

        def take_step(carry: Any, u: Any) -> tuple[Any, tuple[Any, Any]]:
            consts = consts_of_step()
            new, y = finish(consts, carry, u, begin(consts, carry, u))
            return new, (new if every_carry else None, y)

        last, (every, ys) = jax.lax.scan(take_step, carry, prepare(consts, xs), reverse=reverse)
    else:
        store = backward == "store"
        rows = rows if is_known(rows) else 1
        aim = min(max(ROWS // max(rows, 1), AIM_AT_LEAST), AIM_AT_MOST)
        length = chunk_length(jax.tree.leaves(xs)[0].shape[0], aim)
        static = Static(prepare, begin, finish, reverse, every_carry, store, length, fused)
        results: Any = _scan(static, consts, carry, xs)
        last, every, ys = results
    return (every if every_carry else last), ys


def _run(static: Static, consts: Any, carry: Any, xs: Any) -> tuple[Any, Any, Any]:
    return _forward(static._replace(store=False), consts, carry, xs)[:3]


def _forward(static: Static, consts: Any, carry: Any, xs: Any) -> tuple[Any, Any, Any, Any]:
    """Runs all steps; what is not asked for is None, or left to XLA to leave out.

    Returns:
        The last carry, the carries after every step, the outputs, and with `store` all `z`.
    """
    reverse, every_carry = static.reverse, static.every_carry
    outputs: list[Any] = []

    def take_step(consts: Any, carry: Any, u: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        # Leaves of carry, u and z are those of one step, without the axis of time.
        z = static.begin(consts, carry, u)
        new, y = static.finish(consts, carry, u, z)
        # An output that is a part of the carry, like the h of an LSTM, is stored once. With a mask
        # it is not: masked outputs are zero, and so another array. `is`: finish returned the very
        # array of its new carry.
        parts, (leaves, structure) = jax.tree.leaves(new), jax.tree.flatten(y)
        same = [next((i for i, part in enumerate(parts) if part is leaf), None) for leaf in leaves]
        same = same if every_carry else [None] * len(same)
        outputs[:] = [structure, same]  # read after the trace, below
        apart = [leaf for leaf, i in zip(leaves, same) if i is None]
        return new, (apart, new if every_carry else None, z if static.store else None)

    def run_chunks(consts: Any, carry: Any, xs: Any, *_: Any) -> tuple[Any, Any, None]:
        def run_chunk(carry: Any, xs: Any, _: None) -> tuple[Any, tuple[Any, Any, Any], None]:
            us = static.prepare(consts, xs)  # xs and us: leaves `[C, ...]`
            take = functools.partial(take_step, consts)
            return *jax.lax.scan(take, carry, us, reverse=reverse), None

        return over_chunks(run_chunk, carry, xs, None, static.length, reverse)

    def take_whole_step(consts: Any, carry: Any, x: Any, _: None) -> tuple[Any, Any, None]:
        return *take_step(consts, carry, prepare_step(static.prepare, consts, x)), None

    if static.fused != "no":
        arguments = consts, carry, xs, None, None
        anywhere = static.fused == "anywhere"
        results = loop_or_else(
            take_whole_step, run_chunks, *arguments, reverse=reverse, anywhere=anywhere
        )
    else:
        results = run_chunks(consts, carry, xs)
    last, (apart, every, zs), _ = results
    structure, same = outputs
    apart, parts = iter(apart), jax.tree.leaves(every)
    ys = [next(apart) if i is None else parts[i] for i in same]
    return last, every, jax.tree.unflatten(structure, ys), zs


def _scan_forward(
    static: Static, consts: Any, carry: Any, xs: Any
) -> tuple[tuple[Any, Any, Any], Residuals]:
    keep = static._replace(every_carry=True)
    last, every, ys, zs = _forward(keep, consts, carry, xs)
    return (last, every if static.every_carry else None, ys), (consts, xs, carry, every, zs)


def _scan_tangent(static: Static, residuals: Residuals, tangents: Any) -> Any:
    """The tangent of every step after that of the step before, the steps taken once more."""
    consts, xs, carry, _, _ = residuals
    static = static._replace(fused="no")
    floats, others, join = split((consts, carry, xs))

    def run(floats: list[Any]) -> tuple[list[Any], Any]:
        outs = _run(static, *join(floats, others))
        return split(outs)[0], outs

    _, moves, outs = jax.jvp(run, (floats,), (jax.tree.leaves(tangents),), has_aux=True)
    return derivative_like(moves, outs)


_scan = custom_derivative(_run, _scan_forward, _scan_tangent, pull_back)
