"""A scan whose backward does for all steps at once whatever does not need the step after.

Autodiff of `jax.lax.scan` adds to the gradient of every parameter at every step, and keeps every
intermediate of every step: 13 arrays `[T, B, H]` for an LSTM. Here the forward keeps the carries
alone, and the backward goes chunk by chunk, from the last to the first:

1. linearise all steps of the chunk at once. The carries are known, so no step waits for another,
   and a recurrent product is one product over all steps;
2. go back through the steps one after another, for the carry only: `lam[t-1] = J[t]ᵀ lam[t] + ..`;
3. pull `lam` back through all steps of the chunk at once to parameters and inputs, where the
   gradient of a kernel is one product.

It knows nothing of cells: any pure step will do, in two parts, so that the products of the state
with its kernels may be stored by the forward in place of being taken again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from longlag.core.any_length import is_known
from longlag.core.chunks import chunk_length, over_chunks
from longlag.core.derivative import custom_derivative, split, whole
from longlag.core.placement import zeros_like
from longlag.core.promotion import at_least_float32, through_float32

__all__ = ["BACKWARDS", "Backward", "scan"]

Backward = Literal["auto", "recompute", "store", "autodiff"]
BACKWARDS = ("auto", "recompute", "store", "autodiff")

# Rows of a product that is taken for a chunk at once, about: enough for its full speed, and few
# enough that all of the chunk stays in the cache. By hand, 256 and 1024 were no better on CPU.
ROWS = 512
CHUNK_AT_LEAST, CHUNK_AT_MOST = 16, 64

Project = Callable[[Any, Any], Any]
Mix = Callable[[Any, Any, Any], Any]
Update = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def scan(
    project: Project,
    mix: Mix,
    update: Update,
    consts: Any,
    carry: Any,
    xs: Any,
    *,
    reverse: bool = False,
    every_carry: bool = False,
    backward: Literal["recompute", "store", "autodiff"] = "recompute",
    rows: int = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan` of a step over `project(consts, xs)`, with the backward described above.

    A step is `z = mix(consts, carry, u)`, then `carry, y = update(consts, carry, u, z)`. None of
    the three functions may close over anything that is differentiated.

    Args:
        project: `(consts, xs) -> us` for many steps at once, leaves `[C, ...]`.
        mix: `(consts, carry, u) -> z`, the costly part of the step.
        update: `(consts, carry, u, z) -> (carry, y)`. The new carry has the structure, shapes and
            dtypes of the old one.
        consts: a tree, the same for every step.
        carry: a tree. Leaves that are not floating (counters, flags, typed keys) are carried along
            without a gradient, and so are None.
        xs: a tree, leaves `[T, ...]`.
        reverse: from the last step to the first.
        every_carry: return the carries after every step, leaves `[T, ...]`, not the last.
        backward: what the forward keeps beside the carries: "recompute", nothing; "store", what
            `mix` returned. Both can be differentiated in both modes, to any order. In forward
            mode they take the steps twice, and "autodiff" once, which is `jax.lax.scan` as it
            stands.
        rows: the batch size, from which the length of the chunks follows.

    Returns:
        The carry or carries, and the outputs `[T, ...]`.
    """
    functions = (project, mix, update)
    if backward == "autodiff":
        consts_of_step = through_float32(consts)

        def take_step(carry, u):
            consts = consts_of_step()
            new, y = update(consts, carry, u, mix(consts, carry, u))
            return new, (new if every_carry else None, y)

        last, (every, ys) = jax.lax.scan(take_step, carry, project(consts, xs), reverse=reverse)
    else:
        store = backward == "store"
        rows = rows if is_known(rows) else 1
        aim = min(max(ROWS // max(rows, 1), CHUNK_AT_LEAST), CHUNK_AT_MOST)
        length = chunk_length(jax.tree.leaves(xs)[0].shape[0], aim)
        options = (reverse, every_carry, store, length)
        results: Any = _scan((functions, options), consts, carry, xs)
        last, every, ys = results
    return (every if every_carry else last), ys


def _run(static, consts, carry, xs):
    functions, (reverse, every_carry, _, length) = static
    return _forward(functions, (reverse, every_carry, False, length), consts, carry, xs)[:3]


def _forward(functions, options, consts, carry, xs):
    """Runs all chunks; what is not asked for is None, or left to XLA to leave out.

    Returns:
        The last carry, the carries after every step, the outputs, the carries before every chunk,
        and with `store` all `z`.
    """
    project, mix, update = functions
    reverse, every_carry, store, length = options
    outputs: list[Any] = []

    def take_step(carry, u):
        # Leaves of carry, u and z are those of one step, without the axis of time.
        z = mix(consts, carry, u)
        new, y = update(consts, carry, u, z)
        # An output that is a part of the carry, like the h of an LSTM, is stored once.
        kept, (leaves, structure) = jax.tree.leaves(new), jax.tree.flatten(y)
        same = [next((i for i, k in enumerate(kept) if k is leaf), None) for leaf in leaves]
        same = same if every_carry else [None] * len(same)
        outputs[:] = [structure, same]
        apart = [leaf for leaf, i in zip(leaves, same) if i is None]
        return new, (apart, new if every_carry else None, z if store else None)

    def run_chunk(carry, xs, _):
        us = project(consts, xs)  # xs and us: leaves `[C, ...]`
        last, steps = jax.lax.scan(take_step, carry, us, reverse=reverse)
        return last, steps, carry if every_carry else None

    last, (apart, every, zs), entries = over_chunks(run_chunk, carry, xs, None, length, reverse)
    structure, same = outputs
    apart, kept = iter(apart), jax.tree.leaves(every)
    ys = [next(apart) if i is None else kept[i] for i in same]
    return last, every, jax.tree.unflatten(structure, ys), entries, zs


def _scan_forward(static, consts, carry, xs):
    functions, (reverse, every_carry, store, length) = static
    keep = (reverse, True, store, length)
    last, every, ys, entries, zs = _forward(functions, keep, consts, carry, xs)
    return (last, every if every_carry else None, ys), (consts, xs, every, entries, zs)


def _scan_tangent(static, residuals, tangents):
    """The tangent of every step after that of the step before, the steps taken once more."""
    (reverse, *_), (consts, xs, _, entries, _) = static[1], residuals
    carry = jax.tree.map(lambda entry: entry[-1 if reverse else 0], entries)
    floats, others, join = split((consts, carry, xs))

    def run(floats):
        outs = _run(static, *join(floats, others))
        return split(outs)[0], outs

    _, moved, outs = jax.jvp(run, (floats,), (jax.tree.leaves(tangents),), has_aux=True)
    return whole(moved, outs)


def _scan_backward(static, residuals, cotangents):
    """The gradients of constants, first carry and inputs, derived in `docs/design/backward.md`.

    Leaves of xs, us, zs, lams, d_every and dys begin with the axis of time, `[T, ...]` outside a
    chunk and `[C, ...]` inside; those of lam, of a carry and of `entries[n]` are of one step, and
    d_consts has the shapes of consts. A name ends in `_f` for floating leaves, a list, and in `_o`
    for the others.
    """
    (project, mix, update), (reverse, every_carry, store, length) = static
    consts, xs, every, entries, zs = residuals
    # Of the last carry, of every carry and of the outputs, floating leaves alone.
    lam, d_every, dys = map(jax.tree.leaves, cotangents)
    consts_f, consts_o, join_consts = split(consts)

    def pull_chunk(state, inputs, entry):
        lam, d_consts = state
        xs, every, zs, d_every, dys = inputs
        shift = functools.partial(_shift, reverse=reverse)
        # The carries before every step: after the step before, or at the entry of the chunk.
        before_f, before_o, join_carry = split(jax.tree.map(shift, every, entry))
        xs_f, xs_o, join_xs = split(xs)

        def project_floats(consts_f, xs_f):
            """us_f `[C, ...]`, and all of us."""
            us = project(join_consts(consts_f, consts_o), join_xs(xs_f, xs_o))
            return split(us)[0], us

        _, pull_project, us = jax.vjp(project_floats, consts_f, xs_f, has_aux=True)
        us_f, us_o, join_u = split(us)
        others = (before_o, us_o)

        def join_step(consts_f, carry_f, u_f, others):
            """Constants, carry and u of one step, whole."""
            carry, u = join_carry(carry_f, others[0]), join_u(u_f, others[1])
            return join_consts(consts_f, consts_o), carry, u

        if not store:
            zs = jax.vmap(lambda *x: mix(*join_step(consts_f, *x)))(before_f, us_f, others)
        zs_f, zs_o, join_z = split(zs)

        def mix_floats(consts_f, carry_f, u_f, others):
            """z_f of one step."""
            return split(mix(*join_step(consts_f, carry_f, u_f, others)))[0]

        def update_floats(consts_f, carry_f, u_f, others, z_f, z_o):
            """The new carry_f and the output of one step."""
            new, y = update(*join_step(consts_f, carry_f, u_f, others), join_z(z_f, z_o))
            return split(new)[0], split(y)[0]

        def linearise(carry_f, u_f, others, z_f, z_o):
            """The pullbacks of one step in its carry: d_z -> d_carry, (lam, dy) -> (d_carry, d_z).

            The carry meets the step twice, in `mix` and in `update` beside z.
            """
            pull_mix = jax.vjp(lambda c: mix_floats(consts_f, c, u_f, others), carry_f)[1]
            pull_update = jax.vjp(
                lambda c, z: update_floats(consts_f, c, u_f, others, z, z_o), carry_f, z_f
            )[1]
            return pull_mix, pull_update

        varying, fixed, rebuild = _along_time(linearise, before_f, us_f, others, zs_f, zs_o)

        def step_back(lam, inputs):
            """From lam after a step to lam before it; keeps the first, and d_z."""
            varying, d_new, dy = inputs
            lam = jax.tree.map(jnp.add, lam, d_new) if every_carry else lam
            pull_mix, pull_update = rebuild(varying, fixed)
            d_carry, d_z = pull_update((lam, dy))
            return jax.tree.map(jnp.add, d_carry, pull_mix(d_z)[0]), (lam, d_z)

        lam, (lams, d_zs) = jax.lax.scan(
            step_back, lam, (varying, d_every, dys), reverse=not reverse
        )

        # Constants and inputs: no step waits for another, since lams and d_zs `[C, ...]` are known.
        def all_updates(consts_f, us_f):
            along = jax.vmap(update_floats, (None, 0, 0, 0, 0, 0))
            return along(consts_f, before_f, us_f, others, zs_f, zs_o)

        def all_mixes(consts_f, us_f):
            return jax.vmap(mix_floats, (None, 0, 0, 0))(consts_f, before_f, us_f, others)

        # Where `update` has neither constants nor inputs of its own this is zero, and lams are
        # not kept.
        d_update, d_us = jax.vjp(all_updates, consts_f, us_f)[1]((lams, dys))
        d_mix, d_us_mix = jax.vjp(all_mixes, consts_f, us_f)[1](d_zs)
        d_project, d_xs = pull_project(jax.tree.map(jnp.add, d_us, d_us_mix))
        of_chunk = zip(d_consts, d_update, d_mix, d_project, strict=True)
        d_consts = [sum(d.astype(of[0].dtype) for d in of) for of in of_chunk]
        return (lam, d_consts), d_xs, None

    # Sums over chunks in at least float32, whatever the parameters have.
    precise = [at_least_float32(leaf) for leaf in consts_f]
    state = (lam, list(map(zeros_like, consts_f, precise)))
    inputs = (xs, every, zs, d_every, dys)
    (lam, d_consts), d_xs, _ = over_chunks(pull_chunk, state, inputs, entries, length, not reverse)

    d_consts = [d.astype(leaf.dtype) for d, leaf in zip(d_consts, consts_f)]
    return whole(d_consts, consts), whole(lam, entries), whole(d_xs, xs)


_scan = custom_derivative(_run, _scan_forward, _scan_tangent, _scan_backward)


def _shift(after, entry, *, reverse):
    """The carries before every step of a chunk from those after every step."""
    parts = (after[1:], entry[None]) if reverse else (entry[None], after[:-1])
    return jnp.concatenate(parts)[: after.shape[0]]  # a chunk of no steps has no carry to shift


def _along_time(linearise, *xs):
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

    def leaves(*x):
        flat, tree = jax.tree.flatten(linearise(*x))
        structure[:] = [tree]
        return flat

    traced = jax.make_jaxpr(leaves)(*_types_of_a_step(xs))
    reached = set(traced.jaxpr.invars)
    for equation in traced.jaxpr.eqns:
        if any(_among(var, reached) for var in equation.invars):
            reached.update(equation.outvars)
    varies = [_among(var, reached) for var in traced.jaxpr.outvars]
    # What was traced, not `leaves` once more: under vmap a pullback may come with other leaves.
    along = jax.vmap(jaxpr_as_fun(traced), out_axes=[0 if v else None for v in varies])
    flat = along(*jax.tree.leaves(xs))

    def rebuild(varying, fixed):
        varying, fixed = iter(varying), iter(fixed)
        return jax.tree.unflatten(structure[0], [next(varying if v else fixed) for v in varies])

    varying = [leaf for leaf, v in zip(flat, varies) if v]
    return varying, [leaf for leaf, v in zip(flat, varies) if not v], rebuild


def _types_of_a_step(xs: Any) -> Any:
    """The types of the leaves `[C, ...]` of a tree, without the axis of time."""
    types: list[Any] = []

    def see(x):
        types[:] = [jax.tree.map(jax.typeof, x)]

    jax.eval_shape(jax.vmap(see), xs)
    return types[0]


def _among(var: Any, reached: set[Any]) -> bool:
    return not hasattr(var, "val") and var in reached  # a literal has a value and no hash
