"""The minimal LSTM of "Were RNNs all we needed?"."""

from __future__ import annotations

import jax.numpy as jnp
from jax.nn import sigmoid, softplus

from longlag.core.array_types import Gate, PRNGKey, StepInputs
from longlag.core.linear_cell import GatedLinearCell
from longlag.core.ops import Params, gate_projection

__all__ = ["MinLSTM"]


class MinLSTM(GatedLinearCell):
    """minLSTM: an LSTM whose gates see the input only and share out what is kept and written.

        f = σ(W_f x + b_f),  i = σ(W_i x + b_i)
        n = W_n x + b_n
        h' = f / (f + i) ⊙ h + i / (f + i) ⊙ n
        y  = h'

    Attributes:
        features: H.
        forget_bias: initial b_f.
        negative_eigenvalues: twice the share kept, less one, in place of the share kept.

    Parameters: `input.kernel` `[D, 3H]`, `input.bias` `[3H]`, parts in the order f, i, n.

    Reference: Feng et al. 2024, arXiv 2410.01201, section 3.2 with the shares of 3.2.3.

    Cost: 3H (D + 1) parameters, carry H, no recurrent product.
    """

    forget_bias: float = 0.0

    gates = ("f", "i", "n")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every linear cell, with the forget bias."""
        params = super().init(key, in_features)
        f, i, n = jnp.split(params["input"]["bias"], 3)
        params["input"]["bias"] = jnp.concatenate([f + self.forget_bias, i, n])
        return params

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[Gate, Gate, None]:
        """The share kept, and the share written of the candidate."""
        del key
        f, i, n = gate_projection(params["input"], xs, len(self.gates))
        # f / (f + i) = σ(log f - log i), which no small f or i spoils.
        log_odds = softplus(-i) - softplus(-f)
        return self.bounded(sigmoid(log_odds)), sigmoid(-log_odds) * n, None
