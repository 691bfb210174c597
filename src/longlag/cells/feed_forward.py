"""The plain network without recurrence, on the present input or on a fixed window."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.nn import initializers

from longlag.core.array_types import Gates, PRNGKey, StepInputs, StepOutputs
from longlag.core.cell import Carry
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, gate_projection

__all__ = ["FeedForward"]


class FeedForward(DenseCell):
    """A network with no recurrence, that a recurrence is measured against.

        y[t] = tanh(Σ_j W_j x[t - j] + b),    j = 0 .. window - 1

    With window=1 it sees the present input only and remembers nothing. A longer window makes it the
    time-delay network: it forgets for certain whatever lies further back. Its carry holds what the
    last inputs will still add to later outputs; before the first step the inputs are zero.

    Attributes:
        features: H.
        window: number of inputs that an output sees, the present one included.

    Parameters: `input.kernel` `[D, window · H]`, the part of W_0 first; `input.bias` `[H]`.

    Reference: Waibel et al. 1989, "Phoneme recognition using time-delay neural networks".

    Cost: H (window · D + 1) parameters, carry (window - 1) H, no recurrent product.
    """

    window: int = 1

    gates = ("y",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"FeedForward.window: expected at least 1, got {self.window}")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Draws parameters: LeCun normal over the whole window, zero bias."""
        shape = (in_features * self.window, self.features)
        kernel = initializers.lecun_normal()(key, shape)
        kernel = jnp.concatenate(jnp.split(kernel, self.window), axis=1)
        params: Params = {"input": {"kernel": kernel, "bias": jnp.zeros(self.features)}}
        if self.learned_carry:
            params["carry"] = self.zero_carry((), kernel.dtype)
        return params

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        """Nothing pending."""
        return Carry(jnp.zeros((*batch_shape, self.window - 1, self.features), dtype))

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Gates:
        """What each input adds to the present output, and to each of the later ones."""
        del key
        kernel = params["input"]["kernel"]
        bias = jnp.pad(params["input"]["bias"], (0, kernel.shape[1] - self.features))
        return gate_projection({"kernel": kernel, "bias": bias}, xs, self.window)

    def mix(self, params: Params, carry: Carry, u: Gates) -> Gates:
        """No products: what the input adds, as it is."""
        return u

    def update(self, params: Params, carry: Carry, z: Gates) -> tuple[Carry, StepOutputs]:
        """Add what is pending, and push the rest one step on."""
        pending = jnp.concatenate([carry.h, jnp.zeros_like(z[0])[..., None, :]], axis=-2)
        pending = pending + jnp.stack(z, axis=-2)
        return Carry(pending[..., 1:, :]), jnp.tanh(pending[..., 0, :])
