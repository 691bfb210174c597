"""Attention where time is cut over the devices of a mesh.

With a window each device is given the newest entries before its own steps, and streams from there.
Without one the entries of all devices go around in a ring: each device reads every part as it comes
by, and joins what it has read by the totals of the softmax (Liu et al. 2023, arXiv 2310.01889). No
device has more than two parts of the sequence at a time. The gradient sends the entries around once
more, and their gradients with them, so that none is kept for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from longlag.attention.cache import (
    Cache,
    _remove_nonfinite,
    append_to_cache,
    chunk_positions,
)
from longlag.core.derivative import custom_derivative
from longlag.core.ops import Params
from longlag.core.over_devices import at_end, before, entering, place
from longlag.core.placement import unify_types
from longlag.core.promotion import at_least_float32
from longlag.core.selection import poison, select

if TYPE_CHECKING:
    from longlag.attention.attention import Attention

__all__ = ["attend_parts"]

# Scores are `[B, N, BLOCK, BLOCK]`, however many steps a device has.
BLOCK = 512

Flags = jax.Array | None


def attend_parts(
    attention: Attention,
    axis: str,
    params: Params,
    xs: jax.Array,
    state: Cache | None,
    mask: Flags,
    resets: Flags,
) -> tuple[Cache | None, jax.Array]:
    """Attends to the past of the steps of each device, on whatever device it is.

    Args:
        attention: the attention.
        axis: of the mesh, along which time is cut.
        params: its parameters.
        xs: `[B, T, D]`, the steps of the device.
        state: what is there before the first step of all, or None.
        mask: `[B, T]` bool or None.
        resets: `[B, T]` bool or None.

    Returns:
        The state after the last step of all, None if there was none before, and the contexts
        `[B, T, K]`.

    Raises:
        ValueError: a state without a window, or an attention that has no `read_part`.
    """
    if attention.window is not None:
        entered = _enter_window(attention, axis, params, xs, state, mask, resets)
        last, contexts = attention.attend(params, xs, entered, mask, resets)
        return (None if state is None else at_end(axis, last)), contexts
    if state is not None:
        raise ValueError(
            f"state: expected None for {attention} with time over devices, since its cache would "
            "lie whole on every device; give the attention a window to stream there"
        )
    return None, _read_around_ring(attention, axis, params, xs, mask, resets)


def _enter_window(
    attention: Attention,
    axis: str,
    params: Params,
    xs: jax.Array,
    state: Cache | None,
    mask: Flags,
    resets: Flags,
) -> Cache:
    """The ring of the window before the first step of each device."""
    B, T, _ = xs.shape
    window = attention.window
    assert window is not None
    if state is None:
        state, _ = unify_types((attention.init_state(params, (B,), window), xs), 0)
    if mask is not None:
        xs = select(mask, xs, jnp.zeros_like(xs))
    position, segment = _positions(axis, state.count, T, mask, resets)
    whole = mask is None and T >= window
    newest = slice(T - window, T) if whole else slice(T)
    position, segment = position[:, newest], segment[:, newest]
    entries = attention.write(params, xs[:, newest], position)
    nothing = Cache(state.entries, jnp.full_like(state.position, -1), state.count)
    part = append_to_cache(nothing, entries, position, segment, mask)
    if whole:
        return before(axis, part, state)
    forgets = segment[:, -1] > 0
    return entering(axis, (part, forgets), (state, forgets), _join_caches)[0]


def _join_caches(
    earlier: tuple[Cache, jax.Array], later: tuple[Cache, jax.Array]
) -> tuple[Cache, jax.Array]:
    """The ring after two parts in a row, and whether they have a reset, `[B]` bool."""
    (old, had_reset), (new, forgets) = earlier, later
    stays = (new.position < 0) & (old.position >= 0) & ~forgets[:, None]
    joined = Cache(
        entries=select(stays, old.entries, new.entries),
        position=jnp.where(stays, old.position, new.position),
        count=new.count,
    )
    return joined, had_reset | forgets


def _positions(
    axis: str, count: jax.Array, steps: int, mask: Flags, resets: Flags
) -> tuple[jax.Array, jax.Array]:
    """As `chunk_positions`, of the steps of a device; segments are counted from its first step."""
    position, segment = chunk_positions(jnp.zeros_like(count), steps, mask, resets)
    taken, forgets = position[:, -1] + 1, segment[:, -1] > 0
    taken, forgets, _ = unify_types((taken, forgets, count), 0)

    def combine(earlier: tuple[Any, Any], later: tuple[Any, Any]) -> tuple[Any, Any]:
        total = jnp.where(later[1], later[0], earlier[0] + later[0])
        return total, earlier[1] | later[1]

    count, _ = entering(axis, (taken, forgets), (count, forgets), combine)
    return chunk_positions(count, steps, mask, resets)


class Marks(NamedTuple):
    """Of each step, `[B, T]` each.

    Attributes:
        step: its index in the whole sequence, int32.
        position: int32, as in `Memory`.
        segment: resets of the whole sequence so far, int32.
        live: whether it is not masked.
    """

    step: jax.Array
    position: jax.Array
    segment: jax.Array
    live: jax.Array


class Ring(NamedTuple):
    """What the functions below are given that is no array."""

    attention: Attention
    axis: str


class Total(NamedTuple):
    """What steps have read so far.

    Attributes:
        contexts: `[..., T, N, K]`.
        log_total: of the softmax over what was read, `[..., T, N]`.
        spoilt: whether what was read is not finite, `[..., T]`.
    """

    contexts: jax.Array
    log_total: jax.Array
    spoilt: jax.Array


def _read_around_ring(
    attention: Attention, axis: str, params: Params, xs: jax.Array, mask: Flags, resets: Flags
) -> jax.Array:
    """What each step reads of the whole past, `[B, T, K]`."""
    B, T, _ = xs.shape
    if mask is not None:
        xs = select(mask, xs, jnp.zeros_like(xs))
    count, _ = unify_types((jnp.zeros(B, jnp.int32), xs), 0)
    position, segment = _positions(axis, count, T, mask, resets)
    segment, _ = unify_types((segment, xs), 0)
    segment = segment + entering(axis, segment[:, -1], count, jnp.add)[:, None]
    step = place(axis)[0] * T + jnp.arange(T, dtype=jnp.int32)
    live = jnp.ones((B, T), bool) if mask is None else mask
    marks = Marks(jnp.broadcast_to(step, (B, T)), position, segment, live)
    entries = attention.write(params, xs, position)
    params, xs, entries, marks = unify_types((params, xs, entries, marks), -1)
    contexts, spoilt = _read(Ring(attention, axis), params, xs, entries, marks)
    contexts = attention.join_heads(params, contexts)
    contexts = contexts.astype(at_least_float32(xs, *jax.tree.leaves(params)))
    if mask is not None:
        contexts = select(mask, contexts, jnp.zeros_like(contexts))
    return poison(spoilt, contexts)


def _read_block(ring: Ring, params: Params, queries: Any, keys: Any) -> Total:
    """What steps read of others: queries are inputs and marks, keys are entries and marks."""
    (xs, reader), (entries, marks) = queries, keys
    visible = (marks.step[:, None, :] <= reader.step[:, :, None]) & marks.live[:, None, :]
    visible &= (marks.segment[:, None, :] == reader.segment[:, :, None]) & reader.live[:, :, None]
    memory = _remove_nonfinite(entries, marks.position, visible, reader.position)
    return Total(*ring.attention.read_part(params, xs, memory), memory.spoilt)


def _join(one: Total, other: Total) -> Total:
    """What was read of two parts."""
    top = jnp.maximum(one.log_total, other.log_total)
    top = jax.lax.stop_gradient(jnp.where(top == -jnp.inf, 0.0, top))
    of_one, of_other = jnp.exp(one.log_total - top), jnp.exp(other.log_total - top)
    total = of_one + of_other
    sees = total > 0
    total = jnp.where(sees, total, 1.0)
    contexts = (of_one / total)[..., None] * one.contexts
    contexts += (of_other / total)[..., None] * other.contexts
    log_total = jnp.where(sees, top + jnp.log(total), -jnp.inf)
    return Total(contexts, log_total, one.spoilt | other.spoilt)


def _split(tree: Any) -> Any:
    """Leaves `[B, T, ...]` to `[blocks, B, Q, ...]`; what fills up the last block is not live."""

    def split(x: jax.Array) -> jax.Array:
        T = x.shape[1]
        blocks = -(-T // BLOCK)
        size = -(-T // blocks)
        x = jnp.pad(x, [(0, 0), (0, blocks * size - T)] + [(0, 0)] * (x.ndim - 2))
        return jnp.swapaxes(x.reshape(x.shape[0], blocks, size, *x.shape[2:]), 0, 1)

    return jax.tree.map(split, tree)


def _merge(tree: Any, steps: int) -> Any:
    """The inverse of `_split`."""

    def merge(x: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x, 0, 1)
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])[:, :steps]

    return jax.tree.map(merge, tree)


def _pass_on(axis: str, tree: Any) -> Any:
    count = jax.lax.axis_size(axis)
    pairs = [(i, (i + 1) % count) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, pairs), tree)


def _where_past(queries: Any, keys: Any, run: Callable[[Any], Any], state: Any) -> Any:
    """`run(state)` if any of the keys is no later than the last query, and else the state."""
    past = jnp.any(keys[1].step[:, 0] <= jnp.max(queries[1].step))
    return jax.lax.cond(past, run, lambda state: state, state)


def _read_all(ring: Ring, params: Params, xs: jax.Array, entries: Any, marks: Marks) -> Total:
    """What all steps read of all, leaves `[B, T, ...]`."""
    queries, keys = _split((xs, marks)), _split((entries, marks))
    read = functools.partial(_read_block, ring, params)
    first = jax.tree.map(lambda x: x[0], (queries, keys))
    like = jax.eval_shape(read, *first)

    def visit(inputs: tuple[Any, Total], keys: Any) -> Total:
        queries, total = inputs

        def add(total: Total, keys: Any) -> tuple[Total, None]:
            run: Callable[[Any], Any] = lambda total: _join(total, read(queries, keys))  # noqa: E731
            return _where_past(queries, keys, run, total), None

        return jax.lax.scan(add, total, keys)[0]

    def turn(state: tuple[Total, Any], _: None) -> tuple[tuple[Total, Any], None]:
        totals, keys = state
        totals = jax.lax.map(functools.partial(visit, keys=keys), (queries, totals))
        return (totals, _pass_on(ring.axis, keys)), None

    blocks = queries[0].shape[0]
    blank = jax.tree.map(lambda x: jnp.zeros((blocks, *x.shape), x.dtype), like)
    blank = blank._replace(log_total=jnp.full_like(blank.log_total, -jnp.inf))
    blank, _ = unify_types((blank, xs), -1)
    count = jax.lax.axis_size(ring.axis)
    (totals, _), _ = jax.lax.scan(turn, (blank, keys), length=count)
    return _merge(totals, xs.shape[1])


def _run(ring: Ring, *args: Any) -> tuple[jax.Array, jax.Array]:
    total = _read_all(ring, *args)
    return total.contexts, total.spoilt


def _forward(ring: Ring, *args: Any) -> tuple[Any, Any]:
    total = _read_all(ring, *args)
    return (total.contexts, total.spoilt), (args, total)


def _tangent(ring: Ring, residuals: Any, tangents: Any) -> Any:
    (*primals, marks), _ = residuals

    def read(params: Params, xs: jax.Array, entries: Any) -> jax.Array:
        return _read_all(ring, params, xs, entries, marks).contexts

    return jax.jvp(read, tuple(primals), tuple(tangents[:3]))[1], None


def _backward(ring: Ring, residuals: Any, cotangents: Any) -> Any:
    (params, xs, entries, marks), total = residuals
    steps = xs.shape[1]
    queries, keys = _split((xs, marks)), _split((entries, marks))
    targets = _split((total.contexts, total.log_total, cotangents[0]))

    def zeros(tree: Any) -> Any:
        tree = jax.tree.map(lambda x: jnp.zeros(x.shape, at_least_float32(x)), tree)
        return unify_types((tree, xs), -1)[0]

    def add(one: Any, other: Any) -> Any:
        return jax.tree.map(lambda x, y: x + y.astype(x.dtype), one, other)

    def pull(queries: Any, keys: Any, targets: Any, state: tuple[Any, Any, Any]) -> Any:
        """Adds the gradients of a block of queries and one of keys to those so far."""
        contexts, log_total, ct = targets

        def read(params: Params, xs: jax.Array, entries: Any) -> tuple[jax.Array, jax.Array]:
            block = _read_block(ring, params, (xs, queries[1]), (entries, keys[1]))
            return block.contexts, block.log_total

        pulled = cast(Any, jax.vjp(read, params, queries[0], keys[0]))
        (part, log_part), pullback = pulled
        sees = log_part > -jnp.inf
        share = jnp.where(sees, jnp.exp(jnp.where(sees, log_part - log_total, 0)), 0)
        of_total = share * (ct * (part - contexts)).sum(axis=-1)
        return add(state, pullback((share[..., None] * ct, of_total)))

    def turn(state: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
        dparams, dxs, keys, dkeys = state

        def visit(state: tuple[Any, Any], inputs: Any) -> tuple[Any, Any]:
            # One block of queries meets all blocks of keys that are here.
            queries, targets, dxs = inputs

            def meet(state: tuple[Any, Any], inputs: Any) -> tuple[Any, Any]:
                keys, dkeys = inputs
                run = functools.partial(pull, queries, keys, targets)
                dparams, dxs, dkeys = _where_past(queries, keys, run, (*state, dkeys))
                return (dparams, dxs), dkeys

            dparams, dkeys = state
            (dparams, dxs), dkeys = jax.lax.scan(meet, (dparams, dxs), (keys, dkeys))
            return (dparams, dkeys), dxs

        (dparams, dkeys), dxs = jax.lax.scan(visit, (dparams, dkeys), (queries, targets, dxs))
        keys, dkeys = _pass_on(ring.axis, (keys, dkeys))
        return (dparams, dxs, keys, dkeys), None

    begin = (zeros(params), zeros(queries[0]), keys, zeros(keys[0]))
    count = jax.lax.axis_size(ring.axis)
    (dparams, dxs, _, dentries), _ = jax.lax.scan(turn, begin, length=count)
    grads = (dparams, *_merge((dxs, dentries), steps))
    grads = jax.tree.map(lambda x, like: x.astype(like.dtype), grads, (params, xs, entries))
    return *grads, jax.tree.map(lambda _: None, marks)


_read = custom_derivative(_run, _forward, _tangent, _backward)
