"""A derivative of one's own, for forward and for reverse mode.

A function with `jax.custom_vjp` refuses `jax.jvp`. With `jax.custom_jvp` jax finds the backward
pass by itself, and a backward pass of our own is the point. So the derivative is one primitive
here, linear in the tangents. Forward mode runs it. Reverse mode transposes it by our backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, unmapped_aval
from jax.interpreters import ad, batching, mlir

from longlag.core.promotion import widen

__all__ = ["custom_derivative", "split", "whole"]


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

    def rule(static, primals, tangents):
        outs, residuals = forward(static, *primals)
        moves, structure = jax.tree.flatten(tangents)
        types = [jax.typeof(leaf) for leaf in jax.tree.leaves(primals)]
        moving = [not isinstance(move, SymbolicZero) for move in moves]
        kept, kept_structure = jax.tree.flatten(residuals)
        results, out_structure = jax.tree.flatten(outs)
        out_types = [jax.typeof(leaf).to_tangent_aval() for leaf in results]
        floating = [_floating(leaf) for leaf in results]

        def apply(kept, moved):
            moved = iter(moved)
            full = [
                next(moved)
                if moves
                else _zeros(type_.to_tangent_aval())
                if _floating(type_)
                else None
                for moves, type_ in zip(moving, types)
            ]
            given = jax.tree.unflatten(kept_structure, kept)
            of_outs = tangent(static, given, jax.tree.unflatten(structure, full))
            return [leaf for leaf, f in zip(out_structure.flatten_up_to(of_outs), floating) if f]

        def transpose(kept, cotangents):
            cotangents = iter(cotangents)
            full = [next(cotangents) if f else None for f in floating]
            given = jax.tree.unflatten(kept_structure, kept)
            pulled = backward(static, given, jax.tree.unflatten(out_structure, full))
            return [leaf for leaf, m in zip(structure.flatten_up_to(pulled), moving) if m]

        moved = linear_p.bind(
            *kept,
            *(move for move, m in zip(moves, moving) if m),
            apply=apply,
            transpose=transpose,
            count=len(kept),
            types=tuple(t for t, f in zip(out_types, floating) if f),
        )
        moved = iter(moved)
        full = [next(moved) if f else SymbolicZero(t) for f, t in zip(floating, out_types)]
        return outs, jax.tree.unflatten(out_structure, full)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def whole(floats: list[Any], like: Any) -> Any:
    """The derivative of a tree: None where a leaf is not floating."""
    _, others, join = split(like)
    return join(floats, [None] * len(others))


def split(tree: Any) -> tuple[list[Any], list[Any], Callable[[list[Any], list[Any]], Any]]:
    """Floating leaves, the others, and a function that joins two such lists to a tree."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [_floating(leaf) for leaf in leaves]

    def join(floats, others):
        floats, others = iter(floats), iter(others)
        return jax.tree.unflatten(structure, [next(floats if f else others) for f in floating])

    floats = [leaf for leaf, f in zip(leaves, floating) if f]
    return floats, [leaf for leaf, f in zip(leaves, floating) if not f], join


def _floating(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _zeros(type_: Any) -> Any:
    return ad.instantiate_zeros(ad.Zero(type_))


# Its operands are `count` arrays of any kind, and then those in which it is linear.
linear_p = Primitive("longlag_linear")
linear_p.multiple_results = True


@linear_p.def_impl
def _run(*args, apply, transpose, count, types):
    del transpose, types
    return apply(list(args[:count]), list(args[count:]))


@linear_p.def_abstract_eval
def _types(*args, types, **params):
    del args, params
    return list(types)


mlir.register_lowering(linear_p, mlir.lower_fun(_run, multiple_results=True))


def _jvp(primals, tangents, **params):
    apply, count = params["apply"], params["count"]
    outs = linear_p.bind(*primals, **params)
    moving = [not isinstance(move, ad.Zero) for move in tangents]
    moved = None
    if any(moving[count:]):
        moves = [ad.instantiate_zeros(move) for move in tangents[count:]]
        moved = linear_p.bind(*primals[:count], *moves, **params)
    if any(moving[:count]):

        def of_kept(*leaves):
            leaves = iter(leaves)
            kept = [next(leaves) if m else x for m, x in zip(moving[:count], primals)]
            return apply(kept, list(primals[count:]))

        at = [x for x, m in zip(primals[:count], moving) if m]
        moves = [t for t, m in zip(tangents[:count], moving) if m]
        _, more = jax.jvp(of_kept, at, moves)
        moved = more if moved is None else [x + y for x, y in zip(moved, more)]
    return outs, moved


def _transpose(cotangents, *args, transpose, count, **params):
    del params
    pulled = transpose(list(args[:count]), [ad.instantiate_zeros(ct) for ct in cotangents])
    # A tangent that is known has no cotangent.
    linear = (d if ad.is_undefined_primal(x) else None for d, x in zip(pulled, args[count:]))
    return [*(None for _ in range(count)), *linear]


def _batch(args, axes, *, apply, transpose, count, types):
    size = next(x.shape[axis] for x, axis in zip(args, axes) if axis is not None)

    def at_front(x, axis):
        if axis is None:
            # Its transpose is a sum over the axis, in at least float32.
            return jnp.broadcast_to(widen(x), (size, *x.shape)).astype(x.dtype)
        return jnp.moveaxis(x, axis, 0)

    of_kept = list(axes[:count])

    def along(function):
        return jax.vmap(function, (of_kept, 0), axis_size=size)

    outs = linear_p.bind(
        *args[:count],
        *map(at_front, args[count:], axes[count:]),
        apply=along(apply),
        transpose=along(transpose),
        count=count,
        types=tuple(unmapped_aval(size, 0, type_) for type_ in types),
    )
    return outs, [0] * len(outs)


ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batch
