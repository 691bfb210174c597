"""The Elman network."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.cell import Carry
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params
from longlag.core.spec import choose

__all__ = ["Elman"]


class Elman(DenseCell):
    """The simple recurrent network: the hidden state is fed back through one layer.

        h' = φ(W x + b + U h)
        y  = h'

    Attributes:
        features: H.
        activation: φ, "tanh" or "relu".
        recurrent_init: "orthogonal", or "identity": with relu this is the IRNN (Le et al. 2015),
            which at its beginning adds its inputs up and forgets nothing.

    Parameters: `input.kernel` `[D, H]`, `input.bias` `[H]`, `recurrent.kernel` `[H, H]`.

    Reference: Elman 1990, "Finding structure in time", Cognitive Science 14; Le, Jaitly and Hinton
    2015, arXiv 1504.00941.

    Cost: H (D + H + 1) parameters, carry H, one recurrent product `[H, H]` per step.
    """

    activation: Literal["tanh", "relu"] = "tanh"
    recurrent_init: Literal["orthogonal", "identity"] = "orthogonal"

    gates = ("h",)

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.activation, ("tanh", "relu"), "Elman.activation")
        choose(self.recurrent_init, ("orthogonal", "identity"), "Elman.recurrent_init")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every dense cell, or with the identity as recurrent kernel."""
        params = super().init(key, in_features)
        if self.recurrent_init == "identity":
            kernel = params["recurrent"]["kernel"]
            params["recurrent"]["kernel"] = jnp.eye(self.features, dtype=kernel.dtype)
        return params

    def update(self, params: Params, carry: Carry, z: Gates) -> tuple[Carry, StepOutputs]:
        """h' = φ(z)."""
        activate = jnp.tanh if self.activation == "tanh" else jax.nn.relu
        h = activate(z[0])
        return Carry(h), h
