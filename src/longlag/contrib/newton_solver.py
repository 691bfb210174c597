"""The iteration of `newton` and its derivative, on states as vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from longlag.core.any_length import associative_scan
from longlag.core.array_types import Scalar
from longlag.core.derivative import custom_derivative, derivative_like, split
from longlag.core.placement import unify_types, zeros_like
from longlag.core.promotion import add
from longlag.core.scans.linear import by_method, linear_scan

__all__ = ["NewtonInfo"]

# How far other steps may move a state in one iteration, once a free move has made things worse. Of
# 0.3, 0.5, 1, 2 and 5 the one with the fewest iterations for the worst of three cells trained on
# copy (33 at T=3,000); the states of most cells lie in [-1, 1].
RADIUS = 1.0


@flax.struct.dataclass
class NewtonInfo:
    """How Newton's method went; one number each for the whole batch.

    Attributes:
        iterations: how many were made, int32.
        residual: what the last of them left: the largest `|F(s[t-1]) - s[t]| / max(1, |s[t]|)`.
        converged: the residual is within the tolerance, bool.
        fell_back: it was not, and the steps were taken one after another, bool.
    """

    iterations: Scalar
    residual: Scalar
    converged: Scalar
    fell_back: Scalar


class _Method(NamedTuple):
    """What does not depend on numbers."""

    step: Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]
    jacobian: str
    tolerance: float
    max_iterations: int


# Constants, the state before the first step `[B, n]`, inputs and all states `[T, B, n]`.
Residuals = tuple[Any, jax.Array, Any, jax.Array]


def _run(
    method: _Method, consts: Any, start: jax.Array, inputs: Any
) -> tuple[jax.Array, Any, NewtonInfo]:
    """All states `[T, B, n]`, all outputs, and how it went.

    Args:
        method: what to do.
        consts: a tree, the same for every step.
        start: the state before the first step, `[B, n]`.
        inputs: a tree, leaves `[T, B, ...]`.
    """

    def advance(states: jax.Array) -> jax.Array:
        """The states after every step, each taken from the guess before it, `[T, B, n]`."""
        return _step_all(method, consts, _states_before(start, states), inputs)[0]

    def iterate(loop: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        # The states are `[T, B, n]`; error, unsolved and radius are `[B]`.
        iteration, states, error, unsolved, radius = loop
        now, jacobians = _linearise(method, consts, _states_before(start, states), inputs)
        residual = now - states
        if method.jacobian == "dense":
            correction = _block_scan(jacobians, residual)
        else:
            correction = linear_scan(jacobians, residual, zeros_like(start))
        # `now` alone is what the step makes of the present guess; the rest is foresight, which is
        # shortened where it is too long, and left out where it has overflowed.
        foresight = correction - residual
        finite = jnp.isfinite(foresight).all(-1, keepdims=True)
        length = jnp.abs(foresight).max(-1, keepdims=True)
        most = radius[None, :, None]
        scale = jnp.where(length > most, most / length, 1)
        new = jnp.where(finite, now + foresight * scale, now)
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

    def is_unfinished(loop: tuple[jax.Array, ...]) -> jax.Array:
        iteration, _, error, _, _ = loop
        return (iteration < method.max_iterations) & ~(error.max() <= method.tolerance)

    def run_sequentially(_: jax.Array) -> jax.Array:
        def take_step(state: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
            new, _ = method.step(consts, state, inputs)
            return new, new

        return jax.lax.scan(take_step, start, inputs)[1]

    steps = jax.tree.leaves(inputs)[0].shape[0]
    guess = zeros_like(jnp.broadcast_to(start, (steps, *start.shape)))
    error, unsolved = _residual(guess, advance(guess))
    loop = (jnp.int32(0), guess, error, unsolved, zeros_like(error) + jnp.inf)
    loop = jax.lax.while_loop(is_unfinished, iterate, unify_types(loop, (-1, 1, 0, 0, 0)))
    iterations, states, error, _, _ = loop
    residual = error.max()
    converged = residual <= method.tolerance
    states = jax.lax.cond(converged, lambda states: states, run_sequentially, states)
    _, ys = _step_all(method, consts, _states_before(start, states), inputs)
    info = NewtonInfo(jnp.asarray(iterations, jnp.int32), residual, converged, ~converged)
    return states, ys, info


def _solve_forward(
    method: _Method, consts: Any, start: jax.Array, inputs: Any
) -> tuple[Any, Residuals]:
    # Calls `_solve`, not `_run`, so that the gradient has a gradient too.
    results: Any = _solve(method, consts, start, inputs)
    return results, (consts, start, inputs, results[0])


def _solve_tangent(
    method: _Method, residuals: Residuals, tangents: tuple[Any, jax.Array, Any]
) -> tuple[jax.Array, Any, NewtonInfo]:
    """The tangents of the states, one step after another, and those of the outputs."""
    consts, start, inputs, states = residuals
    d_consts, d_start, d_inputs = tangents

    def push(d_state: jax.Array, step: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        before, inputs, d_inputs = step
        floats, others, join = split((consts, before, inputs))

        def run(floats: list[Any]) -> tuple[Any, Any]:
            new, y = method.step(*join(floats, others))
            return (new, split(y)[0]), y

        moves = jax.tree.leaves((d_consts, d_state, d_inputs))
        _, (d_state, d_y), y = jax.jvp(run, (floats,), (moves,), has_aux=True)
        return d_state, (d_state, derivative_like(d_y, y))

    steps = (_states_before(start, states), inputs, d_inputs)
    d_states, d_ys = jax.lax.scan(push, d_start, steps)[1]
    none = NewtonInfo(None, jnp.zeros((), start.dtype), None, None)  # type: ignore[arg-type]
    return d_states, d_ys, none


def _solve_backward(
    method: _Method, residuals: Residuals, cotangents: tuple[jax.Array, Any, Any]
) -> tuple[Any, jax.Array, Any]:
    consts, start, inputs, states = residuals
    d_states, d_ys, _ = cotangents
    before = _states_before(start, states)
    _, pull = jax.vjp(functools.partial(_step_all, method), consts, before, inputs)
    # The gradient in every state by the output of the step after it.
    d_before = pull((zeros_like(states), d_ys))[1]
    zero = zeros_like(start)
    direct = d_states + _shift_back(d_before, zero)
    if method.jacobian == "dense":
        _, jacobians = _linearise(method, consts, before, inputs)
        transposed = jnp.swapaxes(_shift_back(jacobians, zeros_like(jacobians[0])), -1, -2)
        lam = _block_scan(transposed, direct, reverse=True)
    else:

        def step_back(d_state: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
            direct, before, inputs = step
            lam = direct + d_state
            _, pull = jax.vjp(lambda state: method.step(consts, state, inputs)[0], before)
            return pull(lam)[0], lam

        _, lam = jax.lax.scan(step_back, zero, (direct, before, inputs), reverse=True)
    d_consts, d_before, d_inputs = pull((lam, d_ys))
    return d_consts, d_before[0], d_inputs


_solve = custom_derivative(_run, _solve_forward, _solve_tangent, _solve_backward)


def _step_all(
    method: _Method, consts: Any, before: jax.Array, inputs: Any
) -> tuple[jax.Array, Any]:
    """All steps at once, each from its own state."""
    return jax.vmap(method.step, (None, 0, 0))(consts, before, inputs)


def _states_before(start: jax.Array, states: jax.Array) -> jax.Array:
    """The states before every step from those after every step."""
    return jnp.concatenate([start[None], states])[:-1]


def _shift_back(xs: jax.Array, last: jax.Array) -> jax.Array:
    """What belongs to the step that follows, and what stands for it at the last one."""
    return jnp.concatenate([xs[1:], last[None]])


def _linearise(
    method: _Method, consts: Any, before: jax.Array, inputs: Any
) -> tuple[jax.Array, jax.Array]:
    """The states after every step, and their derivatives in those before it.

    The derivatives are `[T, B, n, n]`, or their diagonals `[T, B, n]`.

    Rows do not meet each other, so that one direction serves all of them.
    """
    now, push = jax.linearize(lambda before: _step_all(method, consts, before, inputs)[0], before)
    if method.jacobian == "diagonal, alone":
        # There is nothing beside the diagonal, so that the sum of a row is its entry.
        return now, push(zeros_like(before) + 1)
    width = before.shape[-1]
    directions = jnp.eye(width, dtype=before.dtype)

    def push_direction(direction: jax.Array) -> jax.Array:
        return push(add(zeros_like(before), direction))

    if method.jacobian == "dense":
        return now, jax.vmap(push_direction, out_axes=-1)(directions)
    entries = jax.lax.map(lambda i: push_direction(directions[i])[..., i], jnp.arange(width))
    return now, jnp.moveaxis(entries, 0, -1)


def _residual(states: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
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


# The matrices and the vectors of maps `h -> a @ h + b`, `[..., n, n]` and `[..., n, 1]`.
Affine = tuple[jax.Array, jax.Array]


def _run_blocks(reverse: bool, method: str, a: jax.Array, b: jax.Array) -> jax.Array:
    if method != "associative":

        def take_step(
            h: jax.Array, inputs: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            a, b = inputs  # [B, n, n] and [B, n]
            h = (a * h[..., None, :]).sum(-1) + b
            return h, h

        return jax.lax.scan(take_step, zeros_like(b[0]), (a, b), reverse=reverse)[1]

    def combine(earlier: Affine, later: Affine) -> Affine:
        # An accelerator would round to fewer bits, and Newton would not converge.
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return product(later[0], earlier[0]), product(later[0], earlier[1]) + later[1]

    return associative_scan(combine, (a, b[..., None]), reverse=reverse)[1][..., 0]
