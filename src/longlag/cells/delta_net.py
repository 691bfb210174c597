"""DeltaNet, with and without a gate on its memory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, silu, softplus

from longlag.core.affine_cell import SeparableCell
from longlag.core.array_types import PRNGKey, StepInputs
from longlag.core.matrix_cell import Association, MatrixCarry, MatrixCell, unit
from longlag.core.ops import Params, finite_exp
from longlag.core.promotion import multiply, widen

__all__ = ["DeltaNet", "GatedDeltaNet"]


class DeltaNet(SeparableCell[MatrixCarry], MatrixCell):
    """A memory that replaces what a key stands for, rather than add to it: the delta rule.

        q = unit(silu(W_q x + b_q)),  k = unit(silu(W_k x + b_k)),  v = silu(W_v x + b_v)
        β = σ(W_β x + b_β), or twice that                    a number for each head
        S' = S + β k (v - Sᵀ k)ᵀ = (I - β k kᵀ) S + β k vᵀ
        y  = S'ᵀ q

    Attributes:
        features: H.
        negative_eigenvalues: β in [0, 2]: I - β k kᵀ may then be a reflection, with which a state
            can be tracked (Grazzi et al. 2025, arXiv 2411.12537).
        input_kernel: False: the input is all the W x side by side, made by other layers:
            `longlag.GatedDeltaNetMixer`.

    Other fields as in `MatrixCell`. Parameters: `input.kernel` `[D, 2 N K + H + N]` and
    `input.bias`, parts in the order q, k, v, beta.

    Reference: Schlag, Irie and Schmidhuber 2021, arXiv 2102.11174; in parallel: Yang et al. 2024,
    arXiv 2406.06484. Their short convolutions and output normalisation are layers.

    Cost: (2 N K + H + N) (D + 1) parameters, carry N K V, no recurrent product.
    """

    negative_eigenvalues: bool = dataclasses.field(default=False, kw_only=True)

    gates = ("q", "k", "v", "beta")

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """Unit queries and keys, and β."""
        del key
        q, k, v, beta = self.per_head(params, xs)[:4]
        beta = (2 if self.negative_eigenvalues else 1) * sigmoid(beta)
        return Association(unit(silu(q)), unit(silu(k)), silu(v), rate=beta)


class GatedDeltaNet(DeltaNet):
    """DeltaNet with a gate that forgets everything at once.

        S' = (I - β k kᵀ) α S + β k vᵀ,   α = exp(-A softplus(W_α x + b_α))
        y  = S'ᵀ q,                       else as in `DeltaNet`

    Fields as in `DeltaNet`. Parameters as in `DeltaNet` with a part "alpha" more, `[D, N]`;
    `decay_log` `[N]`, log A, A uniform in [0, 16]; b_α so that softplus(b_α) is between .001 and
    .1, uniform in its logarithm.

    Reference: Yang, Kautz and Hatamizadeh 2025, arXiv 2412.06464; initialised as Mamba-2.

    Cost: (2 N K + H + 2N) (D + 1) + N parameters, carry N K V, no recurrent product.
    """

    gates = ("q", "k", "v", "beta", "alpha")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every matrix cell, with the decay of Mamba-2."""
        key, decay_key, step_key = jax.random.split(key, 3)
        params = super().init(key, in_features)
        low, high = jnp.log(1e-3), jnp.log(1e-1)
        step = jnp.exp(jax.random.uniform(step_key, (self.heads,), minval=low, maxval=high))
        bias = params["input"]["bias"].at[-self.heads :].set(step + jnp.log(-jnp.expm1(-step)))
        params["input"]["bias"] = bias
        # A of zero would have an infinite logarithm.
        rates = jax.random.uniform(decay_key, (self.heads,), minval=1e-3, maxval=16.0)
        return params | {"decay_log": jnp.log(rates)}

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """As DeltaNet, and the decay."""
        u = super().project(params, xs, key=key)
        alpha = self.per_head(params, xs)[4]
        log_decay = multiply(-finite_exp(widen(params["decay_log"])), softplus(alpha))
        return dataclasses.replace(u, log_decay=log_decay[..., None])
