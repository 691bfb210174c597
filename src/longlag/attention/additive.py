"""Additive attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory, attention_weights, log_total
from longlag.core.any_length import is_known
from longlag.core.array_types import AttentionWeights, Contexts, Features, Positions, PRNGKey
from longlag.core.ops import Params, affine, dot
from longlag.core.promotion import contract, widen

__all__ = ["Additive"]

# Steps that are scored together. The scores of one block are [B, QUERY_BLOCK, M, A], never
# [B, T, M, A]; the gradient computes each block again rather than keep it.
QUERY_BLOCK = 16


class Additive(Attention):
    """Additive attention over a recurrence's own past outputs, or over an encoder's.

        e[t, s] = v · tanh(W_q x[t] + W_k m[s] + b)
        α[t]    = softmax over s of e[t, s]
        y[t]    = Σ_s α[t, s] m[s]

    The query comes from the present state of the recurrence, keys and values from what the encoder
    left, or from all its own states so far, the present one included: m is x.

    Attributes:
        features: A, the width of the scoring network.
        window: None (everything), or how many positions are read.

    Parameters: `query.kernel` `[D, A]`, `query.bias` `[A]`, `key.kernel` `[E, A]`, `score.kernel`
    `[A, 1]`, for a memory of width E, which is D over the own past.

    Reference: Bahdanau, Cho and Bengio 2015, arXiv 1409.0473, there over an encoder's states.

    Cost: A (D + E + 2) parameters; each step of the cache A + E numbers.
    """

    def init(self, key: PRNGKey, in_features: int, memory_features: int | None = None) -> Params:
        """Draws parameters: LeCun normal kernels, zero bias."""
        memory_features = in_features if memory_features is None else memory_features
        keys = jax.random.split(key, 3)
        lecun = initializers.lecun_normal()
        return {
            "query": {
                "kernel": lecun(keys[0], (in_features, self.features)),
                "bias": jnp.zeros(self.features),
            },
            "key": {"kernel": lecun(keys[1], (memory_features, self.features))},
            "score": {"kernel": lecun(keys[2], (self.features, 1))},
        }

    def write(self, params: Params, xs: Features, position: Positions) -> Any:
        """The step's key W_k x and its value x."""
        del position
        return {"key": dot(xs, params["key"]["kernel"]), "value": xs}

    def read(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[Contexts, AttentionWeights]:
        """The equations above, in blocks of queries."""
        return self._read_blocks(params, xs, memory, lambda logits, part, weights: weights)

    def read_part(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        """See `Attention.read_part`; one head."""
        contexts, total = self._read_blocks(
            params, xs, memory, lambda logits, part, weights: log_total(logits, part)[..., None]
        )
        return contexts[:, :, None], total

    def _read_blocks(
        self,
        params: Params,
        xs: jax.Array,
        memory: Memory,
        beside: Callable[[jax.Array, Memory, jax.Array], jax.Array],
    ) -> tuple[jax.Array, jax.Array]:
        """Contexts `[B, T, E]`, and `[B, T, ...]` of scores, memory and weights `[B, Q, M]`."""
        queries = affine(params["query"], xs)
        score = widen(params["score"]["kernel"])[:, 0]

        @jax.checkpoint
        def read_block(
            inputs: tuple[jax.Array, jax.Array, jax.Array | None],
        ) -> tuple[jax.Array, jax.Array]:
            queries, visible, scale = inputs  # [B, Q, A], [B, Q, M], [B, Q, M] or None
            hidden = jnp.tanh(queries[:, :, None, :] + memory.entries["key"][:, None, :, :])
            part = memory.replace(visible=visible, scale=scale)  # type: ignore[attr-defined]
            logits = hidden @ score
            weights = attention_weights(logits, part)
            contexts = contract("bqm,bmd->bqd", weights, memory.entries["value"])
            return contexts, beside(logits, part, weights)

        B, T, _ = queries.shape
        if is_known(T) and T <= QUERY_BLOCK:
            return read_block((queries, memory.visible, memory.scale))
        size = QUERY_BLOCK if is_known(T) else 1
        blocks = -(-T // size)

        def split(x: jax.Array) -> jax.Array:  # [B, T, K] to [blocks, B, size, K]
            x = jnp.pad(x, [(0, 0), (0, blocks * size - T), (0, 0)])
            return jnp.swapaxes(x.reshape(B, blocks, size, x.shape[2]), 0, 1)

        def join(x: jax.Array) -> jax.Array:  # the other way
            return jnp.swapaxes(x, 0, 1).reshape(B, blocks * size, x.shape[3])[:, :T]

        inputs = jax.tree.map(split, (queries, memory.visible, memory.scale))
        contexts, others = jax.lax.map(read_block, inputs)
        return join(contexts), join(others)
