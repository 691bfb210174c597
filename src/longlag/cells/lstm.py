"""The long short-term memory."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params

__all__ = ["LSTM", "LSTMCarry"]


@flax.struct.dataclass
class LSTMCarry:
    """The state of an LSTM.

    Attributes:
        h: hidden state, the last output, `[*batch, H]`.
        c: memory cell, `[*batch, H]`.
    """

    h: jax.Array
    c: jax.Array


class LSTM(DenseCell[LSTMCarry]):
    """The long short-term memory with a forget gate.

        i = σ(W_i x + b_i + U_i h)        what to write
        f = σ(W_f x + b_f + U_f h)        what to keep
        g = tanh(W_g x + b_g + U_g h)     what might be written
        o = σ(W_o x + b_o + U_o h)        what to show
        c' = f ⊙ c + i ⊙ g
        h' = o ⊙ tanh(c')
        y  = h'

    Attributes:
        features: H.
        forget_bias: initial b_f. One, so that a new cell keeps what it holds (Gers et al. 2000;
            Jozefowicz et al. 2015).
        chrono: longest lag T that the cell should hold, in steps, or None. If given, gate biases
            are drawn so that memories last from 1 to T steps: b_f ~ log U(1, T - 1), b_i = -b_f
            (Tallec and Ollivier 2018). It takes the place of `forget_bias`.

    Parameters: `input.kernel` `[D, 4H]`, `input.bias` `[4H]`, `recurrent.kernel` `[H, 4H]`, gates
    in the order i, f, g, o.

    Reference: Hochreiter and Schmidhuber 1997, Neural Computation 9(8); Gers, Schmidhuber and
    Cummins 2000, Neural Computation 12(10); chrono: arXiv 1804.11188.

    Cost: 4H (D + H + 1) parameters, carry 2H, one recurrent product `[H, 4H]` per step.
    """

    forget_bias: float = 1.0
    chrono: int | None = None

    gates = ("i", "f", "g", "o")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chrono is not None and self.chrono < 3:
            raise ValueError(f"LSTM.chrono: expected a lag of at least 3 steps, got {self.chrono}")
        if self.chrono is not None and self.forget_bias != 1.0:
            raise ValueError(
                "LSTM: expected forget_bias or chrono, which takes its place; "
                f"got forget_bias={self.forget_bias} and chrono={self.chrono}"
            )

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every dense cell, with the gate biases that the fields ask for."""
        key, chrono_key = jax.random.split(key)
        params = super().init(key, in_features)
        i, f, g, o = jnp.split(params["input"]["bias"], 4)
        if self.chrono is None:
            f = f + self.forget_bias
        else:
            f = jnp.log(jax.random.uniform(chrono_key, f.shape, f.dtype, 1.0, self.chrono - 1.0))
            i = -f
        params["input"]["bias"] = jnp.concatenate([i, f, g, o])
        return params

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> LSTMCarry:
        """h and c, both zero."""
        shape = (*batch_shape, self.features)
        return LSTMCarry(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def update(self, params: Params, carry: LSTMCarry, z: Gates) -> tuple[LSTMCarry, StepOutputs]:
        """The equations above, from the pre-activations z."""
        i, f, g, o = z
        c = sigmoid(f) * carry.c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return LSTMCarry(h, c), h

    def probe(self, params: Params, carry: LSTMCarry, u: Gates) -> dict[str, jax.Array]:
        """The gates i, f, o and the candidate g."""
        i, f, g, o = self.mix(params, carry, u)
        return {"i": sigmoid(i), "f": sigmoid(f), "g": jnp.tanh(g), "o": sigmoid(o)}
