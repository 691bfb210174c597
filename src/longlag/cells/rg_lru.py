"""The real-gated linear recurrent unit of Griffin."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid, softplus

from longlag.core.affine_cell import SeparableCell
from longlag.core.array_types import Gate, PRNGKey, StepInputs
from longlag.core.cell import Carry
from longlag.core.linear_cell import GatedLinearCell
from longlag.core.ops import Params, gate_projection
from longlag.core.promotion import add, multiply, widen

__all__ = ["RGLRU"]

# The paper's c: how much a recurrence gate may shorten a memory.
SHARPNESS = 8.0


class RGLRU(SeparableCell[Carry], GatedLinearCell):
    """A linear recurrence with a gate on its decay and one on its input, of constant variance.

        r = σ(W_r x + b_r)                    recurrence gate
        i = σ(W_i x + b_i)                    input gate
        u = W_u x + b_u
        a = exp(-8 r ⊙ softplus(Λ))
        h' = a ⊙ h + √(1 - a²) ⊙ (i ⊙ u)
        y  = h'

    In Griffin u is x itself, after a linear layer and a short convolution, and W_r and W_i are
    block-diagonal: `longlag.GriffinMixer`.

    Attributes:
        features: H.
        input_kernel: False: the input is r, i and u without their biases, side by side.
        negative_eigenvalues: 2a - 1 in place of a; √(1 - a²) stays.

    Parameters: `input.kernel` `[D, 3H]`, `input.bias` `[3H]`, parts in the order r, i, u; `decay`
    `[H]`, Λ, begun so that a is uniform in [.9, .999] at r = 1.

    Reference: De et al. 2024, arXiv 2402.19427, section 2.4.

    Cost: 3H (D + 1) + H parameters, carry H, no recurrent product.
    """

    gates = ("r", "i", "u")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every linear cell, and Λ."""
        key, decay_key = jax.random.split(key)
        a = jax.random.uniform(decay_key, (self.features,), minval=0.9, maxval=0.999)
        decay = jnp.log(jnp.expm1(-jnp.log(a) / SHARPNESS))
        return super().init(key, in_features) | {"decay": decay}

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[Gate, Gate, None]:
        """The decay a, and the gated input at the variance that is left."""
        del key
        r, i, u = gate_projection(params["input"], xs, len(self.gates))
        decay = widen(params["decay"])
        log_a = multiply(-SHARPNESS * sigmoid(r), softplus(decay))
        # 1 - a², without the cancellation where a is near one. Below 1e-12 it is -2 log a, whose
        # root is finite in value and slope as the exponential of half its logarithm.
        variance = -jnp.expm1(2 * log_a)
        log_rate = add(log_sigmoid(r), log_softplus(decay))
        near_one = jnp.exp(0.5 * (log_rate + math.log(2 * SHARPNESS)))
        scale = jnp.where(variance < 1e-12, near_one, jnp.sqrt(jnp.maximum(variance, 1e-12)))
        return self.bounded(jnp.exp(log_a)), scale * sigmoid(i) * u, None


def log_softplus(x: jax.Array) -> jax.Array:
    """The logarithm of softplus, which is `x` itself where softplus is too small for its dtype."""
    small = x < -20
    return jnp.where(small, x, jnp.log(softplus(jnp.where(small, 0, x))))
