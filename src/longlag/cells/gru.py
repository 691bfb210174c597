"""The gated recurrent unit."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.cell import Carry, DenseCell, Params, dot
from longlag.spec import choose

__all__ = ["GRU"]


class GRU(DenseCell):
    """The gated recurrent unit, with the reset after the recurrent product or before it.

        r = σ(W_r x + b_r + U_r h)                          reset
        z = σ(W_z x + b_z + U_z h)                          update
        n = tanh(W_n x + b_n + r ⊙ (U_n h + c_n))           candidate, reset="after"
        n = tanh(W_n x + b_n + U_n (r ⊙ h))                 candidate, reset="before"
        h' = (1 - z) ⊙ n + z ⊙ h
        y  = h'

    "after" is the form of cuDNN, torch and flax, and takes one product per step; "before" is the
    form of the paper.

    Attributes:
        features: H.
        reset: "after" or "before".

    Parameters: `input.kernel` `[D, 3H]`, `input.bias` `[3H]`, `recurrent.kernel` `[H, 3H]`, gates
    in the order r, z, n; with reset="after" also `recurrent.bias` `[H]`, the c_n above.

    Reference: Cho et al. 2014, arXiv 1406.1078; reset after: Chung et al. 2014 (arXiv 1412.3555)
    in the form of cuDNN.

    Cost: 3H (D + H + 1) parameters (+ H), carry H, recurrent products `[H, 3H]`, or `[H, 2H]` and
    then `[H, H]`, per step.
    """

    reset: Literal["after", "before"] = "after"

    gates = ("r", "z", "n")

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.reset, ("after", "before"), "GRU.reset")

    def init(self, key: jax.Array, in_features: int) -> Params:
        """As every dense cell; the recurrent bias of the candidate is zero."""
        params = super().init(key, in_features)
        if self.reset == "after":
            params["recurrent"]["bias"] = jnp.zeros(self.features)
        return params

    def mix(self, params, carry, u):
        """One product for all gates, or two in a row where the reset comes before the second."""
        if self.reset == "after":
            r, z, n = super().mix(params, carry, u)
            return r, z, n + params["recurrent"]["bias"]
        kernel = params["recurrent"]["kernel"]
        gates, candidate = kernel[:, : 2 * self.features], kernel[:, 2 * self.features :]
        r, z = jnp.split(dot(carry.h, gates), 2, axis=-1)
        return r, z, dot(sigmoid(u[0] + r) * carry.h, candidate)

    def update(self, params, carry, u, r):
        """The equations above, from the two parts u and r of every gate."""
        gates = self._gates(u, r)
        h = (1 - gates["z"]) * gates["n"] + gates["z"] * carry.h
        return Carry(h), h

    def probe(self, params, carry, z):
        """The gates r and z and the candidate n."""
        return self._gates(z, self.mix(params, carry, z))

    def _gates(self, u, mixed):
        r, z = sigmoid(u[0] + mixed[0]), sigmoid(u[1] + mixed[1])
        candidate = r * mixed[2] if self.reset == "after" else mixed[2]
        return {"r": r, "z": z, "n": jnp.tanh(u[2] + candidate)}
