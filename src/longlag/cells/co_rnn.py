"""The coupled oscillatory network."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, dot

__all__ = ["CoRNN", "CoRNNCarry"]


@flax.struct.dataclass
class CoRNNCarry:
    """The state of a coRNN.

    Attributes:
        y: positions of the oscillators, the last output, `[*batch, H]`.
        z: their velocities, `[*batch, H]`.
    """

    y: jax.Array
    z: jax.Array


class CoRNN(DenseCell[CoRNNCarry]):
    """Coupled, damped and driven oscillators, one step of an explicit-implicit scheme per input.

        z' = z + Δt (tanh(W y + 𝒲 z + V x + b) - γ y - ε z)
        y' = y + Δt z'

    Attributes:
        features: H.
        step_size: Δt, in (0, 1).
        stiffness: γ > 0.
        damping: ε > 0.

    Parameters: `input.kernel` `[D, H]`, V; `input.bias` `[H]`; `recurrent.kernel` `[2H, H]`, W
    above 𝒲, each orthogonal.

    Reference: Rusch and Mishra 2021, arXiv 2010.00951, equation 3 with the damping of the last step
    (as in their code). Δt, γ and ε are to be tuned for each task; the defaults here are those of
    their code for sequential MNIST.

    Cost: H (D + 2H + 1) parameters, carry 2H, one recurrent product `[2H, H]` per step.
    """

    step_size: float = 0.042
    stiffness: float = 2.7
    damping: float = 4.7

    gates = ("z",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step_size < 1:
            raise ValueError(f"CoRNN.step_size: expected 0 < Δt < 1, got {self.step_size}")
        for name in ("stiffness", "damping"):
            if getattr(self, name) <= 0:
                raise ValueError(f"CoRNN.{name}: expected more than 0, got {getattr(self, name)}")

    def init_recurrent(self, key: PRNGKey) -> Params:
        """W and 𝒲."""
        shape = (self.features, self.features)
        kernels = [initializers.orthogonal()(k, shape) for k in jax.random.split(key)]
        return {"kernel": jnp.concatenate(kernels)}

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> CoRNNCarry:
        """At rest."""
        shape = (*batch_shape, self.features)
        return CoRNNCarry(y=jnp.zeros(shape, dtype), z=jnp.zeros(shape, dtype))

    def mix(self, params: Params, carry: CoRNNCarry, u: Gates) -> Gates:
        """The sum under the tanh."""
        both = jnp.concatenate([carry.y, carry.z], axis=-1)
        return (u[0] + dot(both, params["recurrent"]["kernel"]),)

    def update(self, params: Params, carry: CoRNNCarry, z: Gates) -> tuple[CoRNNCarry, StepOutputs]:
        """The equations above."""
        force = jnp.tanh(z[0]) - self.stiffness * carry.y - self.damping * carry.z
        velocity = carry.z + self.step_size * force
        y = carry.y + self.step_size * velocity
        return CoRNNCarry(y, velocity), y
