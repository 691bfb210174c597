"""Additive attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory, masked_softmax
from longlag.cell import Params, dot

__all__ = ["Additive"]

# Steps that are scored together. The scores of one block are [B, QUERY_BLOCK, M, A], never
# [B, T, M, A]; the gradient computes each block again rather than keep it.
QUERY_BLOCK = 16


class Additive(Attention):
    """Additive attention over a recurrence's own past outputs.

        e[t, s] = v · tanh(W_q x[t] + W_k x[s] + b)
        α[t]    = softmax over s of e[t, s]
        y[t]    = Σ_s α[t, s] x[s]

    The query comes from the present state of the recurrence, keys and values from all its states
    so far, the present one included.

    Attributes:
        features: A, the width of the scoring network.
        window: None (everything), or how many positions are read.

    Parameters: `query.kernel` `[D, A]`, `query.bias` `[A]`, `key.kernel` `[D, A]`, `score.kernel`
    `[A, 1]`.

    Reference: Bahdanau, Cho and Bengio 2015, arXiv 1409.0473, there over an encoder's states.

    Cost: A (2D + 2) parameters; each step of the cache A + D numbers.
    """

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Draws parameters: LeCun normal kernels, zero bias."""
        keys = jax.random.split(key, 3)
        lecun = initializers.lecun_normal()
        shape = (in_features, self.features)
        return {
            "query": {"kernel": lecun(keys[0], shape), "bias": jnp.zeros(self.features)},
            "key": {"kernel": lecun(keys[1], shape)},
            "score": {"kernel": lecun(keys[2], (self.features, 1))},
        }

    def write(self, params, xs, position):
        """The step's key W_k x and its value x."""
        del position
        return {"key": dot(xs, params["key"]["kernel"]), "value": xs}

    def read(self, params: Params, xs: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """The equations above, in blocks of queries."""
        queries = dot(xs, params["query"]["kernel"]) + params["query"]["bias"]
        score = params["score"]["kernel"][:, 0]

        @jax.checkpoint
        def block(inputs):
            queries, visible = inputs  # [B, Q, A], [B, Q, M]
            hidden = jnp.tanh(queries[:, :, None, :] + memory.entries["key"][:, None, :, :])
            weights = masked_softmax(hidden @ score, visible)
            return jnp.einsum("bqm,bmd->bqd", weights, memory.entries["value"]), weights

        B, T, _ = queries.shape
        if T <= QUERY_BLOCK:
            return block((queries, memory.visible))
        blocks = -(-T // QUERY_BLOCK)

        def split(x):
            x = jnp.pad(x, [(0, 0), (0, blocks * QUERY_BLOCK - T), (0, 0)])
            return jnp.swapaxes(x.reshape(B, blocks, QUERY_BLOCK, -1), 0, 1)

        def join(x):
            return jnp.swapaxes(x, 0, 1).reshape(B, blocks * QUERY_BLOCK, -1)[:, :T]

        contexts, weights = jax.lax.map(block, (split(queries), split(memory.visible)))
        return join(contexts), join(weights)
