"""The gated recurrent unit."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.cell import Carry
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, dot
from longlag.core.promotion import add
from longlag.core.spec import choose

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

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every dense cell; the recurrent bias of the candidate is zero."""
        params = super().init(key, in_features)
        if self.reset == "after":
            params["recurrent"]["bias"] = jnp.zeros(self.features)
        return params

    def mix(self, params: Params, carry: Carry, u: Gates) -> Gates:
        """One product for all gates, or two in a row where the reset comes before the second.

        Returns:
            r, z, n before their activations; with reset="after" n in two parts, the input's and
            the state's.
        """
        kernel = params["recurrent"]["kernel"]
        if self.reset == "after":
            products = jnp.split(dot(carry.h, kernel), 3, axis=-1)
            reset, update = u[0] + products[0], u[1] + products[1]
            return reset, update, u[2], add(products[2], params["recurrent"]["bias"])
        of_gates, of_candidate = kernel[:, : 2 * self.features], kernel[:, 2 * self.features :]
        products = jnp.split(dot(carry.h, of_gates), 2, axis=-1)
        reset, update = u[0] + products[0], u[1] + products[1]
        return reset, update, u[2] + dot(sigmoid(reset) * carry.h, of_candidate)

    def update(self, params: Params, carry: Carry, z: Gates) -> tuple[Carry, StepOutputs]:
        """The equations above, from the pre-activations."""
        gates = self._gates(z)
        h = (1 - gates["z"]) * gates["n"] + gates["z"] * carry.h
        return Carry(h), h

    def probe(self, params: Params, carry: Carry, u: Gates) -> dict[str, jax.Array]:
        """The gates r and z and the candidate n."""
        return self._gates(self.mix(params, carry, u))

    def _gates(self, z: Gates) -> dict[str, jax.Array]:
        reset, update = sigmoid(z[0]), sigmoid(z[1])
        candidate = z[2] + reset * z[3] if self.reset == "after" else z[2]
        return {"r": reset, "z": update, "n": jnp.tanh(candidate)}
