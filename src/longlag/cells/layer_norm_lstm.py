"""The LSTM with layer normalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.cells.lstm import LSTM, LSTMCarry
from longlag.core.array_types import Gates, PRNGKey, StepInputs, StepOutputs
from longlag.core.ops import Params, dot
from longlag.core.promotion import add, multiply

__all__ = ["LayerNormLSTM"]

EPSILON = 1e-5


class LayerNormLSTM(LSTM):
    """An LSTM whose sums are normalised: over the input, over the state, and over the memory cell.

        (i, f, g, o) = α_x ⊙ N(W x) + α_h ⊙ N(U h) + b
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        h' = σ(o) ⊙ tanh(α_c ⊙ N(c') + β_c)
        y  = h'

    N takes mean and variance over all 4H entries of a product (over H for c'), as in the paper,
    equations 20 to 22; its two biases of the products are one here, b.

    Fields as in `LSTM`. Parameters as in `LSTM`, and `norm.input` `[4H]`, α_x; `norm.recurrent`
    `[4H]`, α_h; `norm.cell` `[H]`, α_c; all begin at one; and `norm.bias` `[H]`, β_c, at zero.

    Reference: Ba, Kiros and Hinton 2016, arXiv 1607.06450.

    Cost: 4H (D + H + 3) + 2H parameters, carry 2H, one recurrent product `[H, 4H]` per step.
    """

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As an LSTM; the normalisations begin as they are."""
        norm = {
            "input": jnp.ones(4 * self.features),
            "recurrent": jnp.ones(4 * self.features),
            "cell": jnp.ones(self.features),
            "bias": jnp.zeros(self.features),
        }
        return super().init(key, in_features) | {"norm": norm}

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Gates:
        """α_x ⊙ N(W x) + b, one array per gate."""
        del key
        products = normalise(dot(xs, params["input"]["kernel"]))
        products = add(multiply(products, params["norm"]["input"]), params["input"]["bias"])
        return tuple(jnp.split(products, 4, axis=-1))

    def mix(self, params: Params, carry: LSTMCarry, u: Gates) -> Gates:
        """All gates' sums."""
        products = normalise(dot(carry.h, params["recurrent"]["kernel"]))
        products = multiply(products, params["norm"]["recurrent"])
        parts = jnp.split(products, 4, axis=-1)
        return tuple(map(jnp.add, u, parts))

    def update(self, params: Params, carry: LSTMCarry, z: Gates) -> tuple[LSTMCarry, StepOutputs]:
        """The equations above, from the sums z."""
        i, f, g, o = z
        c = sigmoid(f) * carry.c + sigmoid(i) * jnp.tanh(g)
        scaled = add(multiply(normalise(c), params["norm"]["cell"]), params["norm"]["bias"])
        h = sigmoid(o) * jnp.tanh(scaled)
        return LSTMCarry(h, c), h


def normalise(x: jax.Array) -> jax.Array:
    """Mean zero and variance one along the last axis."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON)
