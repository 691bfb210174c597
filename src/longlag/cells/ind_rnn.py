"""The independently recurrent network."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.cell import Carry
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params
from longlag.core.promotion import multiply

__all__ = ["IndRNN"]


class IndRNN(DenseCell):
    """A network whose features see, of the past, only themselves.

        h' = relu(W x + b + u ⊙ h)
        y  = h'

    Attributes:
        features: H.
        longest_lag: steps T through which a gradient may grow by a factor of 2 at most, or None: u
            is used within ±2^(1/T), the constraint of the paper's section 4.1.

    Parameters: `input.kernel` `[D, H]`, `input.bias` `[H]`, `recurrent.scale` `[H]`, u, drawn
    uniformly from [0, 1] as in the paper, or from [0, 2^(1/T)].

    Reference: Li et al. 2018, arXiv 1803.04831.

    Cost: H (D + 2) parameters, carry H, no recurrent product.
    """

    longest_lag: int | None = None

    gates = ("h",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest_lag is not None and self.longest_lag < 1:
            raise ValueError(
                f"IndRNN.longest_lag: expected at least 1 step, got {self.longest_lag}"
            )

    @property
    def bound(self) -> float:
        """The largest u."""
        return 1.0 if self.longest_lag is None else 2.0 ** (1 / self.longest_lag)

    def init_recurrent(self, key: PRNGKey) -> Params:
        """u, uniform from zero to its bound."""
        return {"scale": jax.random.uniform(key, (self.features,), maxval=self.bound)}

    def mix(self, params: Params, carry: Carry, u: Gates) -> Gates:
        """W x + b + u ⊙ h."""
        scale = params["recurrent"]["scale"]
        if self.longest_lag is not None:
            scale = jnp.clip(scale, -self.bound, self.bound)
        return (u[0] + multiply(scale, carry.h),)

    def update(self, params: Params, carry: Carry, z: Gates) -> tuple[Carry, StepOutputs]:
        """h' = relu(z)."""
        h = jax.nn.relu(z[0])
        return Carry(h), h
