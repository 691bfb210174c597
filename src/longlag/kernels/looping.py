"""A loop over time that a CPU runs as one native call, and every other platform as it is written.

jax chooses when it lowers, so a program may be traced on one machine for another. The other way is
a function, `plain`, which is traced only where it is lowered, differentiated or batched.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from longlag.kernels import native
from longlag.kernels.normal_form import normalise
from longlag.kernels.program import Unsupported
from longlag.kernels.schedule import Schedule

__all__ = ["loop", "loop_or_else", "or_else", "outcomes", "unfused"]

Result = TypeVar("Result")
Body = Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]


def loop(
    body: Body,
    plain: Callable[[Any, Any, Any, Any, Any], tuple[Any, Any, Any]],
    constants: Any,
    carry: Any,
    given: Any,
    before: Any = None,
    entry: Any = None,
    *,
    reverse: bool = False,
    anywhere: bool = False,
) -> tuple[Any, Any, Any]:
    """A loop over time.

    Args:
        body: `(constants, carry, given, before) -> (carry, outputs, sums)` for one step, leaves
            `[B, ...]`. What it returns as sums is added up over the steps.
        plain: `(constants, carry, given, before, entry) -> (carry, outputs, sums)` for all steps:
            the same by other means.
        constants: a tree, the same for every step.
        carry: before the first step, leaves `[B, ...]`.
        given: inputs, leaves `[T, B, ...]`.
        before: of this, leaves `[T, B, ...]`, a step sees what stands one step further on.
        entry: what it sees at the last step, leaves `[B, ...]`.
        reverse: from the last step to the first. "One step further on" is then the step before.
        anywhere: in a program for a GPU or a TPU too, where nobody has measured it.

    Returns:
        The last carry, the outputs `[T, B, ...]` and the sums.

    Raises:
        Unsupported: the step is none for a native loop. Nothing has been computed.
    """
    groups = [constants, carry, given, before, entry]
    leaves, trees = zip(*map(jax.tree.flatten, groups))
    counts = tuple(map(len, leaves))
    varying = _varying_axes([leaf for group in leaves for leaf in group])
    steps, batch = jax.tree.leaves((given, before))[0].shape[:2]
    if is_symbolic_dim(steps) or is_symbolic_dim(batch) or batch == 0:
        raise Unsupported(f"{steps} steps of {batch} rows")
    structures: list[Any] = []

    def flat(*flat_leaves: jax.Array) -> list[jax.Array]:
        parts = _unflatten(trees[:4], counts[:4], flat_leaves)
        returned = [jax.tree.flatten(part) for part in body(*parts)]
        structures[:] = [structure for _, structure in returned]
        counts_out[:] = [len(part) for part, _ in returned]
        return [leaf for part, _ in returned for leaf in part]

    counts_out: list[int] = []
    of_step = [*map(_type, (*leaves[0], *leaves[1])), *map(_type_of_step, leaves[2] + leaves[3])]
    closed = jax.make_jaxpr(flat)(*of_step)
    program, known = normalise(
        closed,
        batch,
        carry=counts[1],
        given=counts[2],
        before=counts[3],
        outputs=counts_out[1],
    )

    for listener in _listeners:
        products = sum(len(each.products) for each in program.operations)
        others = sum(not each.products for each in program.operations)
        listener.append(f"one native call ({products} products, {others} other operations)")

    def plainly(*flat_leaves: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(plain(*_unflatten(trees, counts, flat_leaves)))

    types: list[Any] = [jax.typeof(leaf) for leaf in leaves[1]]
    outs: list[Any] = [v.aval for v in closed.jaxpr.outvars[counts[1] :]]
    types += [aval.update(shape=(steps, *aval.shape)) for aval in outs[: counts_out[1]]]
    types += outs[counts_out[1] :]
    types = [type_.update(manual_axis_type=varying) for type_ in types]
    made = loop_p.bind(
        *(leaf for group in leaves for leaf in group),
        schedule=Schedule(program, batch, steps),
        known=tuple(known),
        plain=plainly,
        counts=counts,
        types=tuple(types),
        steps=steps,
        reverse=reverse,
        anywhere=anywhere,
    )
    return _unflatten(structures, counts_out, made)  # type: ignore[return-value]


def or_else(
    fused: Callable[[], Result], plain: Callable[[], Result], *, anywhere: bool = False
) -> Result:
    """`fused()`, or `plain()` where that has no normal form or the machine no native loops."""
    if _unfused or not (anywhere or _listeners or native.is_available()):
        return plain()
    try:
        return fused()
    except Unsupported as error:
        for listener in _listeners:
            listener.append(f"jax.lax.scan, since there is no normal form for {error}")
        return plain()


def loop_or_else(
    body: Body,
    plain: Callable[..., tuple[Any, Any, Any]],
    *args: Any,
    reverse: bool = False,
    anywhere: bool = False,
) -> tuple[Any, Any, Any]:
    """`loop`, or `plain` where a step has no normal form or the machine no native loops."""
    fused = functools.partial(loop, body, plain, *args, reverse=reverse, anywhere=anywhere)
    return or_else(fused, functools.partial(plain, *args), anywhere=anywhere)


_unfused: list[None] = []


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """What is traced inside has no native loop, so that XLA can count its operations."""
    _unfused.append(None)
    try:
        yield
    finally:
        _unfused.pop()


_listeners: list[list[str]] = []


@contextlib.contextmanager
def outcomes() -> Iterator[list[str]]:
    """What `loop_or_else` decides inside, in its order, in words."""
    seen: list[str] = []
    _listeners.append(seen)
    try:
        yield seen
    finally:
        _listeners.remove(seen)


def _type_of_step(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _type(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _unflatten(
    trees: Sequence[Any], counts: Sequence[int], leaves: Sequence[Any]
) -> tuple[Any, ...]:
    return tuple(map(jax.tree.unflatten, trees, _cut(counts, leaves)))


def _cut(counts: Sequence[int], leaves: Sequence[Any]) -> list[Sequence[Any]]:
    """Leaves side by side, as groups of so many."""
    ends = itertools.accumulate(counts)
    return [leaves[end - count : end] for count, end in zip(counts, ends)]


def _varying_axes(leaves: Sequence[Any]) -> Any:
    """The axes of a mesh over which results vary: those over which any leaf does (`shard_map`).

    Arrays that a mesh has shared out in so many words are refused, since their types must stay.
    """
    types: list[Any] = [jax.typeof(leaf) for leaf in leaves]
    for type_ in types:
        mesh = getattr(getattr(type_, "sharding", None), "mesh", None)
        if mesh is not None and not mesh.empty and mesh.explicit_axes:
            raise Unsupported("on a mesh with explicit axes")
    most = max((type_.mat for type_ in types), key=lambda mat: len(mat.varying))
    if not all(type_.mat.varying <= most.varying for type_ in types):
        raise Unsupported("arrays that vary over other axes of a mesh than their neighbours")
    return most


loop_p = Primitive("longlag_loop")
loop_p.multiple_results = True


@loop_p.def_abstract_eval
def _types(*args: Any, types: tuple[Any, ...], **params: Any) -> list[Any]:
    del args, params
    return list(types)


def _natively(
    *args: Any,
    run: Callable[..., list[jax.Array]],
    schedule: Schedule,
    known: Any,
    counts: Any,
    types: Any,
    steps: int,
    reverse: bool,
    **params: Any,
) -> list[jax.Array]:
    """The loop by a function like `native.run`."""
    try:
        return run(schedule, known, *_cut(counts, args), types, steps=steps, reverse=reverse)
    except Unsupported:
        return _plainly(*args, **params)


def _plainly(*args: Any, plain: Callable[..., Any], **params: Any) -> list[jax.Array]:
    del params
    return plain(*args)


@loop_p.def_impl
def _run(*args: Any, **params: Any) -> list[jax.Array]:
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return _plainly(*args, **params)
    return jax.jit(functools.partial(loop_p.bind, **params))(*args)


def _is_exported(ctx: Any) -> bool:
    """Whether the program must run where this library is not."""
    return getattr(ctx.module_context.lowering_parameters, "for_export", False)


def _lower_on_cpu(ctx: Any, *args: Any, **params: Any) -> Any:
    way = _plainly
    if native.is_available() and not _is_exported(ctx):
        way = functools.partial(_natively, run=native.run)
    return mlir.lower_fun(way, multiple_results=True)(ctx, *args, **params)


def _is_shared_out(ctx: Any) -> bool:
    """Whether XLA shares the program out over devices. It cannot cut a kernel of Pallas."""
    context = ctx.module_context.axis_context
    if (mesh := getattr(context, "mesh", None)) is not None:
        return context.manual_axes != frozenset(mesh.axis_names)
    return (getattr(context, "num_devices", None) or 1) > 1


def _lower_by_pallas(module: str, ctx: Any, *args: Any, **params: Any) -> Any:
    way = _plainly
    # Inside `shard_map` with its check on, a kernel's own arrays would have to vary, too.
    is_checked = any(type_.mat.varying for type_ in params["types"])
    elsewhere = _is_exported(ctx) or _is_shared_out(ctx) or is_checked
    if params["anywhere"] and not elsewhere:
        # Only a program for such a device needs Pallas.
        run = importlib.import_module(f"longlag.kernels.{module}").run
        way = functools.partial(_natively, run=run)
    return mlir.lower_fun(way, multiple_results=True)(ctx, *args, **params)


_lower_on_gpu = functools.partial(_lower_by_pallas, "pallas_gpu")
_lower_on_tpu = functools.partial(_lower_by_pallas, "pallas")

mlir.register_lowering(loop_p, mlir.lower_fun(_plainly, multiple_results=True))
mlir.register_lowering(loop_p, _lower_on_cpu, platform="cpu")
mlir.register_lowering(loop_p, _lower_on_gpu, platform="cuda")
mlir.register_lowering(loop_p, _lower_on_tpu, platform="tpu")


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    moving = [not isinstance(tangent, ad.Zero) for tangent in tangents]

    def of_moving(*leaves: jax.Array) -> list[jax.Array]:
        leaves_left = iter(leaves)
        return _plainly(*(next(leaves_left) if m else x for x, m in zip(primals, moving)), **params)

    at = [x for x, m in zip(primals, moving) if m]
    return jax.jvp(of_moving, at, [t for t, m in zip(tangents, moving) if m])


def _batch(args: Sequence[Any], axes: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    """Seeds, whose kernels differ, go one after another. Other axes go as they do without this."""
    kernels = axes[: params["counts"][0]]
    if all(axis is None for axis in kernels):
        plain = functools.partial(_plainly, plain=params["plain"])
        outs = jax.vmap(plain, list(axes))(*args)
        return outs, [0] * len(outs)
    moved = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(args, axes)]

    def one(varying: list[Any]) -> list[Any]:
        left = iter(varying)
        return loop_p.bind(*(x if a is None else next(left) for x, a in zip(args, axes)), **params)

    outs = jax.lax.map(one, [x for x, axis in zip(moved, axes) if axis is not None])
    return outs, [0] * len(outs)


ad.primitive_jvps[loop_p] = _jvp
batching.primitive_batchers[loop_p] = _batch
