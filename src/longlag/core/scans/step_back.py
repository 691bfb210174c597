"""The backward of a scan: chunk by chunk, or as one loop, derived in `docs/design/backward.md`.

A name ends in `_f` for floating leaves, a list, and in `_o` for the others: counters, flags and
typed keys have no gradient, but a step needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from longlag.core.chunks import over_chunks
from longlag.core.derivative import derivative_like, split
from longlag.core.placement import zeros_like
from longlag.core.promotion import at_least_float32
from longlag.kernels.looping import loop_or_else

if TYPE_CHECKING:
    from longlag.core.scans.step import Prepare, Residuals, Static

__all__ = ["prepare_step", "pull_back"]

# The floating leaves of a tree, and the others of the carry before a step and of u.
Floats = list[Any]
Others = tuple[list[Any], list[Any]]


def prepare_step(prepare: Prepare, consts: Any, x: Any) -> Any:
    """u of one step, leaves `[B, ...]`, from the x of one: `prepare` takes many steps at once."""
    # Reshaped, since the transpose of `expand_dims` is a sum over axes of size 1, the batch's too.
    us = prepare(consts, jax.tree.map(lambda leaf: leaf.reshape(1, *leaf.shape), x))
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[1:]), us)


def pull_back(static: Static, residuals: Residuals, cotangents: Any) -> tuple[Any, Any, Any]:
    """The gradients of constants, first carry and inputs.

    Args:
        static: the scan.
        residuals: what its forward kept.
        cotangents: of the last carry, of every carry or None, and of the outputs.
    """
    consts, xs, carry, every, zs = residuals
    # None stands for the cotangent of what is not floating, and is no leaf.
    lam, d_every, dys = map(jax.tree.leaves, cotangents)
    arguments = consts, lam, (xs, zs, d_every, dys), every, carry
    by_chunks = functools.partial(_pull_chunks, static)
    if static.fused != "no":
        by_step = functools.partial(_pull_step, static)
        anywhere = static.fused == "anywhere"
        results = loop_or_else(
            by_step, by_chunks, *arguments, reverse=not static.reverse, anywhere=anywhere
        )
    else:
        results = by_chunks(*arguments)
    lam, d_xs, d_consts = results
    return (
        derivative_like(d_consts, consts),
        derivative_like(lam, carry),
        derivative_like(d_xs, xs),
    )


def _pull_step(
    static: Static, consts: Any, lam: Floats, given: Any, before: Any
) -> tuple[Floats, Floats, Floats]:
    """One step back, whole.

    Args:
        static: the scan.
        consts: its constants.
        lam: the gradient in the carry after the step, leaves `[B, ...]` as all below.
        given: x and z of the step, and the gradients in its carry and its output.
        before: the carry before the step.

    Returns:
        lam before the step, and the gradients in x and in the constants.
    """
    x, z, d_every, dy = given
    consts_f, consts_o, join_consts = split(consts)
    carry_f, carry_o, join_carry = split(before)
    x_f, x_o, join_x = split(x)
    lam = jax.tree.map(jnp.add, lam, d_every) if static.every_carry else lam

    def prepare_floats(consts_f: Floats, x_f: Floats) -> tuple[Floats, Any]:
        u = prepare_step(static.prepare, join_consts(consts_f, consts_o), join_x(x_f, x_o))
        return split(u)[0], u

    _, pull_prepare, u = jax.vjp(prepare_floats, consts_f, x_f, has_aux=True)
    u_f, u_o, join_u = split(u)

    def begin_floats(consts_f: Floats, carry_f: Floats, u_f: Floats) -> tuple[Floats, Any]:
        consts, carry = join_consts(consts_f, consts_o), join_carry(carry_f, carry_o)
        z = static.begin(consts, carry, join_u(u_f, u_o))
        return split(z)[0], z

    _, pull_begin, z_again = jax.vjp(begin_floats, consts_f, carry_f, u_f, has_aux=True)
    z_f, z_o, join_z = split(z if static.store else z_again)

    def finish_floats(
        consts_f: Floats, carry_f: Floats, u_f: Floats, z_f: Floats
    ) -> tuple[Floats, Floats]:
        consts, carry = join_consts(consts_f, consts_o), join_carry(carry_f, carry_o)
        new, y = static.finish(consts, carry, join_u(u_f, u_o), join_z(z_f, z_o))
        return split(new)[0], split(y)[0]

    pull_finish = jax.vjp(finish_floats, consts_f, carry_f, u_f, z_f)[1]
    d_finish, d_carry, d_u, d_z = pull_finish((lam, dy))
    d_begin, d_carry_begin, d_u_begin = pull_begin(d_z)
    d_prepare, d_x = pull_prepare(jax.tree.map(jnp.add, d_u, d_u_begin))
    d_consts = [sum(terms[1:], terms[0]) for terms in zip(d_finish, d_begin, d_prepare)]
    return jax.tree.map(jnp.add, d_carry, d_carry_begin), d_x, d_consts


def _pull_chunks(
    static: Static, consts: Any, lam: Floats, given: Any, every: Any, carry: Any
) -> tuple[Floats, Floats, Floats]:
    """All steps back, chunk by chunk.

    Leaves of xs, us, zs, lams, d_every and dys begin with the axis of time, `[T, ...]` outside a
    chunk and `[C, ...]` inside; those of lam, of a carry and of `entries[n]` are of one step, and
    d_consts has the shapes of consts.

    Args:
        static: the scan.
        consts: its constants.
        lam: the gradient in the last carry.
        given: xs, zs, and the gradients in every carry and in the outputs.
        every: the carries after every step.
        carry: the carry before the first.

    Returns:
        lam before the first step, and the gradients in xs and in the constants.
    """
    prepare, begin, finish, reverse, every_carry, store, length, _ = static
    xs, zs, d_every, dys = given
    entries = jax.tree.map(
        functools.partial(_entries, length=length, reverse=reverse), carry, every
    )
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
            """From lam after a step to lam before it.

            It keeps lam after the step, with d_every in it, and d_z.
            """
            varying, d_every, dy = inputs
            lam = jax.tree.map(jnp.add, lam, d_every) if every_carry else lam
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

        # Where `finish` has neither constants nor inputs of its own this is zero, and XLA drops
        # lams. With resets or a mask, `finish` has `first` among its constants.
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

    return lam, d_xs, [d.astype(leaf.dtype) for d, leaf in zip(d_consts, consts_f)]


def _entries(carry: jax.Array, every: jax.Array, *, length: int, reverse: bool) -> jax.Array:
    """The carry before each chunk, `[chunks, ...]`: the first one, then some of every."""
    if reverse:
        return jnp.concatenate([every[length::length], carry[None]])
    return jnp.concatenate([carry[None], every[length - 1 : -1 : length]])


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
    """The types of the leaves `[C, ...]` of a tree, without the axis of time.

    Found by `jax.vmap`, so that the types keep their sharding.
    """
    types: list[Any] = []

    def record_types(x: Any) -> None:
        types[:] = [jax.tree.map(jax.typeof, x)]

    jax.eval_shape(jax.vmap(record_types), xs)
    return types[0]


def _among(var: Any, reached: set[Any]) -> bool:
    return not hasattr(var, "val") and var in reached  # a literal has a value and no hash
