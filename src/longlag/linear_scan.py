"""The linear recurrence `h[t] = a[t] * h[t-1] + b[t]`: one gradient, several methods."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from longlag.select import select
from longlag.spec import choose

__all__ = ["METHODS", "Method", "linear_scan"]

Method = Literal["auto", "scan", "associative"]
METHODS = ("auto", "scan", "associative")


def linear_scan(
    a: jax.Array,
    b: jax.Array,
    h0: jax.Array,
    *,
    resets: jax.Array | None = None,
    h_reset: jax.Array | None = None,
    method: Method = "auto",
    reverse: bool = False,
) -> jax.Array:
    """Runs `h[t] = a[t] * h[t-1] + b[t]` over the leading axis, elementwise.

    The gradient is our own: it keeps `a` and `h` only, and is again one linear recurrence, run the
    other way: `lam[t] = dh[t] + a[t+1] * lam[t+1]`, `db = lam`, `da[t] = lam[t] * h[t-1]`. It can
    be differentiated again in reverse mode; `jax.jvp` through it is not defined.

    Args:
        a: decay, `[T, *state]` or anything that broadcasts to it.
        b: input, `[T, *state]` or anything that broadcasts to it.
        h0: the state before the first step, `[*state]` or anything that broadcasts to it.
        resets: bool, `[T, *leading]` with `leading` a prefix of `state`. Where true, the state
            before the step becomes `h_reset`. It is selected, never multiplied, so a NaN in the
            forgotten state reaches neither values nor gradients.
        h_reset: the state after a reset, broadcastable to `[*state]`; zeros if None.
        method: "scan" (one step after another), "associative" (parallel in time, `log2(T)` levels),
            or "auto": "scan" on CPU, where the tree is 3.6 to 5 times slower forward
            (shared/performance.md, section 4), and "associative" elsewhere.
        reverse: runs from the last step to the first; `h0` is then the state after the last step.

    Returns:
        All states, `[T, *state]`, in at least float32.

    Raises:
        ValueError: shapes that do not broadcast, resets that are not bool, an unknown method.
    """
    choose(method, METHODS, "method")
    dtype = jnp.promote_types(jnp.result_type(a, b, h0), jnp.float32)
    if jnp.ndim(b) == 0 or jnp.ndim(a) == 0:
        raise ValueError("linear_scan: expected a and b with a leading time axis, got a scalar")
    if resets is None and h_reset is not None:
        raise ValueError("linear_scan: h_reset was given without resets")
    h_reset = jnp.zeros(()) if h_reset is None else h_reset
    try:
        shape = jnp.broadcast_shapes(
            a.shape, b.shape, (1, *jnp.shape(h0)), (1, *jnp.shape(h_reset))
        )
    except ValueError as error:
        raise ValueError(
            "linear_scan: expected a, b [T, *state] and h0, h_reset [*state] that broadcast "
            f"together, got a {a.shape}, b {b.shape}, h0 {jnp.shape(h0)}, "
            f"h_reset {jnp.shape(h_reset)}"
        ) from error
    if resets is not None and (resets.dtype != bool or resets.shape != shape[: resets.ndim]):
        raise ValueError(
            f"linear_scan: expected resets bool of a shape that begins {shape}, "
            f"got {resets.dtype} {resets.shape}"
        )
    if method == "auto":
        method = "scan" if jax.default_backend() == "cpu" else "associative"
    return _scan(
        method,
        reverse,
        jnp.broadcast_to(a, shape).astype(dtype),
        jnp.broadcast_to(b, shape).astype(dtype),
        jnp.broadcast_to(h0, shape[1:]).astype(dtype),
        None if resets is None else jnp.broadcast_to(h_reset, shape[1:]).astype(dtype),
        resets,
    )


def _sequential(a, b, h0, h_reset, resets, reverse):
    def body(h, inputs):
        a, b, reset = inputs
        if reset is not None:
            h = select(reset, h_reset, h)
        h = a * h + b
        return h, h

    return jax.lax.scan(body, h0, (a, b, resets), reverse=reverse)[1]


def _associative(a, b, h0, h_reset, resets, reverse):
    if resets is None:

        def combine(left, right):
            return right[0] * left[0], right[0] * left[1] + right[1]

        a, b = jax.lax.associative_scan(combine, (a, b), reverse=reverse)
        return a * h0 + b

    # An element that begins anew absorbs the reset state into b; what lies before it is then
    # dropped by a selection, so that neither zero times NaN nor an overflow can come through.
    b = select(resets, a * h_reset + b, b)

    def combine_with_resets(left, right):
        anew = right[2]
        return (
            select(anew, right[0], right[0] * left[0]),
            select(anew, right[1], right[0] * left[1] + right[1]),
            anew | left[2],
        )

    a, b, anew = jax.lax.associative_scan(combine_with_resets, (a, b, resets), reverse=reverse)
    return select(anew, b, a * h0 + b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(method, reverse, a, b, h0, h_reset, resets):
    run = _sequential if method == "scan" else _associative
    return run(a, b, h0, h_reset, resets, reverse)


def _scan_forward(method, reverse, a, b, h0, h_reset, resets):
    h = _scan(method, reverse, a, b, h0, h_reset, resets)
    return h, (a, h, h0, h_reset, resets)


def _scan_backward(method, reverse, residuals, dh):
    a, h, h0, h_reset, resets = residuals
    if a.shape[0] == 0:
        nothing = jax.tree.map(jnp.zeros_like, (a, a, h0, h_reset))
        return (*nothing, _no_gradient(resets))

    def later(x: jax.Array, last: Any) -> jax.Array:
        """The array at the step that follows in the direction of the recurrence."""
        last = jnp.broadcast_to(jnp.asarray(last, x.dtype), x[:1].shape)
        parts = (last, x[:-1]) if reverse else (x[1:], last)
        return jnp.concatenate(parts)

    next_resets = None if resets is None else later(resets, False)
    zero = jnp.zeros_like(h0)
    lam: jax.Array = _scan(  # type: ignore[assignment]
        method,
        not reverse,
        later(a, 0.0),
        dh,
        zero,
        None if resets is None else zero,
        next_resets,
    )
    before = (h[1:], h0[None]) if reverse else (h0[None], h[:-1])
    h_prev = jnp.concatenate(before)
    first = -1 if reverse else 0
    dh0 = a[first] * lam[first]
    dh_reset = None
    if resets is not None:
        h_prev = select(resets, h_reset, h_prev)
        dh0 = select(resets[first], zero, dh0)
        dh_reset = select(resets, a * lam, jnp.zeros_like(a)).sum(0)
    return lam * h_prev, lam, dh0, dh_reset, _no_gradient(resets)


def _no_gradient(resets):
    return None if resets is None else np.zeros(resets.shape, jax.dtypes.float0)


_scan.defvjp(_scan_forward, _scan_backward)
