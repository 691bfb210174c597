"""`newton`: any cell over a whole sequence, all steps at once, by Newton's method.

The states of a recurrence `s[t] = F[t](s[t-1])` are the root of T coupled equations. Newton's
method linearises every step at the present guess, which all steps can do at once, and corrects the
guess by `d[t] = J[t] d[t-1] + F[t](s[t-1]) - s[t]`, a linear recurrence, which is parallel in time
too. With the Jacobians J this is DEER (Lim et al. 2023, arXiv 2309.12252), with nothing but their
diagonals quasi-DEER (Gonzalez et al. 2024, arXiv 2407.19115).

Each iteration makes one more step exact at least, but for one that may be refused, so T + 1 of them
are always enough, up to rounding. It pays where few are: where the recurrence forgets. On a chaotic
one the corrections grow along the sequence. There the second paper has a Kalman smoother; here what
is carried over from other steps, `J[t] d[t-1]`, is held within a ball, which costs nothing, and if
that does not help either, the steps are taken one after another.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from longlag.contrib.newton_solver import NewtonInfo, _Method, _solve
from longlag.core.array_types import Mask, Outputs, PRNGKey, Resets, Sequences
from longlag.core.cell import CarryT, Cell
from longlag.core.checks import as_key, check_sequence
from longlag.core.linear_cell import LinearCell
from longlag.core.ops import Params
from longlag.core.over_devices import refuse_time_axis
from longlag.core.placement import unify_types, zeros_like
from longlag.core.promotion import at_least_float32
from longlag.core.selection import select
from longlag.core.spec import choose, take
from longlag.core.unrolling import unroll

__all__ = ["newton"]


# Numbers in a state up to which "auto" takes whole Jacobians. Up to here they were the faster on
# CPU for every cell that was measured (benchmarks/README.md); above, nothing was, but their memory
# grows with the square.
DENSE_UP_TO = 32
# The default tolerance, in roundings. With diagonals rounding was seen to stay at 30 to 100.
ROUNDINGS = 100


def newton(
    cell: Cell[CarryT],
    params: Params,
    xs: Sequences,
    carry: CarryT | None = None,
    *,
    mask: Mask | None = None,
    resets: Resets | None = None,
    key: PRNGKey | None = None,
    reverse: bool = False,
    jacobian: Literal["auto", "dense", "diagonal"] = "auto",
    tolerance: float | None = None,
    max_iterations: int = 100,
    carries: Literal["last", "all"] = "last",
    time_major: bool = False,
) -> tuple[CarryT, Outputs, NewtonInfo]:
    """Runs a cell over a sequence as `unroll` does, in parallel over time.

    Masks, resets, streaming and noise are those of `unroll`, and so are the results, but for the
    tolerance. It is for accelerators, long sequences and states that forget; on a CPU it is always
    slower than `unroll`. Where it does not converge, the steps are taken one after another, and
    `NewtonInfo` says so; under `jax.vmap` that is done for all if for one.

    The gradient is exact at the states that were found, in parameters, inputs, carry and learned
    first state. It can be differentiated again, in both modes. With "dense" the gradient is
    parallel in time: one linear recurrence with the Jacobians transposed. With "diagonal" the
    transposed Jacobians are applied **one step after another**, since a diagonal would not give the
    exact gradient. Forward mode takes one step after another too.

    Memory: "dense" holds one Jacobian for every step, `[T, B, n, n]` with n numbers in a state, for
    instance 164 MB at T=10,000, B=4, n=32 in float32, and some times that while it works.
    "diagonal" holds `[T, B, n]`, but still takes n directional derivatives of the step in every
    iteration, one after another, except for a linear cell, where one is enough.

    Args:
        cell: any cell whose carry is made of floating numbers.
        params: its parameters, from `cell.init`.
        xs: inputs `[B, T, ...]`, as a rule `[B, T, D]`.
        carry: the state to begin with; None means `cell.initial_carry`.
        mask: `[B, T]` bool, false anywhere at padding; None means all true.
        resets: `[B, T]` bool, true where a new sequence begins; None means none.
        key: source of noise for a cell that has any.
        reverse: from the last step to the first.
        jacobian: "dense", whole Jacobians, few iterations; "diagonal", their diagonals, more
            iterations; "auto": "dense" up to n = 32, "diagonal" above and for a linear cell, whose
            Jacobian is diagonal, so that one iteration is enough.
        tolerance: the residual at which it stops, see `NewtonInfo`; None means 100 roundings of
            the states (1.2e-5 in float32).
        max_iterations: after so many the steps are taken one after another.
        carries: "last" returns the carry after the last step, "all" the carries after every step
            (leaves `[B, T, ...]`).
        time_major: `xs`, `mask`, `resets`, outputs and all carries are `[T, B, ...]`.

    Returns:
        The carry and the outputs as from `unroll`, in the same dtypes, and how it went. States are
        held in at least float32 meanwhile.

    Raises:
        ValueError: as `unroll`, for an option that does not exist, a tolerance or a number of
            iterations below zero, or a carry with leaves that are not floating.
    """
    refuse_time_axis("newton", "use `longlag.unroll`, which takes linear and matrix cells there")
    choose(jacobian, ("auto", "dense", "diagonal"), "jacobian")
    max_iterations = take("max_iterations", max_iterations, int)
    tolerance = take("tolerance", tolerance, float | None)
    reverse, time_major = take("reverse", reverse, bool), take("time_major", time_major, bool)
    if max_iterations < 0 or (tolerance is not None and not tolerance >= 0):
        raise ValueError(
            "tolerance, max_iterations: expected numbers from zero on, "
            f"got {tolerance} and {max_iterations}"
        )
    xs, mask, resets = check_sequence("xs", xs, mask, resets, time_major)
    key = as_key("key", key)
    as_unroll = functools.partial(
        unroll,
        cell,
        params,
        xs,
        carry,
        mask=mask,
        resets=resets,
        key=key,
        reverse=reverse,
        carries=carries,
        time_major=time_major,
    )
    like = jax.eval_shape(as_unroll)  # and what is wrong with the arguments
    if not time_major:
        xs, mask, resets = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, mask, resets))
    batch = xs.shape[1]
    first = cell.initial_carry(params, (batch,))
    arrays = (params, first, first if carry is None else carry, xs, mask, resets, key)
    arrays = unify_types(arrays, (-1, 0, 0, 1, 1, 1, -1))
    params, first, carry, xs, mask, resets, key = arrays
    flatten, unflatten = _as_vectors(cell, carry, batch)
    start = flatten(carry)
    if not xs.shape[0] * start.size:  # no steps, or nothing that one leaves to the next
        none = jnp.zeros((), start.dtype)
        info = NewtonInfo(jnp.int32(0), none, jnp.asarray(True), jnp.asarray(False))
        return *as_unroll(), info
    if jacobian == "auto":
        small = start.shape[1] <= DENSE_UP_TO and not isinstance(cell, LinearCell)
        jacobian = "dense" if small else "diagonal"

    def step(consts: Any, state: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
        """One step on vectors `[B, n]`, with the semantics of `scan_steps`."""
        params, first = consts
        u, live, reset = inputs
        if reset is not None:
            state = select(reset, first, state)
        # As there, a masked step is taken from a clean state and thrown away.
        clean = state if live is None else select(live, state, first)
        new, y = cell.step(params, unflatten(clean), u)
        new = flatten(new)
        if live is not None:
            new = select(live, new, state)
            y = select(live, y, jax.tree.map(zeros_like, y))
        return new, y

    inputs = (_prepare(cell, params, xs, mask, key, carry), mask, resets)
    flip = functools.partial(jnp.flip, axis=0) if reverse else lambda x: x
    method = _Method(
        step,
        "diagonal, alone" if isinstance(cell, LinearCell) and jacobian == "diagonal" else jacobian,
        ROUNDINGS * float(jnp.finfo(start.dtype).eps) if tolerance is None else tolerance,
        max_iterations,
    )
    results: Any = _solve(method, (params, flatten(first)), start, jax.tree.map(flip, inputs))
    states, ys, info = results
    if carries == "all":
        out = unflatten(flip(states))
    else:
        out = unflatten(jnp.concatenate([start[None], states])[-1])
    ys = jax.tree.map(flip, ys)
    if not time_major:
        ys = jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)
        if carries == "all":
            out = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), out)
    return *jax.tree.map(lambda x, to: x.astype(to.dtype), (out, ys), like), info


def _as_vectors(cell: Cell, carry: Any, batch: int) -> tuple[Callable, Callable]:
    """How to make vectors `[B, n]` of a carry, and a carry of vectors `[..., n]`.

    Raises:
        ValueError: a leaf is not floating.
    """
    leaves, structure = jax.tree.flatten(carry)
    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"cell: newton expected a carry of floating numbers, got {jnp.result_type(leaf)} "
                f"in the carry of {cell}; unroll runs such a cell"
            )
    dtype = at_least_float32(*leaves)
    shapes = [leaf.shape[1:] for leaf in leaves]
    ends = [0]
    for shape in shapes:
        ends.append(ends[-1] + math.prod(shape))

    def flatten(carry: Any) -> jax.Array:
        widths = [end - begin for begin, end in itertools.pairwise(ends)]
        parts = [
            jnp.reshape(leaf, (batch, width)).astype(dtype)
            for leaf, width in zip(jax.tree.leaves(carry), widths)
        ]
        return jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((batch, 0), dtype)

    def unflatten(vector: jax.Array) -> Any:
        parts = [
            vector[..., begin:end].reshape(*vector.shape[:-1], *shape)
            for begin, end, shape in zip(ends, ends[1:], shapes)
        ]
        return jax.tree.unflatten(structure, parts)

    return flatten, unflatten


def _prepare(
    cell: Cell,
    params: Params,
    xs: jax.Array,
    mask: jax.Array | None,
    key: jax.Array | None,
    carry: Any,
) -> Any:
    """`project` of the whole sequence, leaves `[T, B, ...]`."""
    us = cell._prepare(params, xs, mask, key)
    if not isinstance(cell, LinearCell):
        return us
    # Its decay and input need only broadcast to the states, which steps cannot be cut from.
    a, b, aux = us
    shape = (*xs.shape[:2], *carry.h.shape[1:])
    return jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape), aux
