"""The minimal gated recurrent unit of "Were RNNs all we needed?"."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.core.array_types import Gate, PRNGKey, StepInputs
from longlag.core.cell import Carry
from longlag.core.linear_cell import GatedLinearCell
from longlag.core.ops import Params, gate_projection
from longlag.core.spec import choose

__all__ = ["MinGRU"]


class MinGRU(GatedLinearCell):
    """minGRU: a GRU whose gates see the input only, so that the recurrence is linear.

        z = σ(W_z x + b_z)
        n = W_n x + b_n              candidate="linear", section 3.1 of the paper
        n = g(W_n x + b_n)           candidate="positive", appendix B: g(v) = v + 0.5 where v ≥ 0,
                                     σ(v) elsewhere, so that every state is positive
        h' = (1 - z) ⊙ h + z ⊙ n
        y  = h'

    Attributes:
        features: H.
        candidate: "linear" or "positive".
        negative_eigenvalues: 1 - 2z in place of 1 - z.

    Parameters: `input.kernel` `[D, 2H]`, `input.bias` `[2H]`, parts in the order z, n.

    Reference: Feng et al. 2024, arXiv 2410.01201.

    Cost: 2H (D + 1) parameters, carry H, no recurrent product.
    """

    candidate: Literal["linear", "positive"] = "linear"

    gates = ("z", "n")

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.candidate, ("linear", "positive"), "MinGRU.candidate")

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[Gate, Gate, None]:
        """Decay 1 - z and input z ⊙ n."""
        del key
        z, n = gate_projection(params["input"], xs, len(self.gates))
        if self.candidate == "positive":
            n = jnp.where(n >= 0, n + 0.5, sigmoid(n))
        # 1 - σ(v) = σ(-v), without the cancellation.
        return self.bounded(sigmoid(-z)), sigmoid(z) * n, None

    def probe(self, params: Params, carry: Carry, u: tuple[Any, Any, Any]) -> dict[str, jax.Array]:
        """The update gate z."""
        decay = (1 + u[0]) / 2 if self.negative_eigenvalues else u[0]
        return {"z": 1 - decay}
