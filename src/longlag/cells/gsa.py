"""Gated slot attention."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.cell import Carry
from longlag.core.linear_cell import LinearCell
from longlag.core.ops import Params, affine, split_heads

__all__ = ["GSA"]


class GSA(LinearCell):
    """Attention over a fixed number of memory slots, each of which forgets at a rate of its own.

        q, k, v = swish(W x + b)                        N heads of width K each
        α  = σ(W_α x + b_α)^(1/8)                       of every head and slot
        K' = α ⊙ K + (1 - α) kᵀ,  V' = α ⊙ V + (1 - α) vᵀ      S slots
        y  = V'ᵀ softmax(K' q / √K)

    What is read costs the same at every step, as long as the sequence may be. The paper scales by
    1 here and normalises the output, which is a layer's.

    Attributes:
        features: H = N K.
        heads: N, which divides H.
        slots: S of each head.

    Parameters: `input.kernel` `[D, 3H + N S]` and `input.bias`, parts in the order q, k, v, α.

    Reference: Zhang et al. 2024, arXiv 2409.07146; slots with a write of their own go back to Peng
    et al. 2022, arXiv 2110.02488.

    Cost: (3H + N S) (D + 1) parameters, carry 2 S H, no recurrent product; the 2 S H numbers of
    every step are written, unless `unroll` has `remat`.
    """

    heads: int = 4
    slots: int = 16

    gates = ("q", "k", "v", "alpha")
    contracting = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.features % self.heads:
            raise ValueError(
                f"GSA.heads: expected a divisor of features = {self.features}, got {self.heads}"
            )
        if self.slots < 1:
            raise ValueError(f"GSA.slots: expected at least 1, got {self.slots}")

    def gate_widths(self) -> tuple[int, ...]:
        """H for q, k and v, N S for α."""
        return (self.features,) * 3 + (self.heads * self.slots,)

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        """`[*batch, N, S, 2K]`: keys, then values."""
        width = 2 * self.features // self.heads
        return Carry(h=jnp.zeros((*batch_shape, self.heads, self.slots, width), dtype))

    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """α; (1 - α) (k, v)ᵀ; and q."""
        del key
        H = self.features
        parts = jnp.split(affine(params["input"], xs), [H, 2 * H, 3 * H], axis=-1)
        q, k, v, alpha = (split_heads(part, self.heads) for part in parts)
        q, k, v = map(jax.nn.silu, (q, k, v))
        log_alpha = jax.nn.log_sigmoid(alpha) / 8
        a = jnp.exp(log_alpha)[..., None]
        key_value = jnp.concatenate([k, v], axis=-1)[..., None, :]
        return a, -jnp.expm1(log_alpha)[..., None] * key_value, q

    def readout(self, params: Params, h: jax.Array, aux: jax.Array) -> StepOutputs:
        """V'ᵀ softmax(K' q / √K)."""
        keys, values = jnp.split(h, 2, axis=-1)
        scores = jnp.einsum("...nsk,...nk->...ns", keys, aux) * aux.shape[-1] ** -0.5
        reads = jnp.einsum("...ns,...nsk->...nk", jax.nn.softmax(scores, axis=-1), values)
        return reads.reshape(*reads.shape[:-2], self.features)
