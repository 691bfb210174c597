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
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from longlag.any_length import associative_scan
from longlag.cell import CarryT, Cell, Params
from longlag.checks import as_key, check_sequence
from longlag.derivative import custom_derivative, split, whole
from longlag.linear_cell import LinearCell
from longlag.linear_scan import by_method, linear_scan
from longlag.placement import alike, zeros_like
from longlag.promotion import add, at_least_float32
from longlag.select import select
from longlag.spec import choose, take
from longlag.unroll import unroll

__all__ = ["NewtonInfo", "newton"]

# Numbers in a state up to which "auto" takes whole Jacobians. Up to here they were the faster on
# CPU for every cell that was measured (benchmarks/README.md); above, nothing was, but their memory
# grows with the square.
DENSE_UP_TO = 32
# How far other steps may move a state in one iteration, once a free move has made things worse. Of
# 0.3, 0.5, 1, 2 and 5 the one with the fewest iterations for the worst of three cells trained on
# copy (33 at T=3,000); the states of most cells lie in [-1, 1].
RADIUS = 1.0
# The default tolerance, in roundings. With diagonals rounding was seen to stay at 30 to 100.
ROUNDINGS = 100


@flax.struct.dataclass
class NewtonInfo:
    """How Newton's method went; one number each for the whole batch.

    Attributes:
        iterations: how many were made, int32.
        residual: what the last of them left: the largest `|F(s[t-1]) - s[t]| / max(1, |s[t]|)`.
        converged: the residual is within the tolerance, bool.
        fell_back: it was not, and the steps were taken one after another, bool.
    """

    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array
    fell_back: jax.Array


class _Method(NamedTuple):
    """What does not depend on numbers."""

    step: Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]
    jacobian: str
    tolerance: float
    max_iterations: int


def newton(
    cell: Cell[CarryT],
    params: Params,
    xs: jax.Array,
    carry: CarryT | None = None,
    *,
    mask: jax.Array | None = None,
    resets: jax.Array | None = None,
    key: jax.Array | None = None,
    reverse: bool = False,
    jacobian: Literal["auto", "dense", "diagonal"] = "auto",
    tolerance: float | None = None,
    max_iterations: int = 100,
    carries: Literal["last", "all"] = "last",
    time_major: bool = False,
) -> tuple[CarryT, jax.Array, NewtonInfo]:
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
    given = (params, first, first if carry is None else carry, xs, mask, resets, key)
    given = alike(given, (-1, 0, 0, 1, 1, 1, -1))
    params, first, carry, xs, mask, resets, key = given
    flatten, unflatten = _as_vectors(cell, carry, batch)
    start = flatten(carry)
    if not xs.shape[0] * start.size:  # no steps, or nothing that one leaves to the next
        none = jnp.zeros((), start.dtype)
        info = NewtonInfo(jnp.int32(0), none, jnp.asarray(True), jnp.asarray(False))
        return *as_unroll(), info
    if jacobian == "auto":
        small = start.shape[1] <= DENSE_UP_TO and not isinstance(cell, LinearCell)
        jacobian = "dense" if small else "diagonal"

    def step(consts, state, inputs):
        """One step on vectors `[B, n]`, with the semantics of `Cell.scan`."""
        params, first = consts
        z, live, reset = inputs
        if reset is not None:
            state = select(reset, first, state)
        # As there, a masked step is taken from a clean state and thrown away.
        clean = state if live is None else select(live, state, first)
        new, y = cell.step(params, unflatten(clean), z)
        new = flatten(new)
        if live is not None:
            new = select(live, new, state)
            y = select(live, y, jax.tree.map(zeros_like, y))
        return new, y

    inputs = (_project(cell, params, xs, mask, key, carry), mask, resets)
    flip = functools.partial(jnp.flip, axis=0) if reverse else lambda x: x
    method = _Method(
        step,
        "diagonal, alone" if isinstance(cell, LinearCell) and jacobian == "diagonal" else jacobian,
        ROUNDINGS * float(jnp.finfo(start.dtype).eps) if tolerance is None else tolerance,
        max_iterations,
    )
    found: Any = _solve(method, (params, flatten(first)), start, jax.tree.map(flip, inputs))
    states, ys, info = found
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

    def flatten(carry):
        widths = [end - begin for begin, end in itertools.pairwise(ends)]
        parts = [
            jnp.reshape(leaf, (batch, width)).astype(dtype)
            for leaf, width in zip(jax.tree.leaves(carry), widths)
        ]
        return jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((batch, 0), dtype)

    def unflatten(vector):
        parts = [
            vector[..., begin:end].reshape(*vector.shape[:-1], *shape)
            for begin, end, shape in zip(ends, ends[1:], shapes)
        ]
        return jax.tree.unflatten(structure, parts)

    return flatten, unflatten


def _project(cell, params, xs, mask, key, carry):
    """`project` of the whole sequence, leaves `[T, B, ...]`."""
    zs = cell._project(params, xs, mask, key)
    if not isinstance(cell, LinearCell):
        return zs
    # Its decay and input need only broadcast to the states, which steps cannot be cut from.
    a, b, aux = zs
    shape = (*xs.shape[:2], *carry.h.shape[1:])
    return jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape), aux


def _run(method, consts, start, inputs):
    """All states `[T, B, n]`, all outputs, and how it went.

    Args:
        method: what to do.
        consts: a tree, the same for every step.
        start: the state before the first step, `[B, n]`.
        inputs: a tree, leaves `[T, B, ...]`.
    """

    def advance(states):
        return _every(method, consts, _before(start, states), inputs)[0]

    def body(loop):
        iteration, states, error, unsolved, radius = loop
        now, jacobians = _linearise(method, consts, _before(start, states), inputs)
        left = now - states
        if method.jacobian == "dense":
            correction = _block_scan(jacobians, left)
        else:
            correction = linear_scan(jacobians, left, zeros_like(start))
        # `now` alone is what the step makes of the present guess; the rest is foresight, which is
        # shortened where it is too long, and left out where it has overflowed.
        moved = correction - left
        finite = jnp.isfinite(moved).all(-1, keepdims=True)
        length = jnp.abs(moved).max(-1, keepdims=True)
        most = radius[None, :, None]
        within = jnp.where(length > most, most / length, 1)
        new = jnp.where(finite, now + moved * within, now)
        new_error, new_unsolved = _residual(new, advance(new))
        # The largest residual says little on the way: it stays until the last step falls into
        # place. A row whose mean grows has taken a free move that is worse than none; from then on
        # its moves are bounded and all are taken.
        worse = ~(new_unsolved <= unsolved)
        refused = worse & jnp.isinf(radius)
        new = jnp.where(refused[None, :, None], states, new)
        return (
            iteration + 1,
            new,
            jnp.where(refused, error, new_error),
            jnp.where(refused, unsolved, new_unsolved),
            jnp.where(worse, RADIUS, radius),
        )

    def unfinished(loop):
        iteration, _, error, _, _ = loop
        return (iteration < method.max_iterations) & ~(error.max() <= method.tolerance)

    def one_after_another(_):
        def body(state, inputs):
            new, _ = method.step(consts, state, inputs)
            return new, new

        return jax.lax.scan(body, start, inputs)[1]

    steps = jax.tree.leaves(inputs)[0].shape[0]
    guess = zeros_like(jnp.broadcast_to(start, (steps, *start.shape)))
    error, unsolved = _residual(guess, advance(guess))
    loop = (jnp.int32(0), guess, error, unsolved, zeros_like(error) + jnp.inf)
    loop = jax.lax.while_loop(unfinished, body, alike(loop, (-1, 1, 0, 0, 0)))
    iterations, states, error, _, _ = loop
    residual = error.max()
    converged = residual <= method.tolerance
    states = jax.lax.cond(converged, lambda states: states, one_after_another, states)
    _, ys = _every(method, consts, _before(start, states), inputs)
    info = NewtonInfo(jnp.asarray(iterations, jnp.int32), residual, converged, ~converged)
    return states, ys, info


def _solve_forward(method, consts, start, inputs):
    # Calls `_solve`, not `_run`, so that the gradient has a gradient too.
    found: Any = _solve(method, consts, start, inputs)
    return found, (consts, start, inputs, found[0])


def _solve_tangent(method, residuals, tangents):
    """The tangents of the states, one step after another, and those of the outputs."""
    consts, start, inputs, states = residuals
    d_consts, d_start, d_inputs = tangents

    def push(d_state, step):
        before, inputs, d_inputs = step
        floats, others, join = split((consts, before, inputs))

        def run(floats):
            new, y = method.step(*join(floats, others))
            return (new, split(y)[0]), y

        moves = jax.tree.leaves((d_consts, d_state, d_inputs))
        _, (d_state, d_y), y = jax.jvp(run, (floats,), (moves,), has_aux=True)
        return d_state, (d_state, whole(d_y, y))

    steps = (_before(start, states), inputs, d_inputs)
    d_states, d_ys = jax.lax.scan(push, d_start, steps)[1]
    none = NewtonInfo(None, jnp.zeros((), start.dtype), None, None)  # type: ignore[arg-type]
    return d_states, d_ys, none


def _solve_backward(method, residuals, cotangents):
    consts, start, inputs, states = residuals
    d_states, d_ys, _ = cotangents
    before = _before(start, states)
    _, pull = jax.vjp(functools.partial(_every, method), consts, before, inputs)
    # What every state owes to the output of the step after it.
    d_before = pull((zeros_like(states), d_ys))[1]
    zero = zeros_like(start)
    owed = d_states + _after(d_before, zero)
    if method.jacobian == "dense":
        _, jacobians = _linearise(method, consts, before, inputs)
        transposed = jnp.swapaxes(_after(jacobians, zeros_like(jacobians[0])), -1, -2)
        lam = _block_scan(transposed, owed, reverse=True)
    else:

        def back(d_state, step):
            owed, before, inputs = step
            lam = owed + d_state
            _, pull = jax.vjp(lambda state: method.step(consts, state, inputs)[0], before)
            return pull(lam)[0], lam

        _, lam = jax.lax.scan(back, zero, (owed, before, inputs), reverse=True)
    d_consts, d_before, d_inputs = pull((lam, d_ys))
    return d_consts, d_before[0], d_inputs


_solve = custom_derivative(_run, _solve_forward, _solve_tangent, _solve_backward)


def _every(method, consts, before, inputs):
    """All steps at once, each from its own state."""
    return jax.vmap(method.step, (None, 0, 0))(consts, before, inputs)


def _before(start, states):
    """The states before every step from those after every step."""
    return jnp.concatenate([start[None], states])[:-1]


def _after(xs, last):
    """What belongs to the step that follows, and what stands for it at the last one."""
    return jnp.concatenate([xs[1:], last[None]])


def _linearise(method, consts, before, inputs):
    """The states after every step, and their derivatives in those before it.

    Rows do not meet each other, so that one direction serves all of them.
    """
    now, push = jax.linearize(lambda before: _every(method, consts, before, inputs)[0], before)
    if method.jacobian == "diagonal, alone":
        # There is nothing beside the diagonal, so that the sum of a row is its entry.
        return now, push(zeros_like(before) + 1)
    width = before.shape[-1]
    directions = jnp.eye(width, dtype=before.dtype)

    def column(direction):
        return push(add(zeros_like(before), direction))

    if method.jacobian == "dense":
        return now, jax.vmap(column, out_axes=-1)(directions)
    entries = jax.lax.map(lambda i: column(directions[i])[..., i], jnp.arange(width))
    return now, jnp.moveaxis(entries, 0, -1)


def _residual(states, now):
    """For every row the largest residual, and the mean over all steps, where none counts above 1.

    A state that is rightly infinite or NaN never counts as solved.
    """
    size = jnp.abs(now - states) / jnp.maximum(1, jnp.abs(states))
    # Not left to `max`: on XLA:CPU the maximum of numbers and NaN is now and then -inf.
    size = jnp.where(jnp.isnan(size), jnp.inf, size)
    worst = size.max(-1)
    return worst.max(0), worst.clip(0, 1).mean(0)


def _block_scan(
    a: jax.Array,
    b: jax.Array,
    *,
    reverse: bool = False,
    method: Literal["auto", "scan", "associative"] = "auto",
) -> jax.Array:
    """`h[t] = a[t] @ h[t-1] + b[t]` from zero on, for a `[T, B, n, n]` and b `[T, B, n]`.

    The method is chosen as `linear_scan` chooses: a tree takes n times the operations of one step
    after another, which is cheaper only where steps cannot be had one after another.
    """
    return by_method(functools.partial(_run_blocks, reverse), method, a, b)


def _run_blocks(reverse, method, a, b):
    if method == "scan":

        def body(h, inputs):
            a, b = inputs
            h = (a * h[..., None, :]).sum(-1) + b
            return h, h

        return jax.lax.scan(body, zeros_like(b[0]), (a, b), reverse=reverse)[1]

    def combine(left, right):
        # An accelerator would round to fewer bits, and Newton would not converge.
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return product(right[0], left[0]), product(right[0], left[1]) + right[1]

    return associative_scan(combine, (a, b[..., None]), reverse=reverse)[1][..., 0]
