"""The LSTM with peepholes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from longlag.cells.lstm import LSTM, LSTMCarry
from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.ops import Params
from longlag.core.promotion import multiply

__all__ = ["PeepholeLSTM"]


class PeepholeLSTM(LSTM):
    """An LSTM whose gates see the memory cell, so that they can count and time.

        i = σ(W_i x + b_i + U_i h + p_i ⊙ c)
        f = σ(W_f x + b_f + U_f h + p_f ⊙ c)
        g = tanh(W_g x + b_g + U_g h)
        c' = f ⊙ c + i ⊙ g
        o = σ(W_o x + b_o + U_o h + p_o ⊙ c')
        h' = o ⊙ tanh(c')
        y  = h'

    Fields and parameters as in `LSTM`, and `peephole.scale` `[3H]`, parts in the order i, f, o,
    drawn uniformly from [-0.1, 0.1] as in the paper.

    Reference: Gers, Schraudolph and Schmidhuber 2002, "Learning precise timing with LSTM recurrent
    networks", JMLR 3; with tanh for their output squashing, which they leave out.

    Cost: 4H (D + H + 1) + 3H parameters, carry 2H, one recurrent product `[H, 4H]` per step.
    """

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As an LSTM, and the peepholes."""
        key, peephole_key = jax.random.split(key)
        scale = jax.random.uniform(peephole_key, (3 * self.features,), minval=-0.1, maxval=0.1)
        return super().init(key, in_features) | {"peephole": {"scale": scale}}

    def update(self, params: Params, carry: LSTMCarry, z: Gates) -> tuple[LSTMCarry, StepOutputs]:
        """The equations above, from the pre-activations z."""
        gates, c = self._gates(params, carry, z)
        h = gates["o"] * jnp.tanh(c)
        return LSTMCarry(h, c), h

    def probe(self, params: Params, carry: LSTMCarry, u: Gates) -> dict[str, jax.Array]:
        """The gates i, f, o and the candidate g."""
        return self._gates(params, carry, self.mix(params, carry, u))[0]

    def _gates(
        self, params: Params, carry: LSTMCarry, z: Gates
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """The gates and the candidate, and c', which the output gate sees."""
        p_i, p_f, p_o = jnp.split(params["peephole"]["scale"], 3)
        i, f, g, o = z
        i, f = sigmoid(i + multiply(p_i, carry.c)), sigmoid(f + multiply(p_f, carry.c))
        g = jnp.tanh(g)
        c = f * carry.c + i * g
        return {"i": i, "f": f, "g": g, "o": sigmoid(o + multiply(p_o, c))}, c
