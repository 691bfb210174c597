"""How a sequence enters a model: tokens by a table, real features by an affine map."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from longlag.cell import Params
from longlag.checks import check_sequence
from longlag.layers import Dense
from longlag.select import select
from longlag.spec import Spec, choose

__all__ = ["Embedding"]


class Embedding(Spec):
    """Maps inputs to the width of a model.

    Attributes:
        inputs: "tokens" (int32, embedded by a table) or "features" (real, by an affine map).
        in_features: number of token classes, or D.
        width: W.

    Parameters: `embedding` `[in_features, W]`, normal with variance 1 / W, or those of `Dense`.
    """

    inputs: Literal["tokens", "features"]
    in_features: int
    width: int

    def __post_init__(self) -> None:
        choose(self.inputs, ("tokens", "features"), "inputs")

    def shape(self, rows: int, steps: int) -> jax.ShapeDtypeStruct:
        """What `apply` takes: inputs of so many rows and steps."""
        if self.inputs == "tokens":
            return jax.ShapeDtypeStruct((rows, steps), jnp.int32)
        return jax.ShapeDtypeStruct((rows, steps, self.in_features), jnp.float32)

    def init(self, key: jax.Array) -> Params:
        """Draws parameters."""
        if self.inputs == "features":
            return Dense(self.width).init(key, self.in_features)
        table = jax.random.normal(key, (self.in_features, self.width))
        return {"embedding": table * self.width**-0.5}

    def apply(
        self,
        params: Params,
        inputs: jax.Array,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
        """What layers are given.

        Args:
            params: parameters.
            inputs: tokens `[B, T]`, integers, or features `[B, T, D]`.
            mask: `[B, T]` bool or None.
            resets: `[B, T]` bool or None.

        Returns:
            `[T, B, W]`, and mask and resets time-major. A token outside the table gives NaN, not
            another row: -1 is not the last.

        Raises:
            ValueError: a wrong shape or dtype.
        """
        check_sequence("inputs", inputs, mask, resets, time_major=False)
        integers = jnp.issubdtype(inputs.dtype, jnp.integer)
        if self.inputs == "tokens" and (inputs.ndim != 2 or not integers):
            raise ValueError(
                f"inputs: expected tokens, integers of shape [B, T]; got {inputs.dtype} of shape "
                f"{inputs.shape}"
            )
        if self.inputs == "features" and (inputs.ndim != 3 or inputs.shape[2] != self.in_features):
            raise ValueError(
                f"inputs: expected features of shape [B, T, {self.in_features}]; got "
                f"{inputs.dtype} of shape {inputs.shape}"
            )
        if mask is not None:
            inputs = select(mask, inputs, jnp.zeros_like(inputs))
        inputs, mask, resets = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (inputs, mask, resets))
        if self.inputs == "features":
            return Dense(self.width).at_each_step(params, inputs, None), mask, resets
        table = jnp.asarray(params["embedding"]).at[inputs]
        xs = table.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return xs, mask, resets
