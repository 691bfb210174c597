"""The simplified state space layer S5."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.diagonal_cell import DiagonalCell
from longlag.core.ops import Params, dot, finite_exp
from longlag.core.promotion import match_rank, promote, widen

__all__ = ["S5"]


class S5(DiagonalCell):
    """A diagonal state space model with many inputs and outputs, held from step to step.

        h' = exp(Λ Δ) ⊙ h + Λ⁻¹ (exp(Λ Δ) - 1) ⊙ (B x)       zero-order hold
        y  = 2 Re(C h') + D x

    One of every pair of conjugate states is kept, whence the 2.

    Attributes:
        features: H, the width of the output.
        state: N, the number of states kept (half of the paper's P); None: H.
        min_step, max_step: each Δ begins between these, uniform in its logarithm.

    Parameters: `lambda_re`, `lambda_im`, `log_step` `[N]`; `input.kernel` `[D, 2N]`, Re B beside Im
    B; `output.kernel` `[2N, H]`, Re C above -Im C; `skip.kernel` `[D, H]`. Λ begins at the
    eigenvalues of the normal part of the HiPPO-LegS matrix of size 2N with positive imaginary
    parts, and B and C at random real matrices (B with variance 1 / D, C with 1 / 2N) in the basis
    of its eigenvectors. Re Λ is kept below -1e-4.

    Reference: Smith, Warrington and Linderman 2023, arXiv 2208.04933; with a full matrix D.

    Cost: 2N (D + H) + D H + 3N parameters, carry 2N, no recurrent product.
    """

    min_step: float = 1e-3
    max_step: float = 1e-1

    copies = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_step <= self.max_step:
            raise ValueError(
                f"S5: expected 0 < min_step <= max_step, got {self.min_step} and {self.max_step}"
            )

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """HiPPO, as in the paper's appendix B."""
        B_key, C_key, skip_key, step_key = jax.random.split(key, 4)
        N = self.states
        eigenvalues, vectors = _hippo(2 * N)
        B = jax.random.normal(B_key, (in_features, 2 * N)) / in_features**0.5
        C = jax.random.normal(C_key, (2 * N, self.features)) / (2 * N) ** 0.5
        # B̃ = V* B and C̃ = C V, as real matrices: x is real, and of C̃ h the real part is kept.
        B_re, B_im = B @ vectors.real, B @ -vectors.imag
        C_re, C_im = vectors.real.T @ C, vectors.imag.T @ C
        low, high = np.log(self.min_step), np.log(self.max_step)
        params: Params = {
            "lambda_re": jnp.asarray(eigenvalues.real, B.dtype),
            "lambda_im": jnp.asarray(eigenvalues.imag, B.dtype),
            "log_step": jax.random.uniform(step_key, (N,), minval=low, maxval=high),
        }
        B_pair = jnp.concatenate([B_re, B_im], axis=1).astype(B.dtype)
        C_pair = jnp.concatenate([C_re, -C_im]).astype(B.dtype)
        return self.add_maps(params, B_pair, C_pair, skip_key)

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[Any, Any, StepOutputs]:
        """exp(Λ Δ), the same at every step; the held input; and D x."""
        del key
        re, im, step = widen([params[name] for name in ("lambda_re", "lambda_im", "log_step")])
        re, step = jnp.minimum(re, -1e-4), finite_exp(step)
        size, phase = jnp.exp(re * step), im * step
        a_re, a_im = size * jnp.cos(phase), size * jnp.sin(phase)
        # Re a - 1, without the cancellation where the step is small.
        near_one = jnp.expm1(re * step) * jnp.cos(phase) - 2 * jnp.sin(phase / 2) ** 2
        less_one = jnp.where(re * step > -1, near_one, a_re - 1)
        # (a - 1) / Λ = (a - 1) conj(Λ) / |Λ|²
        square = re * re + im * im
        g_re = (less_one * re + a_im * im) / square
        g_im = (a_im * re - less_one * im) / square
        u_re, u_im = jnp.split(dot(xs, params["input"]["kernel"]), 2, axis=-1)
        u_re, u_im, g_re, g_im = promote(u_re, u_im, g_re, g_im)
        b = (g_re * u_re - g_im * u_im, g_re * u_im + g_im * u_re)
        return (match_rank(a_re, xs), match_rank(a_im, xs)), b, dot(xs, params["skip"]["kernel"])


@functools.cache
def _hippo(size: int) -> tuple[Any, Any]:
    """Eigenvalues of the normal part of HiPPO-LegS with positive imaginary part, and eigenvectors.

    The matrix is -1/2 and a skew-symmetric part, so that every eigenvalue has the real part -1/2.

    Returns:
        `[size / 2]` and `[size, size / 2]`, complex.
    """
    root = np.sqrt(1 + 2 * np.arange(size))
    lower = np.tril(np.outer(root, root), -1)
    skew = (lower.T - lower) / 2
    frequencies, vectors = np.linalg.eigh(skew * -1j)
    positive = frequencies > 0
    return -0.5 + 1j * frequencies[positive], vectors[:, positive]
