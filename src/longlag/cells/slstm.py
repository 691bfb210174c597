"""The scalar LSTM of xLSTM."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from longlag.core.affine_cell import SeparableCell
from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, finite_exp, lecun, split_heads
from longlag.core.promotion import at_least_float32

__all__ = ["SLSTM", "SLSTMCarry"]


@flax.struct.dataclass
class SLSTMCarry:
    """The state of an sLSTM.

    Attributes:
        h: hidden state, the last output, `[*batch, H]`.
        c: memory cell, `[*batch, H]`, over exp(m).
        n: normaliser, `[*batch, H]`, over exp(m).
        m: logarithm of the scale of c and n, `[*batch, H]`.
    """

    h: jax.Array
    c: jax.Array
    n: jax.Array
    m: jax.Array


class SLSTM(SeparableCell[SLSTMCarry], DenseCell[SLSTMCarry]):
    """An LSTM with exponential input gates, a normaliser, and a recurrence within heads.

        i~, f~, z~, o~ = W x + b + R h        R block-diagonal, one block per head
        m' = max(log σ(f~) + m, i~), or i~ where n = 0
        i  = exp(i~ - m'),  f = exp(log σ(f~) + m - m')
        c' = f ⊙ c + i ⊙ tanh(z~)
        n' = f ⊙ n + i
        h' = σ(o~) ⊙ c' / n'
        y  = h'

    Attributes:
        features: H.
        heads: N, which divides H.
        input_kernel: False: the input is W x, made by other layers: `longlag.SLSTMMixer`.

    Parameters: `input.kernel` `[D, 4H]`, `input.bias` `[4H]`, gates in the order i, f, z, o;
    `recurrent.kernel` `[N, H/N, 4 H/N]`, gates side by side in each head, LeCun normal. b_f begins
    at values from 5 down to -7 within each head, as in the authors' code: some features hold long,
    some not.

    Reference: Beck et al. 2024, arXiv 2405.04517, equations 8 to 15 (the forget gate a sigmoid);
    the normalisation of h by groups, which their block has, is a layer. That m' is i~ where nothing
    was written yet is in their code: c' / n' is then tanh(z~), however small the input gate is.

    Cost: 4H (D + H/N + 1) parameters, carry 4H, N recurrent products `[H/N, 4H/N]` per step.
    """

    heads: int = dataclasses.field(default=4, kw_only=True)

    gates = ("i", "f", "z", "o")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.features % self.heads:
            raise ValueError(
                f"SLSTM.heads: expected a divisor of features = {self.features}, got {self.heads}"
            )

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every dense cell, with forget biases spread from keeping to forgetting."""
        params = super().init(key, in_features)
        spread = jnp.linspace(0, 1, self.features // self.heads) ** 0.3
        i, f, candidate, o = jnp.split(params["input"]["bias"], 4)
        f = f + jnp.tile(5.0 - 12.0 * spread, self.heads)
        params["input"]["bias"] = jnp.concatenate([i, f, candidate, o])
        return params

    def init_recurrent(self, key: PRNGKey) -> Params:
        """One block for each head."""
        width = self.features // self.heads
        keys = jax.random.split(key, self.heads)
        return {"kernel": jnp.stack([lecun(k, width, 4 * width) for k in keys])}

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> SLSTMCarry:
        """All zero."""
        shape = (*batch_shape, self.features)
        return SLSTMCarry(
            h=jnp.zeros(shape, dtype),
            c=jnp.zeros(shape, dtype),
            n=jnp.zeros(shape, dtype),
            m=jnp.zeros(shape, dtype),
        )

    def mix(self, params: Params, carry: SLSTMCarry, u: Gates) -> Gates:
        """The sums of the four gates."""
        kernel = params["recurrent"]["kernel"]
        heads = split_heads(carry.h, self.heads).astype(kernel.dtype)
        accumulate = at_least_float32(kernel)
        products = jnp.einsum("...nk,nkg->...ng", heads, kernel, preferred_element_type=accumulate)
        parts = jnp.split(products, 4, axis=-1)
        return tuple(a + part.reshape(a.shape) for a, part in zip(u, parts))

    def update(self, params: Params, carry: SLSTMCarry, z: Gates) -> tuple[SLSTMCarry, StepOutputs]:
        """The equations above, from the sums."""
        i, f, candidate, o = z  # the candidate is z~ in the equations
        i, f, m = self._gates(carry, i, f)
        c, n = f * carry.c + i * jnp.tanh(candidate), f * carry.n + i
        h = sigmoid(o) * c / n
        return SLSTMCarry(h, c, n, m), h

    def probe(self, params: Params, carry: SLSTMCarry, u: Gates) -> dict[str, jax.Array]:
        """The gates as they act on c: i, f, o."""
        i, f, _, o = self.mix(params, carry, u)
        i, f, _ = self._gates(carry, i, f)
        return {"i": i, "f": f, "o": sigmoid(o)}

    def _gates(
        self, carry: SLSTMCarry, i: jax.Array, f: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The gates i and f as they act on c and n, and m'."""
        f = log_sigmoid(f) + carry.m
        m = jnp.where(carry.n == 0, i, jnp.maximum(f, i))
        # f may exceed one only where n is zero. There it counts for the gradient of a learned n.
        return jnp.exp(i - m), finite_exp(f - m), m
