"""What every attention over its own past shares: cache, chunks, masks, resets, windows."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from longlag.attention.cache import (
    Cache,
    Memory,
    append_to_cache,
    chunk_memory,
    chunk_positions,
    empty_cache,
    encoder_memory,
)
from longlag.attention.over_devices import attend_parts
from longlag.core.any_length import is_known
from longlag.core.array_types import (
    AttentionMap,
    AttentionWeights,
    Contexts,
    Encodings,
    EncodingsMask,
    Features,
    Positions,
    PRNGKey,
    TimeMajor,
    TimeMajorMask,
    TimeMajorOutputs,
    TimeMajorResets,
    TimeMajorWeights,
)
from longlag.core.checks import check_like, check_sequence
from longlag.core.ops import Params
from longlag.core.over_devices import refuse_time_axis, time_axis, time_over_devices
from longlag.core.placement import unify_types, use_mesh, zeros_like
from longlag.core.platforms import on_cpu_or_else
from longlag.core.promotion import at_least_float32, through_float32
from longlag.core.selection import poison, select
from longlag.nn.layer import Layer, State

__all__ = ["Attention"]

# On CPU a chunk is read in so many parts at most, and in none shorter than this. Elsewhere, where
# nothing has been measured, it is read at once.
PARTS, LEAST = 4, 64


class Attention(Layer):
    """Reads the past of a sequence at every step, causally and streaming.

    Write `init`, `write` (what a step leaves behind) and `read` (what a step makes of the memory).
    Position t reads positions t - window + 1 .. t, itself included. Positions and windows count the
    unmasked steps since the row's last reset. Masked steps neither write nor advance and give zero.

    With a state, a window keeps a ring of `window` entries. Without a window the cache holds
    `capacity` entries: a chunk that is longer is refused, and a row that outgrows it at run time
    gives NaN from there on, never a silent overwriting.

    The same attention reads what an encoder left: `write_memory` once, `read_memory` at every step.

    Attributes:
        features: a width, whose meaning each kind gives.
        window: None (everything), or how many positions are read.
    """

    features: int
    window: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("features", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{type(self).__name__}.{name}: expected at least 1, got {value}")

    @abc.abstractmethod
    def init(self, key: PRNGKey, in_features: int, memory_features: int | None = None) -> Params:
        """Draws parameters.

        Args:
            key: a typed key.
            in_features: D, the width of what reads.
            memory_features: E, the width of what an encoder left; None: the own past, so D.
        """

    @abc.abstractmethod
    def write(self, params: Params, xs: Features, position: Positions) -> Any:
        """What each step leaves behind: a tree of arrays `[B, T, ...]`.

        Args:
            params: parameters.
            xs: `[B, T, D]`.
            position: `[B, T]` int32.
        """

    @abc.abstractmethod
    def read(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[Contexts, AttentionWeights]:
        """What each step reads.

        Returns:
            Contexts `[B, T, K]`, and the weights on the memory averaged over heads, `[B, T, M]`.
            A step that sees nothing must give zero.
        """

    def read_part(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        """As `read`, of a part of the past, and before heads are joined: for time over devices.

        Returns:
            Contexts `[B, T, N, K]`, and the logarithm of what the softmax over this part divides
            by, `[B, T, N]` (`log_total`).
        """
        raise ValueError(
            f"{self}: cannot run with time over devices, since it has no `read_part`; use "
            "DotProduct, Additive or Multiplicative, or an attention with a window"
        )

    def join_heads(self, params: Params, contexts: jax.Array) -> Contexts:
        """Contexts `[B, T, N, K]` of all heads to `[B, T, K]`, by default side by side."""
        del params
        return contexts.reshape(*contexts.shape[:2], contexts.shape[2] * contexts.shape[3])

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> Cache:
        """An empty ring of `window` entries, or an empty cache of `capacity`."""
        (batch,) = batch_shape
        slots = capacity if self.window is None else self.window
        if slots < 1:
            raise ValueError(f"{type(self).__name__}: expected a capacity >= 1, got {capacity}")
        features = self._in_features(params)
        leaves = jax.tree.leaves(params)
        # Without parameters (`Multiplicative` by "dot") jax's own default is all there is to go by.
        dtype = at_least_float32(*leaves) if leaves else jnp.result_type(float)
        one = jax.ShapeDtypeStruct((1, 1, features), dtype)
        position = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        entry = jax.eval_shape(self.write, params, one, position)
        entry = jax.tree.map(lambda e: jax.ShapeDtypeStruct(e.shape[2:], e.dtype), entry)
        return empty_cache(entry, batch, slots)

    def write_memory(
        self, params: Params, encoded: Encodings, mask: EncodingsMask | None = None
    ) -> Memory:
        """What an encoder left, ready to be read, by `read_memory`, any number of times.

        Parameters for it are those of `init` with the width E of the encoder, which each kind takes
        as a third argument, `memory_features`.

        Args:
            params: parameters.
            encoded: `[B, S, E]`.
            mask: `[B, S]` bool or None; what is false is never read.

        Raises:
            ValueError: a wrong shape.
        """
        refuse_time_axis(f"{self}.write_memory", "encode on one device")
        encoded, mask, _ = check_sequence("encoded", encoded, mask, None, time_major=False)
        if mask is not None:
            encoded = select(mask, encoded, jnp.zeros_like(encoded))
        count = jnp.zeros(encoded.shape[0], jnp.int32)
        position, _ = chunk_positions(count, encoded.shape[1], mask, None)
        position = jnp.broadcast_to(position, encoded.shape[:2])
        return encoder_memory(self.write(params, encoded, position), position, mask)

    def read_memory(
        self, params: Params, xs: TimeMajor, memory: Memory
    ) -> tuple[TimeMajorOutputs, TimeMajorWeights]:
        """Reads, at each step, from the memory of an encoder.

        Args:
            params: parameters.
            xs: `[T, B, D]`, the queries.
            memory: from `write_memory`.

        Returns:
            Contexts `[T, B, K]` and weights `[T, B, S]`; NaN in the rows of an encoder that was not
            finite where it is read, zero where nothing is to be read.
        """
        xs = jnp.swapaxes(xs, 0, 1)
        shape = (*xs.shape[:2], memory.visible.shape[2])
        spread = memory.replace(  # type: ignore[attr-defined]
            visible=jnp.broadcast_to(memory.visible, shape),
            query_position=jnp.broadcast_to(memory.query_position, shape[:2]),
        )
        read = self.read(params, xs, spread)
        contexts, weights = (jnp.swapaxes(x, 0, 1) for x in poison(memory.spoilt, read))
        return contexts, weights

    def cache_of(self, state: State) -> State:
        """The part of the state that is a cache: by default all of it."""
        return state

    @use_mesh
    def apply(
        self,
        params: Params,
        xs: TimeMajor,
        state: State = None,
        *,
        mask: TimeMajorMask | None = None,
        resets: TimeMajorResets | None = None,
        key: PRNGKey | None = None,
    ) -> tuple[State, TimeMajorOutputs]:
        """See `Layer.apply`."""
        del key
        self._check_features(params, xs)
        if state is not None:
            self._check_state(params, state, xs.shape[1])
        given = (params, state, xs, mask, resets)
        params, state, xs, mask, resets = unify_types(given, (-1, 0, 1, 1, 1))
        T = xs.shape[0]
        if T == 0:
            one = jax.ShapeDtypeStruct((1, *xs.shape[1:]), xs.dtype)
            with time_over_devices(None):
                like = jax.eval_shape(self.apply, params, one)[1]
            return state, jnp.zeros((0, *like.shape[1:]), like.dtype)
        axis = time_axis(xs)
        xs, mask, resets = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, mask, resets))
        attend = self.attend if axis is None else functools.partial(attend_parts, self, axis)
        state, contexts = attend(params, xs, state, mask, resets)
        return state, jnp.swapaxes(contexts, 0, 1)

    def attend(
        self,
        params: Params,
        xs: jax.Array,
        state: Cache | None,
        mask: jax.Array | None,
        resets: jax.Array | None,
    ) -> tuple[Cache | None, jax.Array]:
        """The state after steps `[B, T, D]` of this device, and their contexts `[B, T, K]`."""
        T = xs.shape[1]
        if self.window is not None and is_known(T) and T > 2 * self.window:
            return self._attend_in_blocks(params, xs, state, mask, resets)
        if state is not None and self.window is None and is_known(T):
            capacity = state.position.shape[1]
            if T > capacity:
                raise ValueError(
                    f"xs: expected a chunk of at most {capacity} steps, the capacity of the cache "
                    f"of {self}; got {T}"
                )
        return self._attend_chunk(params, xs, state, mask, resets)[:2]

    def weights(
        self,
        params: Params,
        xs: TimeMajor,
        *,
        mask: TimeMajorMask | None = None,
        resets: TimeMajorResets | None = None,
    ) -> AttentionMap:
        """The weight of every step on every other in a whole sequence, averaged over heads.

        Args:
            params: parameters.
            xs: `[T, B, D]`.
            mask: `[T, B]` bool or None.
            resets: `[T, B]` bool or None.

        Returns:
            `[B, T, T]`, rows are readers; zero for a masked reader and for what is not seen.
        """
        refuse_time_axis(f"{self}.weights", "ask one device for the weights of a whole sequence")
        xs, mask, resets = check_sequence("xs", xs, mask, resets, time_major=True)
        self._check_features(params, xs)
        xs, mask, resets = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, mask, resets))
        return self._attend_chunk(params, xs, None, mask, resets)[2]

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Outputs and attention weights."""
        outputs = super().probe(params, xs, mask=mask, resets=resets)
        return outputs | {"weights": self.weights(params, xs, mask=mask, resets=resets)}

    def _in_features(self, params: Params) -> int:
        return params["query"]["kernel"].shape[0]

    def _check_features(self, params: Params, xs: jax.Array) -> int:
        features = self._in_features(params)
        if xs.ndim != 3 or xs.shape[-1] != features:
            raise ValueError(f"xs: expected [T, B, {features}] for {self}; got shape {xs.shape}")
        return features

    def _check_state(self, params: Params, state: State, batch: int) -> None:
        filled = isinstance(state, Cache) and jnp.ndim(state.position) == 2
        capacity = state.position.shape[1] if filled else 1
        like = jax.eval_shape(lambda p: self.init_state(p, (batch,), capacity), params)
        check_like("state", state, like, f"{self}, batch {batch}")

    def _attend_chunk(
        self,
        params: Params,
        xs: jax.Array,
        state: Cache | None,
        mask: jax.Array | None,
        resets: jax.Array | None,
    ) -> tuple[Cache | None, jax.Array, jax.Array]:
        """The state after a chunk `[B, T, D]`, its contexts `[B, T, K]` and weights `[B, T, M]`."""
        if mask is not None:
            xs = select(mask, xs, jnp.zeros_like(xs))
        count = jnp.zeros(xs.shape[0], jnp.int32) if state is None else state.count
        position, segment = chunk_positions(count, xs.shape[1], mask, resets)
        entries = self.write(params, xs, position)
        memory = chunk_memory(state, entries, position, segment, mask, self.window)
        contexts, weights = self._read_in_parts(params, xs, memory)
        # A wider cache is not seen in what is read.
        contexts = contexts.astype(at_least_float32(xs, *jax.tree.leaves(params)))
        if mask is not None:
            contexts = select(mask, contexts, jnp.zeros_like(contexts))
        nan = memory.spoilt
        if state is not None and self.window is None:
            overflow = position >= state.position.shape[1]
            nan |= overflow if mask is None else mask & overflow
        contexts, weights = poison(nan, (contexts, weights))
        if state is not None:
            state = append_to_cache(state, entries, position, segment, mask)
        return state, contexts, weights

    def _read_in_parts(
        self, params: Params, xs: jax.Array, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        """As `read`: part after part of the steps, each with no more than the entries before it.

        Of the scores of the future, which no step sees, one in `PARTS` is left.
        """
        T = xs.shape[1]
        size = LEAST * -(-T // (PARTS * LEAST)) if is_known(T) else T
        if not is_known(T) or size >= T:
            return self.read(params, xs, memory)
        in_parts = functools.partial(self._read_each_part, size)
        return on_cpu_or_else(in_parts, self.read, params, xs, memory)

    def _read_each_part(
        self, size: int, params: Params, xs: jax.Array, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        T, parts = xs.shape[1], []
        for start in range(0, T, size):
            stop = min(start + size, T)
            contexts, weights = self.read(params, xs[:, start:stop], memory.of_steps(start, stop))
            parts.append((contexts, jnp.pad(weights, ((0, 0), (0, 0), (0, T - stop)))))
        return jax.tree.map(lambda *pieces: jnp.concatenate(pieces, axis=1), *parts)

    def _attend_in_blocks(
        self,
        params: Params,
        xs: jax.Array,
        state: Cache | None,
        mask: jax.Array | None,
        resets: jax.Array | None,
    ) -> tuple[Cache | None, jax.Array]:
        """Blocks of `window` steps in turn, so that time and memory grow with T, not with T²."""
        assert self.window is not None
        window = self.window
        keep = state is not None
        if not keep:
            state, _ = unify_types((self.init_state(params, xs.shape[:1], window), xs), 0)
        T = xs.shape[1]
        blocks = -(-T // window)
        if mask is None and T % window:
            mask = ~zeros_like(xs[..., 0], bool)

        def split(x: jax.Array) -> jax.Array:  # [B, T, ...] to [blocks, B, window, ...]
            # Padding is masked, and a masked step neither writes nor advances.
            extra = blocks * window - T
            x = jnp.pad(x, [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2))
            x = x.reshape(x.shape[0], blocks, window, *x.shape[2:])
            return jnp.swapaxes(x, 0, 1)

        params_of_block = through_float32(params)

        def body(
            state: Cache, block: tuple[jax.Array, jax.Array | None, jax.Array | None]
        ) -> tuple[Cache, jax.Array]:
            xs, mask, resets = block
            new, contexts, _ = self._attend_chunk(params_of_block(), xs, state, mask, resets)
            assert new is not None
            return new, contexts

        inputs = jax.tree.map(split, (xs, mask, resets))
        state, contexts = jax.lax.scan(body, state, inputs)
        contexts = jnp.swapaxes(contexts, 0, 1)
        steps = blocks * window
        contexts = contexts.reshape(contexts.shape[0], steps, contexts.shape[-1])[:, :T]
        return (state if keep else None), contexts
