"""The methods of `matrix_scan`: one step after another, and chunk by chunk in matrix products."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.any_length import associative_scan
from longlag.core.over_devices import entering
from longlag.core.placement import unify_types, zeros_like
from longlag.core.promotion import match_rank, multiply
from longlag.core.selection import select

__all__ = ["matrix_step", "run_chunked", "run_sequential"]

# Steps of a chunk. Work per step grows with the chunk, the number of states with its inverse. One
# decay for each key leaves no matrix product for the pairs, but C² K products a chunk. By hand, on
# CPU, 32 was the fastest of 16, 32 and 64 from K = V = 16 to 64.
CHUNK, CHUNK_PER_KEY = 32, 16
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


def run_sequential(
    reverse: bool,
    axis: str | None,
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
    """One step after another; `axis` is None or that along which time is cut.

    Returns:
        The last state of the device or all of them, and the reads `[T, *batch, V]`.
    """
    if axis is not None:
        chunks = _Chunks.of(reverse, q, k, v, log_decay, rate, resets, S_reset)
        S0 = chunks.enter(axis, reverse, S0)

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


def run_chunked(
    reverse: bool,
    axis: str | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    S0: jax.Array,
    log_decay: jax.Array | None,
    rate: jax.Array | None,
    resets: jax.Array | None,
    S_reset: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Chunk by chunk; see `run_sequential`."""
    chunks = _Chunks.of(reverse, q, k, v, log_decay, rate, resets, S_reset)
    if axis is not None:
        S0 = chunks.enter(axis, reverse, S0)
    last, enters = chunks.sweep(S0)
    ys = jnp.moveaxis(chunks.read(enters), -2, 1)
    ys = ys.reshape(ys.shape[0] * ys.shape[1], *ys.shape[2:])[: q.shape[0]]
    return last, (jnp.flip(ys, 0) if reverse else ys)


class _Chunks(NamedTuple):
    """A sequence in chunks of C steps, as far as it does not depend on the state that enters.

    A chunk makes `keep ⊙ S + written - writer reader S` of the state, where `keep ⊙` goes with
    S_reset in place of S if it has a reset. Leaves are `[chunks, *batch, ...]`.

    Attributes:
        keep: decay of the whole chunk, `[.., K or 1]`.
        written: what is written whatever the state, `[.., K, V]`.
        writer: keys, decayed to the end, `[.., K, C]`.
        reader: what the delta rule reads of the state that enters, `[.., C, K]`, or None.
        entered: whether a step sees the state that enters, `[.., C]`, or None: all do.
        S_reset: the state after a reset, `[*batch, K, V]`, or None.
        known: what each step writes whatever the state, `[.., C, V]`.
        from_start: queries, decayed from the start, `[.., C, K]`.
        reads: of each step by each other, `[.., C, C]`.
        past_reset: what is read of S_reset, `[.., C, V]`, or 0.
    """

    keep: jax.Array
    written: jax.Array
    writer: jax.Array
    reader: jax.Array | None
    entered: jax.Array | None
    S_reset: jax.Array | None
    known: jax.Array
    from_start: jax.Array
    reads: jax.Array
    past_reset: Any

    @classmethod
    def of(
        cls,
        reverse: bool,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        log_decay: jax.Array | None,
        rate: jax.Array | None,
        resets: jax.Array | None,
        S_reset: jax.Array | None,
    ) -> _Chunks:
        """All chunks side by side."""
        steps = q.shape[0]
        per_key = log_decay is not None and log_decay.shape[-1] > 1
        length = min(CHUNK_PER_KEY if per_key else CHUNK, steps)
        missing = -steps % length

        def cut(x: jax.Array) -> jax.Array:
            """`[T, *batch, ...]` to `[chunks, *batch, C, ...]`, the last filled with idle steps."""
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
            # D[t, s] by a sum of its own, not as a difference of two sums from the chunk's start,
            # which would lose the small decays after a large one.
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
            """`Σ_k x[t] y[s] exp D[t, s]` `[.., C, C]`, for steps that may see each other."""
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
        writer = jnp.swapaxes(key_to_end, -1, -2)
        return cls(
            keep=keep,
            written=writer @ known,
            writer=writer,
            reader=reader,
            entered=entered,
            S_reset=S_reset,
            known=known,
            from_start=from_start,
            reads=reads,
            past_reset=past_reset,
        )

    def sweep(self, S0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The state after all chunks, and those that enter each."""

        def take_chunk(S: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
            # S `[*batch, K, V]`; the rest is of one chunk, without its leading axis.
            keep, written, writer, reader, last_entered = inputs
            enters = S
            if last_entered is not None:
                assert self.S_reset is not None
                S = select(last_entered, S, self.S_reset)
            S = keep[..., None] * S + written
            if reader is not None:
                S = S - writer @ (reader @ enters)
            return S, enters

        last_entered = None if self.entered is None else self.entered[..., -1]
        inputs = (self.keep, self.written, self.writer, self.reader, last_entered)
        return jax.lax.scan(take_chunk, S0, inputs)

    def read(self, enters: jax.Array) -> jax.Array:
        """The reads `[chunks, *batch, C, V]`, from the states that enter."""
        w = self.known if self.reader is None else self.known - self.reader @ enters
        return self.from_start @ enters + self.past_reset + self.reads @ w

    def enter(self, axis: str, reverse: bool, S0: jax.Array) -> jax.Array:
        """The state that enters the steps of each device, where time is cut along an axis.

        All steps of a device make `M S + N` of the state that enters, with M `[K, K]` under the
        delta rule and else a diagonal. The columns of M are what becomes of those of the identity
        (of its diagonal, as one column) where nothing is written: columns of S more.
        """
        *batch, K, V = S0.shape
        of_diagonal = self.reader is None
        columns = jnp.ones((K, 1), S0.dtype) if of_diagonal else jnp.eye(K, dtype=S0.dtype)
        columns = jnp.broadcast_to(columns, (*batch, *columns.shape))

        def extend(x: jax.Array) -> jax.Array:
            return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, columns.shape[-1])])

        S_reset = None if self.S_reset is None else extend(self.S_reset)
        wider = self._replace(written=extend(self.written), S_reset=S_reset)
        begin, _ = unify_types((jnp.concatenate([jnp.zeros_like(S0), columns], -1), S0), -1)
        N, M = jnp.split(wider.sweep(begin)[0], [V], axis=-1)
        forgets = None if self.entered is None else ~jnp.all(self.entered[..., -1], axis=0)

        def combine(earlier: tuple[Any, ...], later: tuple[Any, ...]) -> tuple[Any, ...]:
            M, N, forgets = later
            times = jnp.multiply if of_diagonal else functools.partial(jnp.matmul, precision=EXACT)
            both = times(M, earlier[0]), times(M, earlier[1]) + N
            if forgets is None:
                return *both, None
            return *select(forgets, (M, N), both), forgets | earlier[2]

        return entering(axis, (M, N, forgets), (M, S0, forgets), combine, reverse)[1]


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
