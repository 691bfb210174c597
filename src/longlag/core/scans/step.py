"""A scan whose backward does for all steps at once whatever does not need the step after.

Autodiff of `jax.lax.scan` adds to the gradient of every parameter at every step, and keeps every
intermediate of every step: 13 arrays `[T, B, H]` for an LSTM. Here the forward keeps the carries
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
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from longlag.core.any_length import is_known
from longlag.core.chunks import chunk_length, over_chunks
from longlag.core.derivative import custom_derivative, derivative_like, split
from longlag.core.placement import zeros_like
from longlag.core.promotion import at_least_float32, through_float32

__all__ = ["BACKWARDS", "Backward", "scan"]

Backward = Literal["auto", "recompute", "store", "autodiff"]
BACKWARDS = ("auto", "recompute", "store", "autodiff")

# Rows of a product that is taken for a chunk at once, about: enough for its full speed, and few
# enough that all of the chunk stays in the cache. By hand, 256 and 1024 were no better on CPU.
ROWS = 512
CHUNK_AT_LEAST, CHUNK_AT_MOST = 16, 64

Prepare = Callable[[Any, Any], Any]
Begin = Callable[[Any, Any, Any], Any]
Finish = Callable[[Any, Any, Any, Any], tuple[Any, Any]]

# The floating leaves of a tree, and the others of the carry before a step and of u.
Floats = list[Any]
Others = tuple[list[Any], list[Any]]
# Constants, xs, the carries after every step and before every chunk, and z or None.
Residuals = tuple[Any, Any, Any, Any, Any]


class Static(NamedTuple):
    """What a scan is, but for its arrays: `scan` has the meaning of each."""

    prepare: Prepare
    begin: Begin
    finish: Finish
    reverse: bool
    every_carry: bool
    store: bool
    length: int


def scan(
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
            mode they take the steps twice, and "autodiff" once, which is `jax.lax.scan` as it
            stands.
        rows: the batch size, from which the length of the chunks follows.

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
        aim = min(max(ROWS // max(rows, 1), CHUNK_AT_LEAST), CHUNK_AT_MOST)
        length = chunk_length(jax.tree.leaves(xs)[0].shape[0], aim)
        static = Static(prepare, begin, finish, reverse, every_carry, store, length)
        results: Any = _scan(static, consts, carry, xs)
        last, every, ys = results
    return (every if every_carry else last), ys


def _run(static: Static, consts: Any, carry: Any, xs: Any) -> tuple[Any, Any, Any]:
    return _forward(static._replace(store=False), consts, carry, xs)[:3]


def _forward(static: Static, consts: Any, carry: Any, xs: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Runs all chunks; what is not asked for is None, or left to XLA to leave out.

    Returns:
        The last carry, the carries after every step, the outputs, the carries before every chunk,
        and with `store` all `z`.
    """
    prepare, begin, finish, reverse, every_carry, store, length = static
    outputs: list[Any] = []

    def take_step(carry: Any, u: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        # Leaves of carry, u and z are those of one step, without the axis of time.
        z = begin(consts, carry, u)
        new, y = finish(consts, carry, u, z)
        # An output that is a part of the carry, like the h of an LSTM, is stored once.
        parts, (leaves, structure) = jax.tree.leaves(new), jax.tree.flatten(y)
        same = [next((i for i, part in enumerate(parts) if part is leaf), None) for leaf in leaves]
        same = same if every_carry else [None] * len(same)
        outputs[:] = [structure, same]
        apart = [leaf for leaf, i in zip(leaves, same) if i is None]
        return new, (apart, new if every_carry else None, z if store else None)

    def run_chunk(carry: Any, xs: Any, _: None) -> tuple[Any, tuple[Any, Any, Any], Any]:
        us = prepare(consts, xs)  # xs and us: leaves `[C, ...]`
        last, steps = jax.lax.scan(take_step, carry, us, reverse=reverse)
        return last, steps, carry if every_carry else None

    last, (apart, every, zs), entries = over_chunks(run_chunk, carry, xs, None, length, reverse)
    structure, same = outputs
    apart, parts = iter(apart), jax.tree.leaves(every)
    ys = [next(apart) if i is None else parts[i] for i in same]
    return last, every, jax.tree.unflatten(structure, ys), entries, zs


def _scan_forward(
    static: Static, consts: Any, carry: Any, xs: Any
) -> tuple[tuple[Any, Any, Any], Residuals]:
    keep = static._replace(every_carry=True)
    last, every, ys, entries, zs = _forward(keep, consts, carry, xs)
    return (last, every if static.every_carry else None, ys), (consts, xs, every, entries, zs)


def _scan_tangent(static: Static, residuals: Residuals, tangents: Any) -> Any:
    """The tangent of every step after that of the step before, the steps taken once more."""
    consts, xs, _, entries, _ = residuals
    carry = jax.tree.map(lambda entry: entry[-1 if static.reverse else 0], entries)
    floats, others, join = split((consts, carry, xs))

    def run(floats: list[Any]) -> tuple[list[Any], Any]:
        outs = _run(static, *join(floats, others))
        return split(outs)[0], outs

    _, moves, outs = jax.jvp(run, (floats,), (jax.tree.leaves(tangents),), has_aux=True)
    return derivative_like(moves, outs)


def _scan_backward(static: Static, residuals: Residuals, cotangents: Any) -> tuple[Any, Any, Any]:
    """The gradients of constants, first carry and inputs, derived in `docs/design/backward.md`.

    Leaves of xs, us, zs, lams, d_every and dys begin with the axis of time, `[T, ...]` outside a
    chunk and `[C, ...]` inside; those of lam, of a carry and of `entries[n]` are of one step, and
    d_consts has the shapes of consts. A name ends in `_f` for floating leaves, a list, and in `_o`
    for the others.
    """
    prepare, begin, finish, reverse, every_carry, store, length = static
    consts, xs, every, entries, zs = residuals
    # Of the last carry, of every carry and of the outputs, floating leaves alone.
    lam, d_every, dys = map(jax.tree.leaves, cotangents)
    consts_f, consts_o, join_consts = split(consts)

    def pull_chunk(state: Any, inputs: Any, entry: Any) -> tuple[Any, Any, None]:
        lam, d_consts = state
        xs, every, zs, d_every, dys = inputs
        shift = functools.partial(_shift, reverse=reverse)
        # The carries before every step: after the step before, or at the entry of the chunk.
        before_f, before_o, join_carry = split(jax.tree.map(shift, every, entry))
        xs_f, xs_o, join_xs = split(xs)

        def prepare_floats(consts_f: Floats, xs_f: Floats) -> tuple[Floats, Any]:
            """us_f `[C, ...]`, and all of us."""
            us = prepare(join_consts(consts_f, consts_o), join_xs(xs_f, xs_o))
            return split(us)[0], us

        _, pull_prepare, us = jax.vjp(prepare_floats, consts_f, xs_f, has_aux=True)
        us_f, us_o, join_u = split(us)
        others = (before_o, us_o)

        def join_step(
            consts_f: Floats, carry_f: Floats, u_f: Floats, others: Others
        ) -> tuple[Any, Any, Any]:
            """Constants, carry and u of one step, whole."""
            carry, u = join_carry(carry_f, others[0]), join_u(u_f, others[1])
            return join_consts(consts_f, consts_o), carry, u

        if not store:
            zs = jax.vmap(lambda *x: begin(*join_step(consts_f, *x)))(before_f, us_f, others)
        zs_f, zs_o, join_z = split(zs)

        def begin_floats(consts_f: Floats, carry_f: Floats, u_f: Floats, others: Others) -> Floats:
            """z_f of one step."""
            return split(begin(*join_step(consts_f, carry_f, u_f, others)))[0]

        def finish_floats(
            consts_f: Floats,
            carry_f: Floats,
            u_f: Floats,
            others: Others,
            z_f: Floats,
            z_o: list[Any],
        ) -> tuple[Floats, Floats]:
            """The new carry_f and the output of one step."""
            new, y = finish(*join_step(consts_f, carry_f, u_f, others), join_z(z_f, z_o))
            return split(new)[0], split(y)[0]

        def linearise(
            carry_f: Floats, u_f: Floats, others: Others, z_f: Floats, z_o: list[Any]
        ) -> tuple[Callable[..., Any], Callable[..., Any]]:
            """The pullbacks of one step in its carry: d_z -> d_carry, (lam, dy) -> (d_carry, d_z).

            The carry meets the step twice, in `begin` and in `finish` beside z.
            """
            pull_begin = jax.vjp(lambda c: begin_floats(consts_f, c, u_f, others), carry_f)[1]
            pull_finish = jax.vjp(
                lambda c, z: finish_floats(consts_f, c, u_f, others, z, z_o), carry_f, z_f
            )[1]
            return pull_begin, pull_finish

        varying, fixed, rebuild = _along_time(linearise, before_f, us_f, others, zs_f, zs_o)

        def step_back(lam: Floats, inputs: Any) -> tuple[Floats, tuple[Floats, Floats]]:
            """From lam after a step to lam before it; keeps the first, and d_z."""
            varying, d_new, dy = inputs
            lam = jax.tree.map(jnp.add, lam, d_new) if every_carry else lam
            pull_begin, pull_finish = rebuild(varying, fixed)
            d_carry, d_z = pull_finish((lam, dy))
            return jax.tree.map(jnp.add, d_carry, pull_begin(d_z)[0]), (lam, d_z)

        lam, (lams, d_zs) = jax.lax.scan(
            step_back, lam, (varying, d_every, dys), reverse=not reverse
        )

        # Constants and inputs: no step waits for another, since lams and d_zs `[C, ...]` are known.
        def finish_all(consts_f: Floats, us_f: Floats) -> tuple[Floats, Floats]:
            along = jax.vmap(finish_floats, (None, 0, 0, 0, 0, 0))
            return along(consts_f, before_f, us_f, others, zs_f, zs_o)

        def begin_all(consts_f: Floats, us_f: Floats) -> Floats:
            return jax.vmap(begin_floats, (None, 0, 0, 0))(consts_f, before_f, us_f, others)

        # Where `finish` has neither constants nor inputs of its own this is zero, and lams are
        # not kept.
        d_finish, d_us = jax.vjp(finish_all, consts_f, us_f)[1]((lams, dys))
        d_begin, d_us_begin = jax.vjp(begin_all, consts_f, us_f)[1](d_zs)
        d_prepare, d_xs = pull_prepare(jax.tree.map(jnp.add, d_us, d_us_begin))
        terms = zip(d_consts, d_finish, d_begin, d_prepare, strict=True)
        d_consts = [sum(d.astype(of[0].dtype) for d in of) for of in terms]
        return (lam, d_consts), d_xs, None

    # Sums over chunks in at least float32, whatever the parameters have.
    precise = [at_least_float32(leaf) for leaf in consts_f]
    state = (lam, list(map(zeros_like, consts_f, precise)))
    inputs = (xs, every, zs, d_every, dys)
    (lam, d_consts), d_xs, _ = over_chunks(pull_chunk, state, inputs, entries, length, not reverse)

    d_consts = [d.astype(leaf.dtype) for d, leaf in zip(d_consts, consts_f)]
    return (
        derivative_like(d_consts, consts),
        derivative_like(lam, entries),
        derivative_like(d_xs, xs),
    )


_scan = custom_derivative(_run, _scan_forward, _scan_tangent, _scan_backward)


def _shift(after: jax.Array, entry: jax.Array, *, reverse: bool) -> jax.Array:
    """The carries before every step of a chunk from those after every step."""
    parts = (after[1:], entry[None]) if reverse else (entry[None], after[:-1])
    return jnp.concatenate(parts)[: after.shape[0]]  # a chunk of no steps has no carry to shift


def _along_time(
    linearise: Callable[..., Any], *xs: Any
) -> tuple[list[Any], list[Any], Callable[[Any, Any], Any]]:
    """Linearises every step at once; tells what depends on the step from what does not.

    `jax.vmap` alone would copy a kernel that the pullback needs for every step. So the pullback is
    traced for one step first: a leaf that cannot be reached from the step's own inputs is fixed.

    Args:
        linearise: from the inputs of one step to its pullback, a pytree.
        *xs: trees, leaves `[C, ...]`.

    Returns:
        The leaves that vary, `[C, ...]`, those that do not, and a function that rebuilds the
        pullback of one step from both.
    """
    structure: list[Any] = []

    def linear_leaves(*x: Any) -> list[Any]:
        flat, tree = jax.tree.flatten(linearise(*x))
        structure[:] = [tree]
        return flat

    traced = jax.make_jaxpr(linear_leaves)(*_types_of_a_step(xs))
    reached = set(traced.jaxpr.invars)
    for equation in traced.jaxpr.eqns:
        if any(_among(var, reached) for var in equation.invars):
            reached.update(equation.outvars)
    varies = [_among(var, reached) for var in traced.jaxpr.outvars]
    # What was traced, not the function once more: under vmap a pullback may come with other leaves.
    along = jax.vmap(jaxpr_as_fun(traced), out_axes=[0 if v else None for v in varies])
    flat = along(*jax.tree.leaves(xs))

    def rebuild(varying: Any, fixed: Any) -> Any:
        varying, fixed = iter(varying), iter(fixed)
        return jax.tree.unflatten(structure[0], [next(varying if v else fixed) for v in varies])

    varying = [leaf for leaf, v in zip(flat, varies) if v]
    return varying, [leaf for leaf, v in zip(flat, varies) if not v], rebuild


def _types_of_a_step(xs: Any) -> Any:
    """The types of the leaves `[C, ...]` of a tree, without the axis of time."""
    types: list[Any] = []

    def record_types(x: Any) -> None:
        types[:] = [jax.tree.map(jax.typeof, x)]

    jax.eval_shape(jax.vmap(record_types), xs)
    return types[0]


def _among(var: Any, reached: set[Any]) -> bool:
    return not hasattr(var, "val") and var in reached  # a literal has a value and no hash
