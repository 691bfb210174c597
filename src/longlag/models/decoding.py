"""Output of an encoder, state of a decoder, and one step of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory
from longlag.core.cell import Cell
from longlag.core.ops import Params, affine, dot
from longlag.core.promotion import add, at_least_float32, promote
from longlag.nn.containers import Stack
from longlag.nn.layer import Layer, State

__all__ = ["DecoderState", "Encoded"]


@flax.struct.dataclass
class Encoded:
    """The output of an encoder.

    Attributes:
        summary: `[B, W]`, made of its outputs.
        memory: what the attention reads, or None without one.
    """

    summary: jax.Array
    memory: Memory | None


@flax.struct.dataclass
class DecoderState:
    """The state of a decoder between two steps of the target.

    Attributes:
        layers: the states of its layers.
        attentional: `[B, W]`, the last attentional state, with input feeding; else None.
    """

    layers: Any
    attentional: jax.Array | None


def _context_features(attention: Attention, params: Params, hidden: int, encoded: int) -> int:
    """The width of what an attention reads."""
    xs, ms = (jax.ShapeDtypeStruct((1, 1, n), jnp.float32) for n in (hidden, encoded))

    def read(params: Params, xs: jax.Array, ms: jax.Array) -> jax.Array:
        return attention.read_memory(params, xs, attention.write_memory(params, ms))[0]

    return jax.eval_shape(read, params, xs, ms).shape[-1]


def _combine(
    attention: Attention | None, params: Params, memory: Memory | None, hs: jax.Array
) -> jax.Array:
    """h̃ from h, at every step: `[L, B, W]`."""
    if attention is not None:
        assert memory is not None
        contexts, _ = attention.read_memory(params["attention"], hs, memory)
        hs = jnp.concatenate(promote(hs, contexts), axis=-1)
    return jnp.tanh(affine(params["attentional"], hs))


class _InputFeeding(Cell[DecoderState]):
    """One step of the decoder with its attention: a cell, so that `unroll` runs it.

    The memory is one of its parameters: it is the same at every step, and its gradient is a sum
    over the steps like any parameter's.
    """

    layers: tuple[Layer, ...]
    attention: Attention | None
    width: int

    def init(self, key: jax.Array, in_features: int) -> Params:
        raise NotImplementedError("the parameters are those of Seq2Seq")

    def initial_carry(self, params: Params, batch_shape: Sequence[int] = ()) -> DecoderState:
        layers: State = Stack(self.layers).init_state(params["decoder"], batch_shape, 1)
        like = at_least_float32(params["attentional"]["kernel"])
        return DecoderState(layers, jnp.zeros((*batch_shape, self.width), like))

    def project(self, params: Params, xs: jax.Array, *, key: jax.Array | None = None) -> Any:
        del params
        return xs, None if key is None else jax.random.split(key, len(xs))

    def step(self, params: Params, carry: DecoderState, z: Any) -> tuple[DecoderState, Any]:
        u, key = z
        assert carry.attentional is not None
        u = add(u, dot(carry.attentional, params["feed"]["kernel"]))
        layers, hs = Stack(self.layers).apply(params["decoder"], u[None], carry.layers, key=key)
        combined = _combine(self.attention, params, params.get("memory"), hs)[0]
        return DecoderState(layers, combined), (combined, hs[0])
