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
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from longlag.any_length import associative_scan, is_known
from longlag.checks import as_array, is_zero
from longlag.derivative import custom_derivative
from longlag.placement import zeros_like
from longlag.platforms import on_cpu_or_else
from longlag.promotion import add, at_least_float32, multiply
from longlag.select import select
from longlag.spec import choose, take

__all__ = ["AUTO", "METHODS", "Method", "by_method", "linear_scan", "linear_step"]

Method = Literal["auto", "scan", "associative", "chunked"]
METHODS = ("auto", "scan", "associative", "chunked")

# What "auto" takes on CPU, and on every other platform. CPU: in
# benchmarks/results/linear_scan-cpu.json "scan" is the fastest at every shape and pass. Elsewhere
# nothing was measured by us; "associative" is what others found the fastest of these there.
AUTO = ("scan", "associative")

# Steps of a chunk of "chunked". Its tree costs about 30 transfers of 1 / CHUNK of the states, one
# transfer of all of them, and its two sweeps CHUNK steps each, however long the sequence is.
CHUNK = 32

Pair = tuple[jax.Array, jax.Array]
StateT = TypeVar("StateT", jax.Array, Pair)
Parts = tuple[Any, ...]


def linear_scan(
    a: jax.Array | Pair,
    b: StateT,
    h0: jax.Array | Pair,
    *,
    resets: jax.Array | None = None,
    h_reset: jax.Array | Pair | None = None,
    method: Method = "auto",
    reverse: bool = False,
    contracting: bool = False,
) -> StateT:
    """Runs `h[t] = a[t] * h[t-1] + b[t]` over the leading axis, elementwise.

    Complex numbers are pairs of real arrays `(re, im)` of one shape. If `b` is a pair, so is the
    result, and each of the other arguments may be a pair or real.

    The gradient is our own: it keeps `a` and `h` only, and is again one linear recurrence, run the
    other way: `lam[t] = dh[t] + conj(a[t+1]) * lam[t+1]`, `db = lam`,
    `da[t] = lam[t] * conj(h[t-1])`. Forward mode is one linear recurrence more. Both can be
    differentiated again. The gradient of a pair is the pair of the gradients of its parts.

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
            over the chunks in between: far less traffic than the tree alone), or "auto": "scan" in
            a program that is lowered for CPU and "associative" in any other. Only CPU was measured
            by us. Always "scan" for a T that is symbolic (`jax.export`).
        reverse: runs from the last step to the first; `h0` is then the state after the last step.
        contracting: a promise that no decay is larger than one, so that no product of decays
            overflows. "associative" and "chunked" then do less work. "scan" is the same program.

    Returns:
        All states, `[T, *state]`, in at least float32; a pair of them if `b` is a pair.

    Raises:
        ValueError: shapes that do not broadcast, a pair that is none or beside a real `b`, resets
            that are not bool, an unknown method.
    """
    choose(method, METHODS, "method")
    reverse = take("reverse", reverse, bool)
    if resets is None and h_reset is not None:
        raise ValueError("linear_scan: h_reset was given without resets")
    given = {"a": a, "b": b, "h0": h0, "h_reset": 0.0 if h_reset is None else h_reset}
    parts = {name: _parts(name, x) for name, x in given.items()}
    if len(parts["b"]) < max(map(len, parts.values())):
        raise ValueError("linear_scan: expected b as a pair (re, im), since others are; got real b")
    shapes = {name: jnp.shape(x[0]) for name, x in parts.items()}
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
    numbers = (parts["a"], parts["b"], parts["h0"])
    dtype = at_least_float32(*jax.tree.leaves(numbers))

    def full(name: str, shape: tuple[int, ...]) -> Parts:
        real, *imag = (jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x in parts[name])
        return (real, *(imag or [jnp.zeros_like(real)])) if len(parts["b"]) == 2 else (real,)

    axes = (1,) * (len(shape) - len(shapes["a"])) + shapes["a"]
    h = _scan(
        Way(method, reverse, contracting),
        tuple(jnp.reshape(x, axes).astype(dtype) for x in parts["a"]),
        full("b", shape),
        full("h0", shape[1:]),
        None if resets is None else full("h_reset", shape[1:]),
        resets,
    )
    return h if isinstance(b, tuple) else h[0]  # type: ignore[return-value]


def linear_step(a: jax.Array | Pair, b: StateT, h: jax.Array | Pair) -> StateT:
    """One step, `a * h + b`, of real numbers or of pairs; shapes broadcast."""
    new = _affine(_parts("a", a), _parts("h", h), _parts("b", b))
    return new if isinstance(b, tuple) else new[0]  # type: ignore[return-value]


def by_method(function: Callable[..., Any], method: str, *args: Any) -> Any:
    """`function(method, *args)`; the platform a program is lowered for decides what "auto" is."""
    if method != "auto":
        return function(method, *args)
    cpu, others = (functools.partial(function, method) for method in AUTO)
    return on_cpu_or_else(cpu, others, *args)


def _parts(name: str, x: Any) -> Parts:
    """A real array or a pair as a tuple of its parts."""
    if not isinstance(x, tuple):
        return (as_array(f"linear_scan: {name}", x),)
    x = tuple(as_array(f"linear_scan: {name}", part) for part in x)
    if len(x) != 2 or jnp.shape(x[0]) != jnp.shape(x[1]):
        shapes = ", ".join(str(jnp.shape(part)) for part in x)
        raise ValueError(
            f"linear_scan: expected {name} as an array or a pair (re, im) of one shape, "
            f"got a tuple of shapes {shapes}"
        )
    return x


def _times(x: Parts, y: Parts) -> Parts:
    if len(x) == 1:
        return tuple(multiply(x[0], part) for part in y)
    if len(y) == 1:
        return _times(y, x)
    real = multiply(x[0], y[0]) - multiply(x[1], y[1])
    return real, multiply(x[0], y[1]) + multiply(x[1], y[0])


def _plus(x: Parts, y: Parts) -> Parts:
    return tuple(add(p, q) for p, q in zip(x, y, strict=True))


def _affine(a: Parts, x: Parts, b: Parts) -> Parts:
    return _plus(_times(a, x), b)


def _conj(x: Parts) -> Parts:
    return (x[0], *(-part for part in x[1:]))


def _zeros(x: Parts) -> Parts:
    return tuple(map(zeros_like, x))


def _product(x: Parts, y: Parts, contracting: bool) -> Parts:
    """`x * y`; zero where y is, even where x has overflowed, as it may unless `contracting`."""
    product = _times(x, y)
    if contracting:
        return product
    nothing = functools.reduce(jnp.logical_and, [part == 0 for part in y])
    return tuple(jnp.where(nothing, 0, part) for part in product)


class Arithmetic(NamedTuple):
    """How the parallel methods calculate: from numbers, in numbers of their own kind, and back."""

    lift: Callable[[Parts], Any]
    times: Callable[[Any, Any], Any]
    affine: Callable[[Any, Any, Any], Any]  # a * x + b
    lower: Callable[[Any], Parts]


class Wide(NamedTuple):
    """A number `parts * 2 ** exponent` that neither overflows nor underflows.

    Attributes:
        parts: the larger of them is in [2, 4), or all are zero.
        exponent: int32, of the shape of a part.
    """

    parts: Parts
    exponent: jax.Array


# The exponent of zero: less than that of any product, and two of them still fit in an int32.
OF_ZERO = -(2**29)


def _normalised(parts: Parts, exponent: Any) -> Wide:
    size = functools.reduce(jnp.maximum, map(jnp.abs, parts))
    info, bias = _format(size)
    bits = jax.lax.bitcast_convert_type(size, f"int{info.bits}")
    # With parts in [2, 4) the factor is a normal number whatever they were: from 2^-126 to 2^127.
    shift = jnp.maximum(bits >> info.nmant, 1).astype(jnp.int32) - (bias + 1)
    exponent = jnp.where(size == 0, OF_ZERO, exponent + shift)
    return Wide(_scale(parts, -shift), exponent)


def _scale(parts: Parts, exponent: jax.Array) -> Parts:
    """`parts * 2 ** exponent`, where 2 ** exponent is at most a number of their dtype."""
    info, bias = _format(parts[0])
    # The bits of a factor that is too small are those of zero.
    bits = jnp.maximum(exponent + bias, 0).astype(f"int{info.bits}") << info.nmant
    factor = jax.lax.bitcast_convert_type(bits, parts[0].dtype)
    return tuple(part * factor for part in parts)


def _format(x: jax.Array) -> tuple[Any, int]:
    """Of a floating number: what numpy knows, and the bias of its exponent."""
    info = jnp.finfo(x.dtype)
    return info, 2 ** (info.nexp - 1) - 1


def _wide_times(x: Wide, y: Wide) -> Wide:
    return _normalised(_times(x.parts, y.parts), x.exponent + y.exponent)


def _wide_affine(a: Wide, x: Wide, b: Wide) -> Wide:
    product, exponent = _times(a.parts, x.parts), a.exponent + x.exponent
    top = jnp.maximum(exponent, b.exponent)
    both = _scale(product, exponent - top), _scale(b.parts, b.exponent - top)
    return _normalised(_plus(*both), top)


def _lower(x: Wide) -> Parts:
    """As numbers of the dtype, infinite or zero where they are out of its range."""
    _, bias = _format(x.parts[0])
    exponent = jnp.clip(x.exponent, -2 * bias, 2 * bias)
    # In two factors, since the parts are not as small or large as the number may be.
    half = exponent >> 1
    return _scale(_scale(x.parts, half), exponent - half)


def _varies(a: Parts, steps: int) -> bool:
    return a[0].shape[0] == steps


def _step(h: Parts, a: Parts, b: Parts, h_reset: Any, reset: Any) -> Parts:
    if reset is not None:
        h = select(reset, h_reset, h)
    return _affine(a, h, b)


PLAIN = Arithmetic(lambda x: x, _times, _affine, lambda x: x)
WIDE = Arithmetic(lambda x: _normalised(x, 0), _wide_times, _wide_affine, _lower)


def _sequential(a, b, h0, h_reset, resets, reverse, _):
    """One step after another."""
    if not is_known(b[0].shape[0]):
        return _any_length(a, b, h0, h_reset, resets, reverse)
    a = _rows(a, b[0].shape[0])

    def body(h, t):
        h = _step(h, a(t), _row(b, t), h_reset, _row(resets, t))
        return h, h

    order = _order(b, reverse)
    return _over_steps(body, h0, _filled(b, order[0]), order)[1]


def _any_length(a, b, h0, h_reset, resets, reverse):
    """One step after another, where the number of steps is not known."""
    varies = _varies(a, b[0].shape[0])

    def body(h, inputs):
        decay, b, reset = inputs
        h = _step(h, decay if varies else _at(a, 0), b, h_reset, reset)
        return h, h

    return jax.lax.scan(body, h0, (a if varies else None, b, resets), reverse=reverse)[1]


def _over_steps(body, state, outputs, order):
    """`jax.lax.scan` over steps, whose outputs take the place of what is in some arrays.

    XLA:CPU fills what a scan puts out before the loop writes it: with zeros, which are one array
    for all scans of a program that have this shape, and then a copy for each. An array that is
    filled with a row of the data (`_filled`) is no other scan's.

    Args:
        body: from the state and t to the state and the outputs of step t.
        state: before the first of these steps.
        outputs: a tree of `[T, ...]`, whose rows at these steps are replaced.
        order: the steps, a range.

    Returns:
        The state after the last of the steps, and the outputs.
    """

    def one(i, carry):
        state, outputs = carry
        t = order.start + order.step * i
        put = functools.partial(
            jax.lax.dynamic_update_index_in_dim, index=t, axis=0, allow_negative_indices=False
        )
        state, new = body(state, t)
        return state, jax.tree.map(put, outputs, new)

    return jax.lax.fori_loop(0, len(order), one, (state, outputs))


def _order(x: Parts, reverse: bool) -> range:
    """The steps of a sequence `[T, ...]` in the direction of the recurrence."""
    steps = range(x[0].shape[0])
    return steps[::-1] if reverse else steps


def _row(x: Any, t: Any) -> Any:
    """Step t of a tree of `[T, ...]`; t may be traced."""
    at = functools.partial(
        jax.lax.dynamic_index_in_dim, index=t, keepdims=False, allow_negative_indices=False
    )
    return jax.tree.map(at, x)


def _rows(a: Parts, steps: int) -> Any:
    """The decay at step t; one that does not change with time is read once."""
    always = _row(a, 0)
    return (lambda t: _row(a, t)) if _varies(a, steps) else lambda t: always


def _filled(x: Parts, t: int) -> Parts:
    """Arrays of the shape of `x`, each row of which is step t of it."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[t], x.shape), x)


def _associative(a, b, h0, h_reset, resets, reverse, how):
    if not _varies(a, b[0].shape[0]):
        a = jax.tree.map(lambda x: jnp.broadcast_to(x, (b[0].shape[0], *x.shape[1:])), a)
    if resets is not None:
        b = select(resets, _affine(a, h_reset, b), b)
    return _tree(how.lift(a), how.lift(b), how.lift(h0), resets, reverse, how)


def _tree(a, b, h0, anew, reverse, how):
    """The states of the recurrence, where an element that is `anew` forgets all before it.

    `a`, `b` and `h0` are numbers of the kind that `how` calculates in. What an element forgets is
    dropped by a selection, so that neither zero times NaN nor an overflow can come through.
    Products of `a` across such an element are wrong, and never used.
    """

    def combine(left, right):
        forgets = right[2]
        b = how.affine(right[0], left[1], right[1])
        if forgets is None:
            return how.times(right[0], left[0]), b, None
        b = select(forgets, right[1], b)
        return how.times(right[0], left[0]), b, forgets | left[2]

    a, b, anew = associative_scan(combine, (a, b, anew), reverse=reverse)
    h = how.affine(a, jax.tree.map(lambda x: x[None], h0), b)
    return how.lower(h if anew is None else select(anew, b, h))


def _chunked(a, b, h0, h_reset, resets, reverse, how):
    """All chunks side by side, one step of each at a time.

    A first sweep finds what each chunk makes of the state that enters it: the product of its
    decays and its last state after zeros. A tree over the chunks gives the states that enter, and
    a second sweep begins with these. The first sweep writes nothing for each step, so all is five
    transfers and the tree over one of `CHUNK` states. Correcting the states of a single sweep
    would read and write the products of the decays at each step as well: seven. Many chunks and
    few steps keep an accelerator full, whose cost of one more step is that of starting a kernel.
    """
    steps = b[0].shape[0]
    length = min(CHUNK, steps)
    varies = _varies(a, steps)
    missing = -steps % length

    def cut(x):
        # The steps that fill up the last chunk come after all others, and nobody sees them.
        if missing:
            x = jnp.pad(x, [(missing, 0) if reverse else (0, missing)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(x.shape[0] // length, length, *x.shape[1:])

    inputs = jax.tree.map(cut, (a if varies else None, b, resets))
    always = jax.tree.map(lambda x: x[0], a)

    def at(i):
        """Which step of each chunk is the i-th, and its inputs, `[chunks, ...]`."""
        step = length - 1 - i if reverse else i
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=step, axis=1, keepdims=False)
        a, b, reset = jax.tree.map(take, inputs)
        return step, a if varies else always, b, reset

    def first(i, state):
        product, h, anew = state
        _, a, b, reset = at(i)
        if reset is not None:
            h, anew = select(reset, how.lift(h_reset), h), anew | reset
        a = how.lift(a)
        return how.times(a, product), how.affine(a, h, how.lift(b)), anew

    def second(i, state):
        h, hs = state
        step, a, b, reset = at(i)
        h = _step(h, a, b, h_reset, reset)
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=1)
        return h, jax.tree.map(write, hs, h)

    decay, blank, reset = jax.tree.map(zeros_like, at(0)[1:])
    if not varies:
        decay = jax.tree.map(lambda x: jnp.broadcast_to(x, (blank[0].shape[0], *x.shape)), decay)
    one = (decay[0] + 1, *decay[1:])
    begin = how.lift(one), how.lift(blank), reset
    product, last, anew = jax.lax.fori_loop(0, length, first, begin)
    last = _tree(product, last, how.lift(h0), anew, reverse, how)
    enters = _before(last, h0, reverse)
    hs = _zeros(inputs[1])
    _, hs = jax.lax.fori_loop(0, length, second, (enters, hs))
    keep = slice(missing, None) if reverse else slice(steps)
    return jax.tree.map(lambda x: x.reshape(steps + missing, *x.shape[2:])[keep], hs)


RUN = {"scan": _sequential, "associative": _associative, "chunked": _chunked}


class Way(NamedTuple):
    """How a recurrence is run: `linear_scan` has the meaning of each."""

    method: str
    reverse: bool
    contracting: bool


def _run(way, a, b, h0, h_reset, resets):
    if is_zero(b[0].shape[0]):
        return b

    def run(method, *args):
        return RUN[method](*args, way.reverse, PLAIN if way.contracting else WIDE)

    return by_method(run, way.method, a, b, h0, h_reset, resets)


def _scan_forward(way, a, b, h0, h_reset, resets):
    h = _scan(way, a, b, h0, h_reset, resets)
    return h, (a, h, h0, h_reset, resets)


def _scan_tangent(way, residuals, tangents):
    a, h, h0, h_reset, resets = residuals
    da, db, dh0, dh_reset, _ = tangents
    if not is_zero(h[0].shape[0]):
        seen = _seen(h, h0, h_reset, resets, way.reverse)
        db = _plus(db, _product(da, seen, way.contracting))
    return _scan(way, a, db, dh0, dh_reset, resets)


def _scan_backward(way, residuals, dh):
    a, h, h0, h_reset, resets = residuals
    if is_zero(h[0].shape[0]):
        return *jax.tree.map(zeros_like, (a, h, h0, h_reset)), None
    pull = functools.partial(_pull, way)
    da, lam, dh0, dh_reset = by_method(pull, way.method, dh, *residuals)
    return da, lam, dh0, None if resets is None else dh_reset, None


_scan = custom_derivative(_run, _scan_forward, _scan_tangent, _scan_backward)


def _pull(way, method, dh, a, h, h0, h_reset, resets):
    """The gradients of `a`, `b`, `h0` and, with resets, `h_reset`."""
    way = way._replace(method=method)
    lam, dh0, dh_reset = _adjoint(way, a, dh, _zeros(h0), resets)
    if method == "scan" and a[0].shape != h[0].shape:
        da = _decay_gradient_by_steps(way, a, lam, h, h0, h_reset, resets)
    else:
        h_prev = _before(h, h0, way.reverse)
        if resets is not None:
            h_prev = select(resets, h_reset, h_prev)
        da = _reduce(_product(lam, _conj(h_prev), way.contracting), a)
    return da, lam, dh0, dh_reset


def _adjoint(way, a, dh, zero, resets) -> tuple[Parts, Parts, Any]:
    """`lam[t] = dh[t] + conj(a[t+1]) * lam[t+1]`, without the last term if t+1 is a reset.

    Returns:
        `lam`, and the gradients of the first state and of the state after a reset.
    """
    by_rows = way.method == "scan" and is_known(dh[0].shape[0])
    run = _adjoint_sequential if by_rows else _adjoint_parallel
    return run(way._replace(reverse=not way.reverse), _conj(a), dh, zero, resets)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _adjoint_sequential(way, a, dh, zero, resets):
    a, order = _rows(a, dh[0].shape[0]), _order(dh, way.reverse)

    def before(state, t):
        """What reaches the state before step t, and all that reached the states after resets."""
        lam, to_reset = state
        product = _times(a(t), lam)
        if resets is None:
            return product, to_reset
        reset = _row(resets, t)
        to_reset = _plus(to_reset, select(reset, product, zero))
        return select(reset, zero, product), to_reset

    def body(state, t):
        product, to_reset = before(state, t - order.step)
        lam = _plus(product, _row(dh, t))
        return (lam, to_reset), lam

    # Nothing comes after the last step, whose lam is dh.
    state = _row(dh, order[0]), None if resets is None else zero
    state, lam = _over_steps(body, state, _filled(dh, order[0]), order[1:])
    return lam, *before(state, order[-1])


@_adjoint_sequential.defjvp
def _(way, primals, tangents):
    """As if it had been written with `_scan`, whose derivative is known.

    The gradient that jax takes of a loop that reads a row of an array adds up arrays at each step.
    """
    *given, resets = primals
    again = functools.partial(_adjoint_parallel, way, resets=resets)
    return jax.jvp(again, tuple(given), tuple(tangents[:3]))


def _adjoint_parallel(way, a, dh, zero, resets):
    reverse = way.reverse
    later, later_resets = a, None
    if _varies(a, dh[0].shape[0]):
        later = _before(a, _zeros(_at(a, 0)), reverse)
    if resets is not None:
        (later_resets,) = _before((resets,), (zeros_like(resets[0]),), reverse)
    h_reset = None if resets is None else zero
    lam: Any = _scan(way, later, dh, zero, h_reset, later_resets)
    last = 0 if reverse else -1
    dh0, dh_reset = _times(_at(a, last), _at(lam, last)), None
    if resets is not None:
        dh0 = select(resets[last], zero, dh0)
        at_resets = select(resets, _times(a, lam), _zeros(lam))
        dh_reset = tuple(part.sum(0) for part in at_resets)
    return lam, dh0, dh_reset


def _decay_gradient_by_steps(way, a, lam, h, h0, h_reset, resets):
    """`lam[t] * conj(h[t-1])` reduced to the shape of `a`, with no array of all steps in between.

    XLA:CPU would write out what it sums over a leading axis, and read it in strides.
    """
    varies = _varies(a, h[0].shape[0])
    like = _at(a, 0)

    def body(state, inputs):
        h_prev, total = state
        lam, h, reset = inputs
        if reset is not None:
            h_prev = select(reset, h_reset, h_prev)
        da = _reduce(_product(lam, _conj(h_prev), way.contracting), like)
        return (h, total if varies else _plus(total, da)), da if varies else None

    begin = h0, _zeros(like)
    (_, total), each = jax.lax.scan(body, begin, (lam, h, resets), reverse=way.reverse)
    return each if varies else jax.tree.map(lambda x: x[None], total)


def _at(x: Parts, t: int) -> Parts:
    return tuple(part[t] for part in x)


def _before(h: Parts, h0: Parts, reverse: bool) -> Parts:
    """What stood before each step, in the direction of the recurrence; `h0` before the first."""
    order = (lambda x, x0: (x[1:], x0[None])) if reverse else (lambda x, x0: (x0[None], x[:-1]))
    return tuple(jnp.concatenate(order(x, x0)) for x, x0 in zip(h, h0, strict=True))


def _seen(h: Parts, h0: Parts, h_reset: Any, resets: Any, reverse: bool) -> Parts:
    """The state that each step begins with."""
    before = _before(h, h0, reverse)
    return before if resets is None else select(resets, h_reset, before)


def _reduce(x: Parts, like: Parts) -> Parts:
    """Sums the axes along which `like` was broadcast; a real `like` takes the real part."""
    axes = tuple(i for i, n in enumerate(like[0].shape) if n != x[0].shape[i])
    return tuple(part.sum(axes, keepdims=True) for part, _ in zip(x, like))
