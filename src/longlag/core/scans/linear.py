"""The linear recurrence `h[t] = a[t] * h[t-1] + b[t]`: one gradient, several methods.

Within this module a number is a tuple of arrays, `(re,)` or `(re, im)`, so that real and complex
states are one code. `a` keeps axes of size 1 throughout: it is never spread over the state.

The parallel methods multiply decays with each other. Decays above one can overflow in such a
product where every state is finite: `1e30 * 1e30` after a state of zero, or before a decay of
`1e-35`. So these methods keep each number with an exponent of its own (`WIDE`), unless the caller
promises that no decay exceeds one (`PLAIN`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from longlag.core.any_length import is_known
from longlag.core.array_types import ScanResets
from longlag.core.checks import as_array, is_zero
from longlag.core.derivative import custom_derivative
from longlag.core.over_devices import before, place, time_axis
from longlag.core.placement import unify_types, zeros_like
from longlag.core.platforms import on_cpu_or_else
from longlag.core.promotion import at_least_float32
from longlag.core.scans import linear_fused
from longlag.core.scans.linear_methods import (
    RUN,
    _before,
    _enter,
    _fill,
    _order,
    _over_steps,
    _row,
    _rows,
    _varies,
)
from longlag.core.scans.numbers import (
    PLAIN,
    WIDE,
    Complex,
    Number,
    StateT,
    _affine,
    _as_number,
    _at,
    _conj,
    _plus,
    _product,
    _reduce,
    _times,
    _zeros,
)
from longlag.core.selection import select
from longlag.core.spec import choose, take

__all__ = ["AUTO", "METHODS", "Method", "by_method", "linear_scan", "linear_step"]


Method = Literal["auto", "scan", "associative", "chunked", "fused"]
METHODS = ("auto", "scan", "associative", "chunked", "fused")

# What "auto" takes on CPU, and on every other platform. Nothing was measured by us elsewhere;
# "associative" is what others found the fastest of these there.
AUTO = ("scan", "associative")
# A state of at least so many numbers goes by "fused" on a CPU. On two quiet cores, 512 to 8,192
# steps of 64 to 192 numbers took .3 to .9 of the time of "scan", and 16 numbers up to 1.4 times.
FUSED_FROM = 64


def linear_scan(
    a: jax.Array | Complex,
    b: StateT,
    h0: jax.Array | Complex,
    *,
    resets: ScanResets | None = None,
    h_reset: jax.Array | Complex | None = None,
    method: Method = "auto",
    reverse: bool = False,
    contracting: bool = False,
) -> StateT:
    """Runs `h[t] = a[t] * h[t-1] + b[t]` over the leading axis, elementwise.

    Complex numbers are pairs of real arrays `(re, im)` of one shape. If `b` is a pair, so is the
    result, and each of the other arguments may be a pair or real.

    The gradient is our own. It keeps `a`, `h`, the two first states and the resets. It is again one
    linear recurrence, run the other way: `lam[t] = dh[t] + conj(a[t+1]) * lam[t+1]`, `db = lam`,
    `da[t] = lam[t] * conj(h[t-1])`, with `h_reset` in place of `h[t-1]` at a reset. Forward mode is
    one linear recurrence more. Both can be differentiated again. The gradient of a pair is the pair
    of the gradients of its parts.

    Args:
        a: decay, `[T, *state]` or anything that broadcasts to it. It is not spread over the axes
            that it lacks or has with size 1, nor is its gradient; a leading axis of size 1 is a
            decay that does not change with time ("associative" spreads that over time alone).
        b: input, `[T, *state]` or anything that broadcasts to it.
        h0: the state before the first step, `[*state]` or anything that broadcasts to it.
        resets: bool, `[T, *leading]` with `leading` a prefix of `state`. Where true, the state
            before the step becomes `h_reset`. It is selected, never multiplied, so a NaN in the
            forgotten state reaches neither values nor gradients.
        h_reset: the state after a reset, broadcastable to `[*state]`; zeros if None.
        method: "scan" (one step after another, the least memory traffic), "associative" (a tree of
            `log2(T)` levels), "chunked" (all chunks of 32 steps side by side, twice, and a tree
            over the chunks in between: far less traffic than the tree alone), or "auto": in a
            program that is lowered for CPU "fused" for states of 64 numbers or more and "scan"
            for smaller ones, and "associative" in any other. Only CPU was measured by us. "fused"
            runs the recurrence and its adjoint as one native call each on a CPU
            (`longlag.kernels`), and is "scan" elsewhere. Always "scan" for a T that is symbolic
            (`jax.export`).
        reverse: runs from the last step to the first; `h0` is then the state after the last step.
        contracting: a promise that no decay is larger than one, so that no product of decays
            overflows. "associative" and "chunked" then do less work. "scan" is the same program.

    Returns:
        All states, `[T, *state]`, in at least float32; a pair of them if `b` is a pair. Over
        devices (`longlag.time_over_devices`) those of the device's own steps.

    Raises:
        ValueError: shapes that do not broadcast, a pair that is none or beside a real `b`, resets
            that are not bool, an unknown method.
    """
    choose(method, METHODS, "method")
    reverse = take("reverse", reverse, bool)
    if resets is None and h_reset is not None:
        raise ValueError("linear_scan: h_reset was given without resets")
    arguments = {"a": a, "b": b, "h0": h0, "h_reset": 0.0 if h_reset is None else h_reset}
    numbers = {name: _as_number(name, x) for name, x in arguments.items()}
    if len(numbers["b"]) < max(map(len, numbers.values())):
        raise ValueError("linear_scan: expected b as a pair (re, im), since others are; got real b")
    shapes = {name: jnp.shape(x[0]) for name, x in numbers.items()}
    if not (shapes["a"] and shapes["b"]):
        raise ValueError("linear_scan: expected a and b with a leading time axis, got a scalar")
    try:
        shape = jnp.broadcast_shapes(
            shapes["a"], shapes["b"], (1, *shapes["h0"]), (1, *shapes["h_reset"])
        )
    except ValueError as error:
        raise ValueError(
            "linear_scan: expected a, b [T, *state] and h0, h_reset [*state] that broadcast "
            "together, got " + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        ) from error
    resets = None if resets is None else as_array("linear_scan: resets", resets)
    if resets is not None and (resets.dtype != bool or resets.shape != shape[: resets.ndim]):
        raise ValueError(
            f"linear_scan: expected resets bool of a shape that begins {shape}, "
            f"got {resets.dtype} {resets.shape}"
        )
    if not is_known(shape[0]):
        method = "scan"
    dtype = at_least_float32(*jax.tree.leaves([numbers[name] for name in ("a", "b", "h0")]))

    def spread(name: str, shape: tuple[int, ...]) -> Number:
        real, *imag = (jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x in numbers[name])
        return (real, *(imag or [jnp.zeros_like(real)])) if len(numbers["b"]) == 2 else (real,)

    axes = (1,) * (len(shape) - len(shapes["a"])) + shapes["a"]
    axis = time_axis(numbers["b"][0])
    arrays = (
        tuple(jnp.reshape(x, axes).astype(dtype) for x in numbers["a"]),
        spread("b", shape),
        spread("h0", shape[1:]),
        None if resets is None else spread("h_reset", shape[1:]),
        resets,
    )
    if axis is not None:
        arrays = unify_types(arrays, -1)
    h = _scan(Way(method, reverse, contracting, axis), *arrays)
    return h if isinstance(b, tuple) else h[0]  # type: ignore[return-value]


def linear_step(a: jax.Array | Complex, b: StateT, h: jax.Array | Complex) -> StateT:
    """One step, `a * h + b`, of real numbers or of pairs; shapes broadcast."""
    new = _affine(_as_number("a", a), _as_number("h", h), _as_number("b", b))
    return new if isinstance(b, tuple) else new[0]  # type: ignore[return-value]


def by_method(function: Callable[..., Any], method: str, *args: Any, on_cpu: str = AUTO[0]) -> Any:
    """`function(method, *args)`; the platform a program is lowered for decides what "auto" is."""
    if method != "auto":
        return function(method, *args)
    cpu, others = (functools.partial(function, method) for method in (on_cpu, AUTO[1]))
    return on_cpu_or_else(cpu, others, *args)


def _on_cpu(states: Number) -> str:
    """What "auto" is on a CPU for states `[T, *state]`."""
    state = states[0].shape[1:]
    large = all(map(is_known, state)) and math.prod(state) >= FUSED_FROM
    return "fused" if large else AUTO[0]


class Way(NamedTuple):
    """How a recurrence is run: `linear_scan` has the meaning of each."""

    method: str
    reverse: bool
    contracting: bool
    axis: str | None = None  # of a mesh, along which time is cut


# Below, a, b, dh, lam and h are `[T, *state]`, where a may have axes of size 1. h0, h_reset and
# zero are `[*state]`, and resets `[T, *leading]`.
Flags = jax.Array | None
# a, all states, the first state, the state after a reset and the resets.
Residuals = tuple[Number, Number, Number, Number | None, Flags]


BY_NAME: dict[str, Callable[..., Number]] = {**RUN, "fused": linear_fused.run}


def _run(way: Way, a: Number, b: Number, h0: Number, h_reset: Number | None, resets: Flags) -> Any:
    if is_zero(b[0].shape[0]):
        return b
    arithmetic = PLAIN if way.contracting else WIDE
    if way.axis is not None:
        h0 = _enter(way.axis, a, b, h0, h_reset, resets, way.reverse, arithmetic)

    def run(method: str, *args: Any) -> Number:
        return BY_NAME[method](*args, way.reverse, arithmetic)

    return by_method(run, way.method, a, b, h0, h_reset, resets, on_cpu=_on_cpu(b))


def _scan_forward(
    way: Way, a: Number, b: Number, h0: Number, h_reset: Number | None, resets: Flags
) -> tuple[Any, Any]:
    h = _scan(way, a, b, h0, h_reset, resets)
    return h, (a, h, h0, h_reset, resets)


def _scan_tangent(way: Way, residuals: Residuals, tangents: tuple[Any, ...]) -> Any:
    a, h, h0, h_reset, resets = residuals
    da, db, dh0, dh_reset, _ = tangents
    if not is_zero(h[0].shape[0]):
        h_prev = _states_before(h, _edge(way, h, h0), h_reset, resets, way.reverse)
        db = _plus(db, _product(da, h_prev, way.contracting))
    return _scan(way, a, db, dh0, dh_reset, resets)


def _scan_backward(way: Way, residuals: Residuals, dh: Number) -> tuple[Any, ...]:
    a, h, h0, h_reset, resets = residuals
    if is_zero(h[0].shape[0]):
        return *jax.tree.map(zeros_like, (a, h, h0, h_reset)), None
    pull = functools.partial(_pull, way)
    da, lam, dh0, dh_reset = by_method(pull, way.method, dh, *residuals, on_cpu=_on_cpu(dh))
    return da, lam, dh0, None if resets is None else dh_reset, None


_scan = custom_derivative(_run, _scan_forward, _scan_tangent, _scan_backward)


def _pull(
    way: Way,
    method: str,
    dh: Number,
    a: Number,
    h: Number,
    h0: Number,
    h_reset: Number | None,
    resets: Flags,
) -> tuple[Number, Number, Number, Any]:
    """The gradients of `a`, `b`, `h0` and, with resets, `h_reset`."""
    h0 = _edge(way, h, h0)
    if method == "fused" and way.axis is None:
        states = dh, a, h, h0, h_reset, resets
        by_scan = functools.partial(_pull, way, "scan")
        return linear_fused.pull(*states, way.reverse, way.contracting, by_scan)
    way = way._replace(method=method)
    lam, dh0, dh_reset = _adjoint(way, a, dh, _zeros(h0), resets)
    if method == "scan" and a[0].shape != h[0].shape:
        da = _decay_gradient_by_steps(way, a, lam, h, h0, h_reset, resets)
    else:
        h_prev = _states_before(h, h0, h_reset, resets, way.reverse)
        da = _reduce(_product(lam, _conj(h_prev), way.contracting), a)
    return da, lam, dh0, dh_reset


def _adjoint(
    way: Way, a: Number, dh: Number, zero: Number, resets: Flags
) -> tuple[Number, Number, Any]:
    """`lam[t] = dh[t] + conj(a[t+1]) * lam[t+1]`, without the last term if t+1 is a reset.

    Returns:
        `lam`, and the gradients of the first state and of the state after a reset.
    """
    by_rows = way.method == "scan" and is_known(dh[0].shape[0]) and way.axis is None
    run = _adjoint_sequential if by_rows else _adjoint_parallel
    # From here on `a` is conjugated, and `reverse` is the direction of lam.
    return run(way._replace(reverse=not way.reverse), _conj(a), dh, zero, resets)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _adjoint_sequential(
    way: Way, a: Number, dh: Number, zero: Number, resets: Flags
) -> tuple[Number, Number, Any]:
    decay_at, order = _rows(a, dh[0].shape[0]), _order(dh, way.reverse)

    def pull_step(state: tuple[Number, Any], t: Any) -> tuple[Number, Any]:
        """What reaches the state before step t, and all that reached the states after resets."""
        lam, to_reset = state
        product = _times(decay_at(t), lam)
        if resets is None:
            return product, to_reset
        reset = _row(resets, t)
        to_reset = _plus(to_reset, select(reset, product, zero))
        return select(reset, zero, product), to_reset

    def body(state: tuple[Number, Any], t: Any) -> tuple[tuple[Number, Any], Number]:
        product, to_reset = pull_step(state, t - order.step)
        lam = _plus(product, _row(dh, t))
        return (lam, to_reset), lam

    # Nothing comes after the last step, whose lam is dh.
    state = _row(dh, order[0]), None if resets is None else zero
    state, lam = _over_steps(body, state, _fill(dh, order[0]), order[1:])
    return lam, *pull_step(state, order[-1])


@_adjoint_sequential.defjvp
def _(way: Way, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """As if it had been written with `_scan`, whose derivative is known.

    The gradient that jax takes of a loop that reads a row of an array adds up arrays at each step.
    """
    *numbers, resets = primals
    parallel = functools.partial(_adjoint_parallel, way, resets=resets)
    return jax.jvp(parallel, tuple(numbers), tuple(tangents[:3]))


def _adjoint_parallel(
    way: Way, a: Number, dh: Number, zero: Number, resets: Flags
) -> tuple[Number, Number, Any]:
    reverse = way.reverse
    later, later_resets = a, None
    if _varies(a, dh[0].shape[0]):
        later = _before(a, _edge(way, a, _zeros(_at(a, 0))), reverse)
    if resets is not None:
        flags = (resets,)
        (later_resets,) = _before(flags, _edge(way, flags, (zeros_like(resets[0]),)), reverse)
    h_reset = None if resets is None else zero
    lam: Any = _scan(way, later, dh, zero, h_reset, later_resets)
    last = 0 if reverse else -1
    dh0, dh_reset = _times(_at(a, last), _at(lam, last)), None
    if resets is not None:
        dh0 = select(resets[last], zero, dh0)
        at_resets = select(resets, _times(a, lam), _zeros(lam))
        dh_reset = tuple(part.sum(0) for part in at_resets)
    if way.axis is not None:
        # The first state enters the first device alone, which is the last one here.
        index, count = place(way.axis, reverse)
        dh0 = select(index == count - 1, dh0, _zeros(dh0))
    return lam, dh0, dh_reset


def _decay_gradient_by_steps(
    way: Way,
    a: Number,
    lam: Number,
    h: Number,
    h0: Number,
    h_reset: Number | None,
    resets: Flags,
) -> Number:
    """`lam[t] * conj(h[t-1])` reduced to the shape of `a`, with no array of all steps in between.

    XLA:CPU would write out what it sums over a leading axis, and read it in strides.
    """
    varies = _varies(a, h[0].shape[0])
    like = _at(a, 0)

    def body(state: tuple[Number, Number], inputs: Any) -> tuple[Any, Any]:
        h_prev, total = state
        lam, h, reset = inputs  # of one step, `[*state]` and `[*leading]`
        if reset is not None:
            assert h_reset is not None
            h_prev = select(reset, h_reset, h_prev)
        da = _reduce(_product(lam, _conj(h_prev), way.contracting), like)
        return (h, total if varies else _plus(total, da)), da if varies else None

    begin = h0, _zeros(like)
    (_, total), das = jax.lax.scan(body, begin, (lam, h, resets), reverse=way.reverse)
    return das if varies else jax.tree.map(lambda x: x[None], total)


def _edge(way: Way, x: Number, first: Number) -> Number:
    """What stands before the first step of `x`: `first`, or the last step of the device before."""
    if way.axis is None:
        return first
    return before(way.axis, _at(x, 0 if way.reverse else -1), first, way.reverse)


def _states_before(h: Number, h0: Number, h_reset: Any, resets: Any, reverse: bool) -> Number:
    """The state that each step begins with."""
    before = _before(h, h0, reverse)
    return before if resets is None else select(resets, h_reset, before)
