"""Linear attention as a recurrence."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.matrix_cell import Association, MatrixCell, Reads, merge_heads
from longlag.core.ops import Params

__all__ = ["LinearAttention"]


class LinearAttention(MatrixCell):
    """Attention with a kernel in place of the softmax, which a matrix of state sums up.

        q = φ(W_q x + b_q),  k = φ(W_k x + b_k),  v = W_v x + b_v,   φ(s) = elu(s) + 1
        S' = S + k vᵀ,   n' = n + k
        y  = S'ᵀ q / (n'ᵀ q)

    Fields as in `MatrixCell`. Parameters: `input.kernel` `[D, 2 N K + H]` and `input.bias`, parts
    in the order q, k, v. The state has a column for n.

    Reference: Katharopoulos et al. 2020, arXiv 2006.16236.

    Cost: (2 N K + H) (D + 1) parameters, carry N K (V + 1), no recurrent product.
    """

    normalised = True

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """Positive queries and keys."""
        del key
        q, k, v = self.per_head(params, xs)
        return Association(elu_plus_one(q), elu_plus_one(k), v)

    def readout(self, params: Params, reads: Reads, aux: None) -> StepOutputs:
        """The mean of the values, weighted by the kernel; zero where nothing was written."""
        return merge_heads(reads.y / (reads.norm[..., None] + 1e-6))


def elu_plus_one(s: jax.Array) -> jax.Array:
    """elu(s) + 1, without the cancellation that leaves no digit of exp(s) where s is below -16."""
    return jnp.where(s > 0, s + 1, jnp.exp(jnp.where(s > 0, 0, s)))
