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
and ones, so it takes a finite number in its place whose exponential is zero too (`_make_finite`).
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.any_length import associative_scan, is_known
from longlag.core.array_types import (
    MatrixState,
    MatrixStates,
    ScanKeys,
    ScanQueries,
    ScanResets,
    ScanValues,
)
from longlag.core.checks import as_array
from longlag.core.placement import use_mesh, zeros_like
from longlag.core.platforms import on_cpu_or_else
from longlag.core.promotion import at_least_float32, match_rank, multiply
from longlag.core.selection import select
from longlag.core.spec import choose, take

__all__ = ["METHODS", "matrix_scan", "matrix_step"]

METHODS = ("auto", "scan", "chunked")

# Steps of a chunk. Work per step grows with the chunk, the number of states with its inverse. One
# decay for each key leaves no matrix product for the pairs, but C² K products a chunk. By hand, on
# CPU, 32 was the fastest of 16, 32 and 64 from K = V = 16 to 64.
CHUNK, CHUNK_PER_KEY = 32, 16
# On CPU small products are slow, and one step after another is faster for a state of up to so many
# numbers: by hand, at 8 x 8 always, and at 16 x 16 with a rate or with a decay for each key.
SMALL, SMALL_BY_STEPS = 64, 256

# Decays are added up by products with zeros and ones: these must not be rounded to bfloat16 or
# TF32.
EXACT = jax.lax.Precision.HIGHEST


def matrix_step(
    S: jax.Array,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array | None = None,
    rate: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """One step of the recurrence above.

    Args:
        S: `[*batch, K, V]`.
        q: `[*batch, K]`.
        k: `[*batch, K]`.
        v: `[*batch, V]`.
        log_decay: g, broadcastable to `[*batch, K]`; None: no decay.
        rate: β, broadcastable to `[*batch]`; None: the value is added as it is.

    Returns:
        The new state, and `Sᵀ q`, `[*batch, V]`.
    """
    if log_decay is not None:
        S = multiply(jnp.exp(log_decay)[..., None], S)
    if rate is not None:
        v = rate[..., None] * (v - jnp.einsum("...kv,...k->...v", S, k))
    S = S + k[..., None] * v[..., None, :]
    return S, jnp.einsum("...kv,...k->...v", S, q)


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
    """Runs the recurrence above over the leading axis.

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
        The last state or all states, and the reads y, `[T, *batch, V]`, in at least float32.

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
        S_reset = jnp.broadcast_to(S_reset, S0.shape).astype(dtype)
    if steps == 0:
        return (jnp.zeros((0, *S0.shape), dtype) if every_state else S0), jnp.zeros(v.shape, dtype)
    sequential = functools.partial(_run_sequential, reverse, every_state)
    run = functools.partial(_run_chunked, reverse)
    if method == "scan" or (method == "auto" and (every_state or steps == 1)):
        run = sequential
    elif method == "auto":
        per_key = log_decay is not None and log_decay.shape[-1] > 1
        most = SMALL_BY_STEPS if rate is not None or per_key else SMALL
        if q.shape[-1] * v.shape[-1] <= most:
            run = functools.partial(on_cpu_or_else, sequential, run)
    if not is_known(steps):
        run = sequential
    S, ys = run(q, k, v, S0, log_decay, rate, resets, S_reset)
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


# Both return the last state or every one, and the reads `[T, *batch, V]`.


def _run_sequential(
    reverse: bool,
    every_state: bool,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    S0: jax.Array,
    log_decay: jax.Array | None,
    rate: jax.Array | None,
    resets: jax.Array | None,
    S_reset: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    def take_step(S: jax.Array, inputs: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        # S `[*batch, K, V]`; the inputs are of one step.
        *inputs, reset = inputs
        if reset is not None:
            assert S_reset is not None
            S = select(reset, S_reset, S)
        S, y = matrix_step(S, *inputs)
        return S, (S if every_state else None, y)

    inputs = (q, k, v, log_decay, rate, resets)
    S, (every, ys) = jax.lax.scan(take_step, S0, inputs, reverse=reverse)
    return (every if every_state else S), ys


def _run_chunked(
    reverse: bool,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    S0: jax.Array,
    log_decay: jax.Array | None,
    rate: jax.Array | None,
    resets: jax.Array | None,
    S_reset: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    steps = q.shape[0]
    per_key = log_decay is not None and log_decay.shape[-1] > 1
    length = min(CHUNK_PER_KEY if per_key else CHUNK, steps)
    missing = -steps % length

    def cut(x: jax.Array) -> jax.Array:
        """`[T, *batch, ...]` to `[chunks, *batch, C, ...]`; the last is filled with idle steps."""
        x = jnp.flip(x, 0) if reverse else x
        # An idle step has a key of zero and no decay, so that it leaves the state as it is.
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        x = x.reshape(x.shape[0] // length, length, *x.shape[1:])
        return jnp.moveaxis(x, 1, q.ndim - 1)

    q, k, v, log_decay, rate, resets = jax.tree.map(cut, (q, k, v, log_decay, rate, resets))
    together = match_rank(jnp.tril(jnp.ones((length, length), bool)), q)
    # Which steps see the state that entered, and which the last step sees: `[.., C]` each.
    entered = ends = None
    if resets is not None:
        segment = associative_scan(jnp.add, resets.astype(jnp.int32), axis=-1)
        together = together & (segment[..., :, None] == segment[..., None, :])
        entered, ends = segment == 0, segment == segment[..., -1:]

    def keep_where(flag: jax.Array | None, x: jax.Array) -> jax.Array:
        # `[chunks, *batch, C]` and `[chunks, *batch, C, ...]`.
        return x if flag is None else jnp.where(flag[..., None], x, 0)

    if log_decay is not None:
        log_decay = _make_finite(log_decay)
    # `[.., C, K or 1]` each. since: the decay from the entry or the last reset through step t.
    # to_end: from after step s to the end of the chunk.
    if log_decay is None:
        pairs = None
        since = to_end = jnp.ones((*q.shape[:-1], 1), q.dtype)
    else:
        ones = jnp.tril(jnp.ones((length, length), q.dtype))
        # D[t, s] by a sum of its own, not as a difference of two sums from the chunk's start, which
        # would lose the small decays after a large one.
        between = jnp.einsum(
            "tr,...rk,rs->...tsk", ones, log_decay, jnp.tril(ones, -1), precision=EXACT
        )
        meets = together[..., None]
        pairs = jnp.where(meets, jnp.exp(jnp.where(meets, between, 0)), 0)
        since = jnp.einsum(
            "...tr,...rk->...tk", together.astype(q.dtype), log_decay, precision=EXACT
        )
        since, to_end = jnp.exp(since), pairs[..., -1, :, :]

    def meet(x: jax.Array, y: jax.Array) -> jax.Array:
        """`Σ_k x[t] y[s] exp D[t, s]` `[.., C, C]`, for steps t and s that may see each other."""
        if pairs is None:
            return jnp.where(together, x @ jnp.swapaxes(y, -1, -2), 0)
        if pairs.shape[-1] == 1:
            return (x @ jnp.swapaxes(y, -1, -2)) * pairs[..., 0]
        return jnp.einsum("...tk,...sk,...tsk->...ts", x, y, pairs)

    reads = meet(q, k)
    from_start, keep = q * since, since[..., -1, :]
    key_to_end = keep_where(ends, k * to_end)
    # What is written, `[.., C, V]`, is `w = known - reader S`, where S `[.., K, V]` entered.
    known, reader = v, None
    if rate is not None:
        system = jnp.tril(rate[..., None] * meet(k, k), -1)
        targets = rate[..., None] * jnp.concatenate([v, k * since], axis=-1)
        solution = _inverse(system) @ targets
        known, reader = jnp.split(solution, [v.shape[-1]], axis=-1)

    if entered is not None:
        # What the steps after a reset take from S_reset is known beforehand.
        assert S_reset is not None
        if reader is not None:
            known = known - keep_where(~entered, reader) @ S_reset
            reader = keep_where(entered, reader)
        past_reset = keep_where(~entered, from_start) @ S_reset
        from_start = keep_where(entered, from_start)
    else:
        past_reset = 0
    writer = jnp.swapaxes(key_to_end, -1, -2)  # [.., K, C]
    written = writer @ known

    def take_chunk(S: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        # S `[*batch, K, V]`; the rest is of one chunk, without its leading axis.
        keep, written, writer, reader, last_entered = inputs
        enters = S
        if last_entered is not None:
            assert S_reset is not None
            S = select(last_entered, S, S_reset)
        S = keep[..., None] * S + written
        if reader is not None:
            S = S - writer @ (reader @ enters)
        return S, enters

    last_entered = None if entered is None else entered[..., -1]
    last, enters = jax.lax.scan(take_chunk, S0, (keep, written, writer, reader, last_entered))
    w = known if reader is None else known - reader @ enters
    ys = from_start @ enters + past_reset + reads @ w
    ys = jnp.moveaxis(ys, -2, 1)
    ys = ys.reshape(steps + missing, *ys.shape[2:])[:steps]
    return last, (jnp.flip(ys, 0) if reverse else ys)


def _make_finite(log_decay: jax.Array) -> jax.Array:
    """The same, where a decay that is zero in its dtype has a logarithm that can be added up."""
    smallest = float(np.log(np.finfo(log_decay.dtype).smallest_subnormal))
    return jnp.maximum(log_decay, 2 * smallest)


def _inverse(lower: jax.Array) -> jax.Array:
    """The inverse of `I + lower`, `[..., C, C]`, `lower` strictly lower triangular.

    Blocks on the diagonal are inverted from size 1 up: of the next size

        [A 0; B D]⁻¹ = [A⁻¹ 0; -D⁻¹ B A⁻¹ D⁻¹],

    log₂ C rounds of products, as exact as substitution row by row. `triangular_solve` would be one
    call to LAPACK for each matrix on CPU, which was seen to wait for ever under XLA's threads
    (jaxlib 0.10.2, a batch of 128, two cores).
    """
    size = lower.shape[-1]
    full = 1 << max(size - 1, 0).bit_length()
    pad = [(0, 0)] * (lower.ndim - 2) + [(0, full - size)] * 2
    lower = jnp.pad(lower, pad)
    lead = lower.shape[:-2]
    inverse, block = zeros_like(lower[..., :1, None]) + 1, 1
    while block < full:
        pairs = full // (2 * block)
        # In two steps: with the batch cut on a mesh, jax cuts one axis at a time.
        cut = lower.reshape(*lead, pairs, 2, block, full)
        cut = cut.reshape(*lead, pairs, 2, block, pairs, 2, block)
        # [.., block, block, pairs]
        below = jnp.diagonal(cut[..., 1, :, :, 0, :], axis1=-4, axis2=-2)
        first, second = inverse[..., 0::2, :, :], inverse[..., 1::2, :, :]
        corner = -second @ jnp.moveaxis(below, -1, -3) @ first
        inverse = jnp.concatenate(
            [
                jnp.concatenate([first, zeros_like(corner)], axis=-1),
                jnp.concatenate([corner, second], axis=-1),
            ],
            axis=-2,
        )
        block *= 2
    return inverse[..., 0, :size, :size]
