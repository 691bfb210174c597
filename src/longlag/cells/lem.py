"""Long expressive memory."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.core.array_types import Gates, StepOutputs
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, dot

__all__ = ["LEM", "LEMCarry"]


@flax.struct.dataclass
class LEMCarry:
    """The state of an LEM.

    Attributes:
        y: the last output, `[*batch, H]`.
        z: the other state, `[*batch, H]`.
    """

    y: jax.Array
    z: jax.Array


class LEM(DenseCell[LEMCarry]):
    """Two states that move at time scales of their own, learned and dependent on the input.

        τ  = Δt σ(W_τ y + V_τ x + b_τ)
        ρ  = Δt σ(W_ρ y + V_ρ x + b_ρ)
        z' = (1 - τ) ⊙ z + τ ⊙ tanh(W_z y + V_z x + b_z)
        y' = (1 - ρ) ⊙ y + ρ ⊙ tanh(W_y z' + V_y x + b_y)

    Attributes:
        features: H.
        step_size: Δt, in (0, 1].

    Parameters: `input.kernel` `[D, 4H]`, `input.bias` `[4H]`, `recurrent.kernel` `[H, 4H]`, parts
    in the order τ, ρ, z, y.

    Reference: Rusch et al. 2022, arXiv 2110.04744, equation 3.

    Cost: 4H (D + H + 1) parameters, carry 2H, recurrent products `[H, 3H]` and then `[H, H]` per
    step.
    """

    step_size: float = 1.0

    gates = ("tau", "rho", "z", "y")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step_size <= 1:
            raise ValueError(f"LEM.step_size: expected 0 < Δt <= 1, got {self.step_size}")

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> LEMCarry:
        """Both zero."""
        shape = (*batch_shape, self.features)
        return LEMCarry(y=jnp.zeros(shape, dtype), z=jnp.zeros(shape, dtype))

    def mix(self, params: Params, carry: LEMCarry, u: Gates) -> Gates:
        """The four sums, of which the last needs z'."""
        kernel = params["recurrent"]["kernel"]
        three, last = kernel[:, : 3 * self.features], kernel[:, 3 * self.features :]
        tau, rho, for_z = map(jnp.add, u[:3], jnp.split(dot(carry.y, three), 3, axis=-1))
        return tau, rho, for_z, u[3] + dot(self._move(carry.z, tau, for_z), last)

    def update(self, params: Params, carry: LEMCarry, z: Gates) -> tuple[LEMCarry, StepOutputs]:
        """The equations above, from the sums."""
        tau, rho, for_z, for_y = z
        y = self._move(carry.y, rho, for_y)
        return LEMCarry(y, self._move(carry.z, tau, for_z)), y

    def probe(self, params: Params, carry: LEMCarry, u: Gates) -> dict[str, jax.Array]:
        """The time steps τ and ρ."""
        tau, rho, _, _ = self.mix(params, carry, u)
        return {"tau": self.step_size * sigmoid(tau), "rho": self.step_size * sigmoid(rho)}

    def _move(self, state: jax.Array, gate: jax.Array, towards: jax.Array) -> jax.Array:
        gate = self.step_size * sigmoid(gate)
        return (1 - gate) * state + gate * jnp.tanh(towards)
