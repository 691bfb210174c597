"""The short causal convolution that stands before many a linear recurrence."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from longlag.core.any_length import associative_scan
from longlag.core.array_types import PRNGKey
from longlag.core.ops import Params
from longlag.core.over_devices import at_end, entering, time_axis
from longlag.core.over_devices import before as before_device
from longlag.core.placement import put_rows, take_rows, unify_types, zeros_like
from longlag.core.promotion import at_least_float32, multiply
from longlag.nn.layer import Layer, State

__all__ = ["ShortConvolution"]


class ShortConvolution(Layer):
    """A causal convolution over a few steps, one filter per feature.

        y[t] = b + Σ_j w[j] ⊙ x[t - j],   j = 0 .. width - 1

    As everywhere, steps are the unmasked ones since the last reset; before them, x is zero. The
    state is the last `width - 1` inputs, `[B, width - 1, D]`, the newest last.

    Attributes:
        width: steps that an output sees.
        bias: whether there is b.

    Parameters: `kernel` `[width, D]`, `kernel[0]` for the present step, uniform within ±1 / √width;
    `bias` `[D]`, zero.

    Reference: Fu et al. 2023, arXiv 2212.14052 (H3); Gu and Dao 2023, arXiv 2312.00752.
    """

    width: int = 4
    bias: bool = True

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"ShortConvolution.width: expected at least 1, got {self.width}")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Draws the filters."""
        bound = self.width**-0.5
        shape = (self.width, in_features)
        kernel = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        return {"kernel": kernel} | ({"bias": jnp.zeros(in_features)} if self.bias else {})

    def init_state(self, params: Params, batch_shape: Any, capacity: int) -> State:
        """Zeros."""
        del capacity
        features = params["kernel"].shape[1]
        dtype = at_least_float32(params["kernel"])
        return jnp.zeros((*batch_shape, self.width - 1, features), dtype)

    def apply(
        self,
        params: Params,
        xs: jax.Array,
        state: State = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        """See `Layer.apply`."""
        del key
        T, B, _ = xs.shape
        before = self.width - 1
        keep = state is not None
        past = self.init_state(params, (B,), 0) if state is None else state
        given = (params, past, xs, mask, resets)
        params, past, xs, mask, resets = unify_types(given, (-1, 0, 1, 1, 1))
        kernel = params["kernel"]
        xs = jnp.swapaxes(xs, 0, 1).astype(past.dtype)
        # Resets so far; an input is seen only by steps of its own segment.
        segment = zeros_like(xs[..., 0], jnp.int32)
        if resets is not None:
            segment = associative_scan(jnp.add, resets.T.astype(jnp.int32), axis=1)
        total = segment[:, -1:] if T else jnp.zeros((B, 1), jnp.int32)
        live, of_live = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T)), segment
        count = jnp.full((B, 1), T, jnp.int32)
        if mask is not None:
            # The unmasked steps side by side: their inputs and segments, then gaps of no segment,
            # which see no input: a NaN in it would reach the gradient of the kernel.
            taken = associative_scan(jnp.add, mask.T.astype(jnp.int32), axis=1)
            live, count = taken - 1, taken[:, -1:] if T else jnp.zeros((B, 1), jnp.int32)
            slot = jnp.where(mask.T, live, T)
            xs = put_rows(zeros_like(xs), slot, xs)
            of_live = put_rows(zeros_like(segment) - 1, slot, segment)
        count, _ = unify_types((count, xs), 0)
        blank = zeros_like(past[..., 0], jnp.int32)
        of_input = jnp.concatenate([blank, of_live], axis=1)

        def newest(inputs: jax.Array) -> jax.Array:
            """The newest inputs of the segment that goes on; what a reset has cut off is zero."""
            at = count + jnp.arange(before, dtype=jnp.int32)[None]
            kept = (take_rows(of_input, at) == total)[..., None]
            return jnp.where(kept, take_rows(inputs, at), 0)

        axis = time_axis(xs)
        if axis is not None:
            alone = newest(jnp.concatenate([zeros_like(past), xs], axis=1))
            if mask is None and T >= before:
                past = before_device(axis, alone, past)
            else:
                part = Tail(alone, jnp.minimum(count, before), total > 0)
                first = Tail(past, part.filled, part.forgets)
                past = entering(axis, part, first, _join_tails).inputs
        inputs = jnp.concatenate([past, xs], axis=1)
        ys = jnp.zeros_like(xs)
        if self.bias:
            ys = jnp.broadcast_to(params["bias"].astype(past.dtype), xs.shape)
        for j in range(self.width):
            at = slice(before - j, before - j + T)
            same = (of_input[:, at] == of_live)[..., None]
            ys = ys + multiply(jnp.where(same, inputs[:, at], 0), kernel[j])
        if mask is not None:
            ys = jnp.where(mask.T[..., None], take_rows(ys, jnp.maximum(live, 0)), 0)
        if keep:
            state = at_end(axis, newest(inputs))
        return state, jnp.swapaxes(ys, 0, 1)


class Tail(NamedTuple):
    """What a part of a sequence leaves to the steps after it.

    Attributes:
        inputs: the last ones, `[B, width - 1, D]`, the newest last.
        filled: how many of them are of this part, `[B, 1]` int32.
        forgets: whether the part has a reset, `[B, 1]` bool.
    """

    inputs: jax.Array
    filled: jax.Array
    forgets: jax.Array


def _join_tails(earlier: Tail, later: Tail) -> Tail:
    """That of two parts in a row."""
    before = later.inputs.shape[1]
    at = later.filled + jnp.arange(before, dtype=jnp.int32)[None]
    # Those that the later part has, and before them the newest of the earlier one.
    moved = jnp.where(at < before, at, at + before - later.filled)
    moved = take_rows(jnp.concatenate([earlier.inputs, later.inputs], axis=1), moved)
    return Tail(
        jnp.where(later.forgets[..., None], later.inputs, moved),
        jnp.minimum(earlier.filled + later.filled, before),
        earlier.forgets | later.forgets,
    )
