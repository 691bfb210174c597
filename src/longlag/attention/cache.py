"""The cache of attention, which streams, forgets at resets and skips masked steps."""

from __future__ import annotations

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from longlag.core.any_length import associative_scan
from longlag.core.array_types import EntryPositions, RowIntegers
from longlag.core.placement import put_rows, unify_types
from longlag.core.promotion import promote
from longlag.core.selection import select

__all__ = [
    "Cache",
    "Memory",
    "append_to_cache",
    "attention_weights",
    "chunk_memory",
    "empty_cache",
    "encoder_memory",
    "log_total",
    "masked_softmax",
]


@flax.struct.dataclass
class Cache:
    """Entries of the past in S slots; the entry of position p lies in slot p modulo S.

    Positions count the unmasked steps of a row since its last reset.

    Attributes:
        entries: a tree of arrays `[B, S, ...]`, what the attention writes for each step.
        position: `[B, S]` int32, the position of each entry, -1 where the slot is empty.
        count: `[B]` int32, unmasked steps since the row's last reset, the next position.
    """

    entries: Any
    position: EntryPositions
    count: RowIntegers


@flax.struct.dataclass
class Memory:
    """What the steps of a chunk may read: M entries, the cached ones before those of the chunk.

    Attributes:
        entries: a tree of arrays `[B, M, ...]`.
        position: `[B, M]` int32.
        visible: `[B, T, M]` bool, whether step t may read entry m.
        query_position: `[B, T]` int32, the position of each step; meaningless where masked.
        spoilt: `[B, T]` bool, whether step t sees an entry that is not finite. Such entries are
            zeros here, since a weight of zero would not keep them from the other steps.
        scale: `[B, T, M]`, by which weights are multiplied, or None.

    What an encoder left is the same for all steps that read it; T is then 1 where it is kept.
    """

    entries: Any
    position: jax.Array
    visible: jax.Array
    query_position: jax.Array
    spoilt: jax.Array
    scale: jax.Array | None = None

    def of_steps(self, start: int, stop: int) -> Memory:
        """What steps `start` to `stop` of a chunk may read: no entry of a later step."""
        entries = self.position.shape[1] - self.visible.shape[1] + stop
        return Memory(
            entries=jax.tree.map(lambda e: e[:, :entries], self.entries),
            position=self.position[:, :entries],
            visible=self.visible[:, start:stop, :entries],
            query_position=self.query_position[:, start:stop],
            spoilt=self.spoilt[:, start:stop],
            scale=None if self.scale is None else self.scale[:, start:stop, :entries],
        )


def empty_cache(entry: Any, batch: int, slots: int) -> Cache:
    """A cache with all slots empty.

    Args:
        entry: a tree of arrays or shapes `[...]`, one entry of one row.
        batch: B.
        slots: S.
    """
    return Cache(
        entries=jax.tree.map(lambda e: jnp.zeros((batch, slots, *e.shape), e.dtype), entry),
        position=jnp.full((batch, slots), -1, jnp.int32),
        count=jnp.zeros((batch,), jnp.int32),
    )


def chunk_positions(
    count: jax.Array, steps: int, mask: jax.Array | None, resets: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Positions of the steps of a chunk, and how many resets have come so far.

    Args:
        count: `[B]` int32, the position of the chunk's first unmasked step.
        steps: T.
        mask: `[B, T]` bool or None.
        resets: `[B, T]` bool or None.

    Returns:
        Positions `[B, T]` int32 (of a masked step: of the last unmasked one before it), and the
        number of resets up to and including each step, `[B, T]` int32.
    """
    # Sums by associative_scan: XLA:CPU makes of jnp.cumsum a window of T, T² in time.
    live = jnp.ones((1, steps), jnp.int32) if mask is None else mask.astype(jnp.int32)
    if mask is None:
        taken = jnp.arange(1, steps + 1, dtype=jnp.int32)[None]
    else:
        taken = associative_scan(jnp.add, live, axis=1)
    if resets is None:
        return count[:, None] + taken - 1, jnp.zeros((count.shape[0], steps), jnp.int32)
    # Steps before the last reset; without one, minus the steps that earlier chunks took.
    begun = jnp.where(resets, taken - live, -count[:, None])
    begun = associative_scan(jnp.maximum, begun, axis=1)
    segment = associative_scan(jnp.add, resets.astype(jnp.int32), axis=1)
    return taken - begun - 1, segment


def chunk_memory(
    cache: Cache | None,
    entries: Any,
    position: jax.Array,
    segment: jax.Array,
    mask: jax.Array | None,
    window: int | None,
) -> Memory:
    """What each step of a chunk may read: its own segment's past in cache and chunk, and itself.

    Args:
        cache: the cache before the chunk, or None.
        entries: what the chunk writes, leaves `[B, T, ...]`.
        position: `[B, T]` from `chunk_positions`.
        segment: `[B, T]`, resets so far, from `chunk_positions`.
        mask: `[B, T]` bool or None; a masked step is not read and reads nothing.
        window: position t reads t - window + 1 .. t; None means everything.
    """
    T = position.shape[1]
    visible = jnp.tril(jnp.ones((1, T, T), bool)) & (segment[:, :, None] == segment[:, None, :])
    if mask is not None:
        visible &= mask[:, None, :]
    memory_position = position
    if cache is not None:
        old = cache.entries
        entries = jax.tree.map(lambda o, e: jnp.concatenate(promote(o, e), axis=1), old, entries)
        memory_position = jnp.concatenate([cache.position, position], axis=1)
        visible_old = (cache.position >= 0)[:, None, :] & (segment[:, :, None] == 0)
        visible = jnp.concatenate(unify_types([visible_old, visible], 0), axis=2)
    if window is not None:
        visible &= position[:, :, None] - memory_position[:, None, :] < window
    if mask is not None:
        visible &= mask[:, :, None]
    return _remove_nonfinite(entries, memory_position, visible, position)


def encoder_memory(entries: Any, position: jax.Array, mask: jax.Array | None) -> Memory:
    """What an encoder left, for any number of steps that may all read all of it.

    Args:
        entries: leaves `[B, S, ...]`.
        position: `[B, S]` int32, the unmasked steps before each.
        mask: `[B, S]` bool or None; what is false is not read.
    """
    visible = jnp.ones(position.shape, bool) if mask is None else mask
    one = jnp.pad(position, ((0, 0), (0, 1)))[:, :1]  # of no steps too
    return _remove_nonfinite(entries, position, visible[:, None], jnp.zeros_like(one))


def _remove_nonfinite(
    entries: Any, position: jax.Array, visible: jax.Array, query: jax.Array
) -> Memory:
    """The memory with what is not finite taken out of it."""
    finite = [jnp.isfinite(e).all(range(2, e.ndim)) for e in jax.tree.leaves(entries)]
    finite = functools.reduce(jnp.logical_and, finite)  # [B, M]
    entries = jax.tree.map(lambda e: select(finite, e, jnp.zeros_like(e)), entries)
    spoilt = jnp.any(visible & ~finite[:, None, :], axis=2)
    return Memory(entries, position, visible, query, spoilt)


def append_to_cache(
    cache: Cache, entries: Any, position: jax.Array, segment: jax.Array, mask: jax.Array | None
) -> Cache:
    """The cache after a chunk: the newest S entries of each row's present segment.

    Args: as for `chunk_memory`.
    """
    slots = cache.position.shape[1]
    ongoing = segment[:, -1:]  # resets in the whole chunk; steps before the last one are forgotten
    # Steps and masked steps before the first reset have no position of their own: -1 or stale.
    count = position[:, -1] + 1
    written = (segment == ongoing) & (position >= count[:, None] - slots)
    if mask is not None:
        written &= mask
    # Distinct positions, at most S of them, fall into distinct slots; the rest is dropped.
    slot = jnp.where(written, position % slots, slots)
    forgotten = ongoing > 0
    kept = jnp.where(forgotten, -1, cache.position)
    old = jax.tree.map(lambda e: select(kept >= 0, e, jnp.zeros_like(e)), cache.entries)
    return Cache(
        entries=jax.tree.map(lambda old, entries: put_rows(old, slot, entries), old, entries),
        position=put_rows(kept, slot, position),
        count=count,
    )


def attention_weights(logits: jax.Array, memory: Memory) -> jax.Array:
    """The weights of every step on every entry, from scores.

    Args:
        logits: `[B, ..., T, M]`, heads between.
        memory: says what is visible.
    """
    heads = range(1, logits.ndim - 2)
    weights = masked_softmax(logits, jnp.expand_dims(memory.visible, heads))
    return weights if memory.scale is None else weights * jnp.expand_dims(memory.scale, heads)


def log_total(logits: jax.Array, memory: Memory) -> jax.Array:
    """The logarithm of the sum that `attention_weights` divides by; -inf where nothing is visible.

    Args:
        logits: `[B, ..., T, M]`, heads between.
        memory: says what is visible.

    Returns:
        `[B, ..., T]`.
    """
    visible = jnp.expand_dims(memory.visible, range(1, logits.ndim - 2))
    logits = jnp.where(visible, logits, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, initial=-jnp.inf))  # of no entries too
    top = jnp.where(top == -jnp.inf, 0.0, top)
    total = jnp.exp(logits - top[..., None]).sum(axis=-1)
    sees = total > 0
    return jnp.where(sees, top + jnp.log(jnp.where(sees, total, 1.0)), -jnp.inf)


@jax.custom_jvp
def masked_softmax(logits: jax.Array, visible: jax.Array) -> jax.Array:
    """Softmax over the visible entries of the last axis; zeros where nothing is visible.

    Values and gradients are finite in every row, also in one that sees nothing.

    Args:
        logits: `[..., M]`.
        visible: bool, broadcastable to `[..., M]`.
    """
    logits = jnp.where(visible, logits, -jnp.inf)
    top = jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf)  # of no entries too
    exps = jnp.exp(logits - jnp.where(top == -jnp.inf, 0.0, top))
    total = exps.sum(axis=-1, keepdims=True)
    return exps * (1 / jnp.where(total > 0, total, 1.0))


@masked_softmax.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    # From the weights alone. In this form XLA:CPU takes a third of the time of the derivative of
    # the lines above, and half that of w t - w Σ w t, as jax.nn.softmax has it.
    weights, tangent = masked_softmax(*primals), tangents[0]
    return weights, weights * (tangent - (weights * tangent).sum(axis=-1, keepdims=True))
