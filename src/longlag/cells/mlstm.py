"""The matrix LSTM of xLSTM."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from longlag.core.affine_cell import SeparableCell
from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.matrix_cell import Association, MatrixCarry, MatrixCell, Reads, merge_heads
from longlag.core.ops import Params, affine, lecun

__all__ = ["MLSTM"]


class MLSTM(SeparableCell[MatrixCarry], MatrixCell):
    """An LSTM whose memory cell is a matrix, with an exponential input gate.

        q = W_q x + b_q,  k = (W_k x + b_k) / √K,  v = W_v x + b_v
        i = exp(W_i x + b_i),  f = σ(W_f x + b_f)            numbers, one for each head
        C' = f C + i k vᵀ,   n' = f n + i k
        y  = σ(W_o x + b_o) ⊙ C'ᵀ q / max(|n'ᵀ q|, 1)

    C and n are kept over a scale exp(m), so that i never overflows. The state has a column for n.

    Attributes:
        features: H.
        input_kernel: False: the input is the parts of q, k, v, i and f without their biases, side
            by side, made by other layers; there is then no output gate.
        output_gate: False: y has no σ(W_o x + b_o), since another layer gates it:
            `longlag.MLSTMMixer`.

    Other fields as in `MatrixCell`. Parameters: `input.kernel` `[D, 2 N K + H + 2N]` and
    `input.bias`, parts in the order q, k, v, i, f, with b_f from 3 to 6 over the heads and b_i at
    0; `output.kernel` `[D, H]`, `output.bias` `[H]`.

    Reference: Beck et al. 2024, arXiv 2405.04517, equations 19 to 27.

    Cost: (2 N K + 2H + 2N) (D + 1) parameters, carry N K (V + 1) + N, no recurrent product.
    """

    gates = ("q", "k", "v", "i", "f")
    normalised = True
    exponential = True

    output_gate: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_gate and not self.input_kernel:
            raise ValueError(
                "MLSTM: expected output_gate=False with input_kernel=False, since the output gate "
                "has a kernel of its own for the input; got True"
            )

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every matrix cell, with the forget biases and the output gate."""
        key, output_key = jax.random.split(key)
        params = super().init(key, in_features)
        params["input"]["bias"] = (
            params["input"]["bias"].at[-self.heads :].set(jnp.linspace(3.0, 6.0, self.heads))
        )
        if self.output_gate:
            params["output"] = {
                "kernel": lecun(output_key, in_features, self.features),
                "bias": jnp.zeros(self.features),
            }
        return params

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """The gates, in logarithms, and the output gate."""
        del key
        q, k, v, i, f = self.per_head(params, xs)
        o = sigmoid(affine(params["output"], xs)) if self.output_gate else None
        return Association(
            q,
            k * self.key_width**-0.5,
            v,
            log_decay=log_sigmoid(f)[..., None],
            log_input=i,
            aux=o,
        )

    def readout(self, params: Params, reads: Reads, aux: Any) -> StepOutputs:
        """σ(o) ⊙ C q / max(|n q|, 1), the one being exp(-m) in the scale that is kept.

        What m has below -20 is multiplied to the reads instead: exp(-m) could overflow there, or
        its square in the gradient.
        """
        rest = jnp.exp(jnp.minimum(reads.log_scale + 20, 0))
        least = jnp.exp(-jnp.maximum(reads.log_scale, -20))
        over = jnp.maximum(jnp.abs(reads.norm) * rest, least)
        y = merge_heads(reads.y * rest[..., None] / over[..., None])
        return aux * y if self.output_gate else y
