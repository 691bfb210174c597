"""The linear recurrent unit."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.diagonal_cell import DiagonalCell
from longlag.core.ops import Params, dot, finite_exp
from longlag.core.promotion import match_rank, promote, widen

__all__ = ["LRU"]


class LRU(DiagonalCell):
    """A complex, diagonal, linear recurrence that begins on a ring in the complex plane.

        h' = λ ⊙ h + γ ⊙ (B x),   λ = exp(-exp ν + i exp θ),   γ begins at √(1 - |λ|²)
        y  = Re(C h') + D x

    Attributes:
        features: H, the width of the output.
        state: N, the number of complex states; None: H.
        r_min, r_max: |λ| begins between these, uniform on the ring's area. Longer memories need an
            r_min near 1: at .99 a state halves in 69 steps.
        max_phase: the phases begin uniform in [0, max_phase].

    Parameters: `nu`, `theta`, `gamma_log` `[N]`; `input.kernel` `[D, 2N]`, Re B beside Im B, normal
    with variance 1 / 2D; `output.kernel` `[2N, H]`, Re C above -Im C, normal with variance 1 / N;
    `skip.kernel` `[D, H]`, LeCun normal.

    Reference: Orvieto et al. 2023, arXiv 2303.06349, section 3 and appendix A.

    Cost: 2N (D + H) + D H + 3N parameters, carry 2N, no recurrent product.
    """

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(
                f"LRU: expected 0 <= r_min < r_max <= 1, got {self.r_min} and {self.r_max}"
            )

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As in the paper's appendix A."""
        radius, phase, B_key, C_key, skip_key = jax.random.split(key, 5)
        N = self.states
        area = jax.random.uniform(radius, (N,), minval=self.r_min**2, maxval=self.r_max**2)
        # |λ| = 0 or 1 would have an infinite ν.
        nu = jnp.log(-0.5 * jnp.log(jnp.clip(area, 1e-6, 1 - 1e-6)))
        theta = jnp.log(jax.random.uniform(phase, (N,), minval=1e-6, maxval=self.max_phase))
        gamma_log = 0.5 * jnp.log1p(-jnp.exp(-2 * jnp.exp(nu)))
        B = jax.random.normal(B_key, (in_features, 2 * N)) / (2 * in_features) ** 0.5
        C = jax.random.normal(C_key, (2 * N, self.features)) / N**0.5
        return self.add_maps({"nu": nu, "theta": theta, "gamma_log": gamma_log}, B, C, skip_key)

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[Any, Any, StepOutputs]:
        """λ, the same at every step; γ ⊙ (B x); and D x."""
        del key
        # In float32 at least: a phase in bfloat16 is lost after a few hundred steps.
        nu, theta, gamma_log = widen([params[name] for name in ("nu", "theta", "gamma_log")])
        size, phase, gamma = jnp.exp(-finite_exp(nu)), finite_exp(theta), jnp.exp(gamma_log)
        a = (size * jnp.cos(phase), size * jnp.sin(phase))
        a = jax.tree.map(lambda part: match_rank(part, xs), a)
        re, im, gamma = promote(*jnp.split(dot(xs, params["input"]["kernel"]), 2, axis=-1), gamma)
        return a, (gamma * re, gamma * im), dot(xs, params["skip"]["kernel"])
