"""Embedding of inputs: tokens by a table, real features by an affine map."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from longlag.core.checks import check_sequence, check_tokens
from longlag.core.ops import Params
from longlag.core.promotion import look_up
from longlag.core.selection import select
from longlag.core.spec import Spec, choose
from longlag.core.weight_decay import by_name
from longlag.nn.pointwise import Dense

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

    def check(
        self, inputs: Any, mask: Any = None, resets: Any = None, name: str = "inputs"
    ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
        """Returns inputs, mask and resets as arrays.

        Raises:
            ValueError: a wrong shape or dtype, or a token outside the table that the mask does not
                hide, where tokens and mask are known (inside `jax.jit` they are not).
        """
        inputs, mask, resets = check_sequence(name, inputs, mask, resets, time_major=False)
        if self.inputs == "tokens":
            if inputs.ndim != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
                raise ValueError(
                    f"{name}: expected tokens, integers of shape [B, T]; got {inputs.dtype} of "
                    f"shape {inputs.shape}"
                )
            check_tokens(name, inputs, self.in_features, mask)
        elif inputs.ndim != 3 or inputs.shape[2] != self.in_features:
            raise ValueError(
                f"{name}: expected features of shape [B, T, {self.in_features}]; got "
                f"{inputs.dtype} of shape {inputs.shape}"
            )
        return inputs, mask, resets

    def decays(self, params: Params) -> Any:
        """See `longlag.Layer.decays`."""
        return by_name(params)

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
            `[T, B, W]`, and mask and resets time-major. A token outside the table gives NaN inside
            `jax.jit`, where it cannot be refused, not another row: -1 is not the last.

        Raises:
            ValueError: as `check`.
        """
        inputs, mask, resets = self.check(inputs, mask, resets)
        if mask is not None:
            inputs = select(mask, inputs, jnp.zeros_like(inputs))
        inputs, mask, resets = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (inputs, mask, resets))
        if self.inputs == "features":
            return Dense(self.width).at_each_step(params, inputs, None), mask, resets
        return look_up(params["embedding"], inputs), mask, resets
