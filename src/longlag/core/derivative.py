"""A derivative of one's own, for forward and for reverse mode.

A function with `jax.custom_vjp` refuses `jax.jvp`. With `jax.custom_jvp` jax finds the backward
pass by itself, and a backward pass of our own is the point. So the derivative is one primitive
here, linear in the tangents. Forward mode runs it. Reverse mode transposes it by our backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, unmapped_aval
from jax.interpreters import ad, batching, mlir

from longlag.core.promotion import widen

__all__ = ["custom_derivative", "derivative_like", "split"]


def custom_derivative(
    run: Callable[..., Any],
    forward: Callable[..., tuple[Any, Any]],
    tangent: Callable[[Any, Any, Any], Any],
    backward: Callable[[Any, Any, Any], Any],
) -> Callable[..., Any]:
    """Gives a function a derivative, which may be taken in both modes and to any order.

    Arguments and results are trees of arrays. What is not floating has no derivative: None stands
    for its tangent and for its cotangent.

    Args:
        run: `(static, *args) -> outs`, the function. `static` is no array, nor has it any.
        forward: `(static, *args) -> (outs, residuals)`, the same with what its derivative needs.
        tangent: `(static, residuals, tangents) -> tangents of outs`, linear in the tangents of
            `args`, a tuple.
        backward: `(static, residuals, cotangents) -> cotangents of args`, its transpose.

    Returns:
        `run` with this derivative.
    """
    function = jax.custom_jvp(run, nondiff_argnums=(0,))

    def rule(static: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
        outs, residuals = forward(static, *primals)
        tangent_leaves, structure = jax.tree.flatten(tangents)
        types = [jax.typeof(leaf) for leaf in jax.tree.leaves(primals)]
        has_tangent = [not isinstance(leaf, SymbolicZero) for leaf in tangent_leaves]
        arrays, residual_structure = jax.tree.flatten(residuals)
        out_leaves, out_structure = jax.tree.flatten(outs)
        out_types = [jax.typeof(leaf).to_tangent_aval() for leaf in out_leaves]
        floating = [_is_floating(leaf) for leaf in out_leaves]

        def apply(arrays: list[Any], tangent_leaves: list[Any]) -> list[Any]:
            """The floating tangents of the results, from the tangents that are not zero."""
            rest = iter(tangent_leaves)
            full = [
                next(rest)
                if has
                else _zeros(type_.to_tangent_aval())
                if _is_floating(type_)
                else None
                for has, type_ in zip(has_tangent, types)
            ]
            residuals = jax.tree.unflatten(residual_structure, arrays)
            of_outs = tangent(static, residuals, jax.tree.unflatten(structure, full))
            return [leaf for leaf, f in zip(out_structure.flatten_up_to(of_outs), floating) if f]

        def transpose(arrays: list[Any], cotangents: list[Any]) -> list[Any]:
            """The cotangents of those arguments, from the floating cotangents of the results."""
            rest = iter(cotangents)
            full = [next(rest) if f else None for f in floating]
            residuals = jax.tree.unflatten(residual_structure, arrays)
            of_args = backward(static, residuals, jax.tree.unflatten(out_structure, full))
            leaves = structure.flatten_up_to(of_args)
            return [leaf for leaf, has in zip(leaves, has_tangent) if has]

        out_moves = linear_p.bind(
            *arrays,
            *(leaf for leaf, has in zip(tangent_leaves, has_tangent) if has),
            apply=apply,
            transpose=transpose,
            count=len(arrays),
            types=tuple(t for t, f in zip(out_types, floating) if f),
        )
        rest = iter(out_moves)
        full = [next(rest) if f else SymbolicZero(t) for f, t in zip(floating, out_types)]
        return outs, jax.tree.unflatten(out_structure, full)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def derivative_like(floats: list[Any], like: Any) -> Any:
    """The derivative of a tree: None where a leaf is not floating."""
    _, others, join = split(like)
    return join(floats, [None] * len(others))


def split(tree: Any) -> tuple[list[Any], list[Any], Callable[[list[Any], list[Any]], Any]]:
    """Floating leaves, the others, and a function that joins two such lists to a tree."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [_is_floating(leaf) for leaf in leaves]

    def join(floats: list[Any], others: list[Any]) -> Any:
        rest = {True: iter(floats), False: iter(others)}
        return jax.tree.unflatten(structure, [next(rest[f]) for f in floating])

    floats = [leaf for leaf, f in zip(leaves, floating) if f]
    return floats, [leaf for leaf, f in zip(leaves, floating) if not f], join


def _is_floating(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _zeros(type_: Any) -> Any:
    return ad.instantiate_zeros(ad.Zero(type_))


# From the arrays of the residuals and the tangents, or cotangents, to what they become.
Linear = Callable[[list[Any], list[Any]], list[Any]]

# Its operands are `count` arrays of any kind, and then those in which it is linear.
linear_p = Primitive("longlag_linear")
linear_p.multiple_results = True


@linear_p.def_impl
def _run(*args: Any, apply: Linear, transpose: Linear, count: int, types: Any) -> list[Any]:
    del transpose, types
    return apply(list(args[:count]), list(args[count:]))


@linear_p.def_abstract_eval
def _types(*args: Any, types: tuple[Any, ...], **params: Any) -> list[Any]:
    del args, params
    return list(types)


mlir.register_lowering(linear_p, mlir.lower_fun(_run, multiple_results=True))


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    # In its linear operands its derivative is the primitive itself. In the arrays (second order)
    # `apply` is differentiated, not `transpose`. jax transposes the result by itself. A gradient of
    # a gradient does not come here: `transpose` has run by then, as plain jax.
    apply, count = params["apply"], params["count"]
    outs = linear_p.bind(*primals, **params)
    moving = [not isinstance(move, ad.Zero) for move in tangents]
    out_moves = None
    if any(moving[count:]):
        moves = [ad.instantiate_zeros(move) for move in tangents[count:]]
        out_moves = linear_p.bind(*primals[:count], *moves, **params)
    if any(moving[:count]):

        def of_arrays(*leaves: Any) -> list[Any]:
            rest = iter(leaves)
            arrays = [next(rest) if m else x for m, x in zip(moving[:count], primals)]
            return apply(arrays, list(primals[count:]))

        at = [x for x, m in zip(primals[:count], moving) if m]
        moves = [t for t, m in zip(tangents[:count], moving) if m]
        _, more = jax.jvp(of_arrays, at, moves)
        out_moves = more if out_moves is None else [x + y for x, y in zip(out_moves, more)]
    return outs, out_moves


def _transpose(
    cotangents: Sequence[Any], *args: Any, transpose: Linear, count: int, **params: Any
) -> list[Any]:
    del params
    of_args = transpose(list(args[:count]), [ad.instantiate_zeros(ct) for ct in cotangents])
    # A tangent that is known has no cotangent.
    linear = (d if ad.is_undefined_primal(x) else None for d, x in zip(of_args, args[count:]))
    return [*(None for _ in range(count)), *linear]


def _batch(
    args: Sequence[Any],
    axes: Sequence[int | None],
    *,
    apply: Linear,
    transpose: Linear,
    count: int,
    types: tuple[Any, ...],
) -> tuple[Any, list[int]]:
    size = next(x.shape[axis] for x, axis in zip(args, axes) if axis is not None)

    def move_to_front(x: Any, axis: int | None) -> Any:
        if axis is None:
            # Its transpose is a sum over the axis, in at least float32.
            return jnp.broadcast_to(widen(x), (size, *x.shape)).astype(x.dtype)
        return jnp.moveaxis(x, axis, 0)

    array_axes = list(axes[:count])

    def along(function: Linear) -> Linear:
        return jax.vmap(function, (array_axes, 0), axis_size=size)

    outs = linear_p.bind(
        *args[:count],
        *map(move_to_front, args[count:], axes[count:]),
        apply=along(apply),
        transpose=along(transpose),
        count=count,
        types=tuple(unmapped_aval(size, 0, type_) for type_ in types),
    )
    return outs, [0] * len(outs)


ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batch
