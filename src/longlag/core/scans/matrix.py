"""The recurrence of a matrix state, chunk by chunk in matrix products.

    S[t] = diag(exp g[t]) S[t-1] + k[t] w[t]ᵀ          g[t] ≤ 0, for a head or for each of its keys
    w[t] = v[t]                                        without a rate
    w[t] = β[t] (v[t] - (diag(exp g[t]) S[t-1])ᵀ k[t])    with a rate: the delta rule
    y[t] = S[t]ᵀ q[t]

This one recurrence is linear attention, retention, gated linear attention, the mLSTM, DeltaNet and
gated DeltaNet. A state of K x V numbers for every step would be too much to write, so the steps of
a chunk meet each other in products `[C, C]`, and only the state before each chunk is kept. That
holds for the method "chunked". The gradient of "scan" is JAX's, and keeps the state of every step.

Within a chunk `D[t, s] = g[s+1] + .. + g[t]`, and the pairs `Σ_k q[t] k[s] exp D[t, s]` with s ≤ t
take w to y. With a rate, w solves a triangular system, all chunks at once,

    w[t] + β[t] Σ_{s<t} (Σ_k k[t] k[s] exp D[t, s]) w[s] = β[t] (v[t] - what entered)

(Yang et al. 2024, arXiv 2406.06484; with decay 2412.06464).
A reset cuts a chunk in segments: steps meet within their segment alone, and those after a reset see
the state after a reset in place of the one that entered.

A decay of zero has the logarithm -inf. The chunked form adds logarithms up in products with zeros
and ones, so it takes a finite number in its place whose exponential is zero too.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from longlag.core.any_length import is_known
from longlag.core.array_types import (
    MatrixState,
    MatrixStates,
    ScanKeys,
    ScanQueries,
    ScanResets,
    ScanValues,
)
from longlag.core.checks import as_array
from longlag.core.over_devices import time_axis
from longlag.core.placement import shard_like, unify_types, use_mesh
from longlag.core.platforms import on_cpu_or_else
from longlag.core.promotion import at_least_float32
from longlag.core.scans.matrix_methods import matrix_step, run_chunked, run_sequential
from longlag.core.spec import choose, take

__all__ = ["METHODS", "matrix_scan", "matrix_step"]

METHODS = ("auto", "scan", "chunked")

# On CPU small products are slow, and one step after another is faster for a state of up to so many
# numbers: by hand, at 8 x 8 always, and at 16 x 16 with a rate or with a decay for each key.
SMALL, SMALL_BY_STEPS = 64, 256


@use_mesh
def matrix_scan(
    q: ScanQueries,
    k: ScanKeys,
    v: ScanValues,
    S0: MatrixState,
    *,
    log_decay: jax.Array | None = None,
    rate: jax.Array | None = None,
    resets: ScanResets | None = None,
    S_reset: jax.Array | None = None,
    method: Literal["auto", "scan", "chunked"] = "auto",
    reverse: bool = False,
    every_state: bool = False,
) -> tuple[MatrixState | MatrixStates, ScanValues]:
    """Runs the recurrence of a matrix state over the leading axis, by steps or by chunks.

        S[t] = diag(exp g[t]) S[t-1] + k[t] w[t]ᵀ
        w[t] = v[t]                                           without a rate
        w[t] = β[t] (v[t] - (diag(exp g[t]) S[t-1])ᵀ k[t])    with a rate: the delta rule
        y[t] = S[t]ᵀ q[t]

    There is no derivative of our own: JAX differentiates the method that ran.

    Args:
        q: queries, `[T, *batch, K]`.
        k: keys, `[T, *batch, K]`.
        v: values, `[T, *batch, V]`.
        S0: the state before the first step, `[*batch, K, V]`.
        log_decay: g ≤ 0, broadcastable to `[T, *batch, K]`; -inf is a decay of zero. With a last
            axis of 1 a head has one decay, which costs less. None: no decay.
        rate: β, broadcastable to `[T, *batch]`: the delta rule. In [0, 1] the state keeps what it
            has about other keys; up to 2, with keys of length 1, it has negative eigenvalues
            (Grazzi et al. 2025, arXiv 2411.12537). None: no delta rule.
        resets: bool, `[T, *leading]`, a prefix of the batch axes. Where true, the state before the
            step becomes `S_reset`.
        S_reset: the state after a reset, broadcastable to `[*batch, K, V]`; zeros if None.
        method: "chunked" as above; "scan", one step after another; "auto": "chunked", but "scan"
            for a single step, where every state is asked for, and for small states in a program
            that is lowered for CPU. Always "scan" for a T that is symbolic (`jax.export`).
        reverse: from the last step to the first.
        every_state: returns the states after every step, `[T, *batch, K, V]`, not the last; "scan".

    Returns:
        The last state or all states, and the reads y, `[T, *batch, V]`, in at least float32. Over
        devices (`longlag.time_over_devices`) they are those of the device's own steps.

    Raises:
        ValueError: shapes that do not fit, numbers that are not real, resets that are not bool, an
            unknown method, or every state by "chunked".
    """
    choose(method, METHODS, "method")
    reverse = take("reverse", reverse, bool)
    q, k, v, S0, log_decay, rate, resets, S_reset = _check_arguments(
        q, k, v, S0, log_decay, rate, resets, S_reset
    )
    if every_state and method == "chunked":
        raise ValueError("matrix_scan: expected method 'scan' or 'auto' for every state")
    steps, batch = q.shape[0], q.shape[1:-1]
    dtype = at_least_float32(q, k, v, S0)
    q, k, v, S0 = (x.astype(dtype) for x in (q, k, v, S0))
    if log_decay is not None:
        keys = log_decay.shape[-1]
        log_decay = jnp.broadcast_to(log_decay, (steps, *batch, keys)).astype(dtype)
    if rate is not None:
        rate = jnp.broadcast_to(rate, (steps, *batch)).astype(dtype)
    if resets is not None:
        leading = resets.reshape(resets.shape + (1,) * (1 + len(batch) - resets.ndim))
        resets = jnp.broadcast_to(leading, (steps, *batch))
        S_reset = jnp.zeros(()) if S_reset is None else S_reset
        S_reset = shard_like(jnp.broadcast_to(S_reset, S0.shape).astype(dtype), S0)
    if steps == 0:
        return (jnp.zeros((0, *S0.shape), dtype) if every_state else S0), jnp.zeros(v.shape, dtype)
    axis = time_axis(q)
    arrays = (q, k, v, S0, log_decay, rate, resets, S_reset)
    if axis is not None:
        arrays = unify_types(arrays, -1)
    sequential = functools.partial(run_sequential, reverse, axis, every_state)
    run = functools.partial(run_chunked, reverse, axis)
    if method == "scan" or (method == "auto" and (every_state or steps == 1)):
        run = sequential
    elif method == "auto" and axis is None:
        per_key = log_decay is not None and log_decay.shape[-1] > 1
        most = SMALL_BY_STEPS if rate is not None or per_key else SMALL
        if q.shape[-1] * v.shape[-1] <= most:
            run = functools.partial(on_cpu_or_else, sequential, run)
    if not is_known(steps):
        run = sequential
    S, ys = run(*arrays)
    return S, ys


def _check_arguments(
    q: Any, k: Any, v: Any, S0: Any, log_decay: Any, rate: Any, resets: Any, S_reset: Any
) -> tuple[Any, ...]:
    """Returns the arguments as arrays, if they fit each other."""
    numbers = {"q": q, "k": k, "v": v, "S0": S0, "log_decay": log_decay, "rate": rate}
    arrays: dict[str, Any] = {
        name: None if x is None else as_array(f"matrix_scan: {name}", x)
        for name, x in (numbers | {"S_reset": S_reset}).items()
    }
    q, k, v, S0, log_decay, rate, S_reset = arrays.values()
    resets = None if resets is None else as_array("matrix_scan: resets", resets, "bools")
    if resets is None and S_reset is not None:
        raise ValueError("matrix_scan: S_reset was given without resets")
    leading, K, V = q.shape[:-1], q.shape[-1:], v.shape[-1:]
    state = (*leading[1:], *K, *V)

    def broadcasts(x: jax.Array | None, shape: tuple[int, ...]) -> bool:
        try:
            return x is None or jnp.broadcast_shapes(x.shape, shape) == shape
        except ValueError:
            return False

    fits = (
        q.ndim >= 2 and k.shape == q.shape and v.shape[:-1] == leading and S0.shape == state,
        broadcasts(log_decay, q.shape) and (log_decay is None or log_decay.ndim),
        broadcasts(rate, leading),
        broadcasts(S_reset, state),
        resets is None or (resets.ndim and resets.shape == leading[: resets.ndim]),
    )
    if not all(fits):
        arrays |= {"resets": resets}
        shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items() if x is not None)
        raise ValueError(
            "matrix_scan: expected q and k [T, *batch, K], v [T, *batch, V], S0 [*batch, K, V], "
            "log_decay, rate and S_reset that broadcast to [T, *batch, K], [T, *batch] and the "
            f"shape of S0, and resets [T, *leading of batch]; got {shapes}"
        )
    return q, k, v, S0, log_decay, rate, resets, S_reset
