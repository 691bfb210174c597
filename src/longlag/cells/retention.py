"""Retention."""

from __future__ import annotations

import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, StepInputs
from longlag.core.matrix_cell import Association, MatrixCell
from longlag.core.ops import Params

__all__ = ["Retention"]


class Retention(MatrixCell):
    """Linear attention that forgets at a fixed rate, another one in every head.

        q = W_q x + b_q,  k = (W_k x + b_k) / √K,  v = W_v x + b_v
        S' = γ S + k vᵀ,   γ = 1 - 2^(-5 - head)
        y  = S'ᵀ q

    Without the rotation of q and k and the gated, normalised output of RetNet: these are layers'.

    Fields as in `MatrixCell`. Parameters: `input.kernel` `[D, 2 N K + H]` and `input.bias`, parts
    in the order q, k, v.

    Reference: Sun et al. 2023, arXiv 2307.08621.

    Cost: (2 N K + H) (D + 1) parameters, carry N K V, no recurrent product.
    """

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """The fixed decay of each head."""
        del key
        q, k, v = self.per_head(params, xs)
        forgets = 2.0 ** (-5 - jnp.arange(self.heads, dtype=q.dtype))
        return Association(q, k * self.key_width**-0.5, v, log_decay=jnp.log1p(-forgets)[:, None])
