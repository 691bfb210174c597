"""The selective state space recurrence of Mamba."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import softplus

from longlag.core.affine_cell import SeparableCell
from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.cell import Carry
from longlag.core.linear_cell import GatedLinearCell
from longlag.core.ops import Params, affine, dot, finite_exp, gate_projection, lecun
from longlag.core.promotion import add, multiply, widen

__all__ = ["S6"]


class S6(SeparableCell[Carry], GatedLinearCell):
    """A state space model that chooses, from its input, what to keep and for how long.

        u  = W x + b
        Δ  = softplus(u W_↓ W_↑ + b_Δ)
        h' = exp(Δ A) ⊙ h + Δ u (u W_B)ᵀ        state [H, N], A < 0
        y  = h' (u W_C) + D ⊙ u

    In Mamba the linear map W stands before a short convolution and a SiLU, which are layers here:
    `longlag.MambaMixer`.

    Attributes:
        features: H.
        state: N, states per feature.
        rank: of the map to Δ; None: ⌈H / 16⌉.
        min_step, max_step: Δ at zero input begins between these, uniform in its logarithm.
        negative_eigenvalues: 2 exp(Δ A) - 1 in place of exp(Δ A).
        input_kernel: False: u is the input itself, without W and b.

    Parameters: `input.kernel` `[D, H]`, `input.bias` `[H]`; `select.kernel` `[H, rank + 2N]`, to Δ,
    B and C; `step.kernel` `[rank, H]` and `step.bias` `[H]`; `decay_log` `[H, N]`, log(-A), begun
    at log 1 .. log N (S4D-Real); `skip.scale` `[H]`, D, at one.

    Reference: Gu and Dao 2023, arXiv 2312.00752, algorithm 2 (with the Euler step for B, as in
    their code).

    Cost: H (D + 2 rank + 3N + 3) parameters, carry H N, no recurrent product; all H N states of
    every step are written, unless `unroll` has `remat`.
    """

    state: int = 16
    rank: int | None = None
    min_step: float = 1e-3
    max_step: float = 1e-1

    gates = ("u",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("state", self.state), ("rank", self.step_rank)):
            if value < 1:
                raise ValueError(f"S6.{name}: expected at least 1, got {value}")
        if not 0 < self.min_step <= self.max_step:
            raise ValueError(
                f"S6: expected 0 < min_step <= max_step, got {self.min_step} and {self.max_step}"
            )

    @property
    def step_rank(self) -> int:
        """The rank of the map to Δ."""
        return -(-self.features // 16) if self.rank is None else self.rank

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As in the authors' code."""
        key, select_key, up_key, step_key = jax.random.split(key, 4)
        H, N, rank = self.features, self.state, self.step_rank
        low, high = jnp.log(self.min_step), jnp.log(self.max_step)
        step = jnp.exp(jax.random.uniform(step_key, (H,), minval=low, maxval=high))
        bound = rank**-0.5
        params = super().init(key, in_features)
        if not self.input_kernel:
            del params["input"]
        return params | {
            "select": {"kernel": lecun(select_key, H, rank + 2 * N)},
            "step": {
                "kernel": jax.random.uniform(up_key, (rank, H), minval=-bound, maxval=bound),
                "bias": step + jnp.log(-jnp.expm1(-step)),  # softplus of it is the step
            },
            "decay_log": jnp.tile(jnp.log(jnp.arange(1.0, N + 1)), (H, 1)),
            "skip": {"scale": jnp.ones(H)},
        }

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        """`[*batch, H, N]`."""
        return Carry(h=jnp.zeros((*batch_shape, self.features, self.state), dtype))

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[jax.Array, jax.Array, Any]:
        """exp(Δ A); Δ u Bᵀ; and C and u."""
        del key
        if self.input_kernel:
            (u,) = gate_projection(params["input"], xs, len(self.gates))
        else:
            u = widen(xs)
        rank = self.step_rank
        selected = dot(u, params["select"]["kernel"])
        step, B, C = jnp.split(selected, [rank, rank + self.state], axis=-1)
        step = softplus(affine(params["step"], step))
        decay = finite_exp(params["decay_log"].astype(step.dtype))
        a = jnp.exp(multiply(-step[..., None], decay))
        scaled = multiply(step, u)[..., None]
        return self.bounded(a), scaled * B[..., None, :], (C, u)

    def readout(self, params: Params, h: jax.Array, aux: Any) -> StepOutputs:
        """h C + D ⊙ u."""
        C, u = aux
        reads = jnp.einsum("...hn,...n->...h", h, C)
        skip = multiply(params["skip"]["scale"], u)
        return add(reads, skip)
