"""Gated linear attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from longlag.core.array_types import PRNGKey, StepInputs
from longlag.core.matrix_cell import Association, MatrixCell, init_low_rank, low_rank_affine
from longlag.core.ops import Params
from longlag.core.weight_decay import by_name

__all__ = ["GLA"]


class GLA(MatrixCell):
    """Linear attention whose every key has a decay of its own, from the input.

        q = (W_q x + b_q) / √K,  k = W_k x + b_k,  v = W_v x + b_v
        α = σ(x W_↓ W_↑ + b_α)^(1/16)
        S' = diag(α) S + k vᵀ
        y  = S'ᵀ q

    Attributes:
        features: H.
        rank: of the map to α.

    Other fields as in `MatrixCell`. Parameters: `input.kernel` `[D, 2 N K + H]` and `input.bias`,
    parts in the order q, k, v; `decay.down` `[D, rank]`, `decay.up` `[rank, N K]`, `decay.bias` `[N
    K]`.

    Reference: Yang et al. 2024, arXiv 2312.06635; the gated output of their block is a layer's.

    Cost: (2 N K + H) (D + 1) + rank (D + N K) + N K parameters, carry N K V, no recurrent product.
    """

    rank: int = dataclasses.field(default=16, kw_only=True)

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every matrix cell, and the map to α."""
        key, decay_key = jax.random.split(key)
        keys = self.heads * self.key_width
        decay = init_low_rank(decay_key, in_features, self.rank, keys)
        return super().init(key, in_features) | {"decay": decay}

    def decays(self, params: Params) -> Any:
        """Kernels, also both of the map to α."""
        return by_name(params, "down", "up")

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """The decay of each key."""
        del key
        q, k, v = self.per_head(params, xs)
        log_decay = jax.nn.log_sigmoid(low_rank_affine(params["decay"], xs)) / 16
        return Association(q * self.key_width**-0.5, k, v, log_decay=self.split_heads(log_decay))
