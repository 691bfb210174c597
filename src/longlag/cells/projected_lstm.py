"""The LSTM with a projected state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers, sigmoid

from longlag.cells.lstm import LSTM, LSTMCarry
from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.ops import Params, dot, lecun

__all__ = ["ProjectedLSTM"]


class ProjectedLSTM(LSTM):
    """An LSTM that shows a projection of its state: many memory cells, a narrow recurrence.

        i, f, g, o, c' as in an LSTM, from x and the projected h
        h' = P (o ⊙ tanh(c'))
        y  = h'

    Attributes:
        features: H, the number of memory cells.
        projection: R, the width of h and of the output; None: H / 2.

    Other fields as in `LSTM`. Parameters: `input.kernel` `[D, 4H]`, `input.bias` `[4H]`,
    `recurrent.kernel` `[R, 4H]`, gates in the order i, f, g, o, and `projection.kernel` `[H, R]`,
    LeCun normal.

    Reference: Sak, Senior and Beaufays 2014, arXiv 1402.1128; without their second, non-recurrent
    projection, as in cuDNN and torch.

    Cost: 4H (D + R + 1) + H R parameters, carry H + R, recurrent products `[R, 4H]` and `[H, R]`
    per step.
    """

    projection: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projected < 1:
            raise ValueError(f"ProjectedLSTM.projection: expected at least 1, got {self.projected}")

    @property
    def projected(self) -> int:
        """R."""
        return max(1, self.features // 2) if self.projection is None else self.projection

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As an LSTM, and the projection."""
        key, projection_key = jax.random.split(key)
        kernel = lecun(projection_key, self.features, self.projected)
        return super().init(key, in_features) | {"projection": {"kernel": kernel}}

    def init_recurrent(self, key: PRNGKey) -> Params:
        """One kernel for each gate, with orthogonal rows or columns."""
        shape = (self.projected, self.features)
        kernels = [initializers.orthogonal()(k, shape) for k in jax.random.split(key, 4)]
        return {"kernel": jnp.concatenate(kernels, axis=1)}

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> LSTMCarry:
        """h `[*batch, R]` and c `[*batch, H]`, both zero."""
        return LSTMCarry(
            h=jnp.zeros((*batch_shape, self.projected), dtype),
            c=jnp.zeros((*batch_shape, self.features), dtype),
        )

    def update(self, params: Params, carry: LSTMCarry, z: Gates) -> tuple[LSTMCarry, StepOutputs]:
        """The equations above, from the pre-activations z."""
        i, f, g, o = z
        c = sigmoid(f) * carry.c + sigmoid(i) * jnp.tanh(g)
        h = dot(sigmoid(o) * jnp.tanh(c), params["projection"]["kernel"])
        return LSTMCarry(h, c), h
