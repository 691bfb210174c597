"""The minimal gated unit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.core.array_types import Gates, StepOutputs
from longlag.core.cell import Carry
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, dot

__all__ = ["MGU"]


class MGU(DenseCell):
    """The minimal gated unit: a GRU whose one gate both resets and updates.

        f  = σ(W_f x + b_f + U_f h)
        n  = tanh(W_n x + b_n + U_n (f ⊙ h))
        h' = (1 - f) ⊙ h + f ⊙ n
        y  = h'

    Attributes:
        features: H.

    Parameters: `input.kernel` `[D, 2H]`, `input.bias` `[2H]`, `recurrent.kernel` `[H, 2H]`, gates
    in the order f, n.

    Reference: Zhou et al. 2016, arXiv 1603.09420. (flax's `MGUCell` has f and 1 - f the other way
    round in h', so that it is another cell.)

    Cost: 2H (D + H + 1) parameters, carry H, two recurrent products `[H, H]` in a row per step.
    """

    gates = ("f", "n")

    def mix(self, params: Params, carry: Carry, u: Gates) -> Gates:
        """Two products in a row, since the gate meets the state before the second."""
        f = u[0] + dot(carry.h, self.recurrent_kernel(params, "f"))
        return f, u[1] + dot(sigmoid(f) * carry.h, self.recurrent_kernel(params, "n"))

    def update(self, params: Params, carry: Carry, z: Gates) -> tuple[Carry, StepOutputs]:
        """The equations above, from the pre-activations z."""
        f, n = sigmoid(z[0]), jnp.tanh(z[1])
        h = (1 - f) * carry.h + f * n
        return Carry(h), h

    def probe(self, params: Params, carry: Carry, u: Gates) -> dict[str, jax.Array]:
        """The gate f and the candidate n."""
        f, n = self.mix(params, carry, u)
        return {"f": sigmoid(f), "n": jnp.tanh(n)}
