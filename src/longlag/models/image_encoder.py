"""Image encoder: convolutions turn a picture into a sequence of regions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from longlag.core.checks import as_array
from longlag.core.ops import Params
from longlag.core.promotion import allow_promotion, at_least_float32
from longlag.core.spec import Spec
from longlag.core.weight_decay import by_name

__all__ = ["Pictures"]

CHANNELS = 3
STRIDE = 4  # a region is so many pixels high and wide


class _Convolution(linen.Module):
    """`linen.Conv(features, (3, 3), strides=stride)` of squares, as one product of patches.

    On a CPU, XLA runs the gradient of a strided convolution as plain loops.
    """

    features: int
    stride: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        side = x.shape[1]
        around = (1, 1) if self.stride == 1 else (0, 1)  # as "SAME" has it, of an even side
        x = jnp.pad(x, ((0, 0), around, around, (0, 0)))
        moved = [
            x[:, i : i + side : self.stride, j : j + side : self.stride]
            for i in range(3)
            for j in range(3)
        ]
        dense = linen.Dense(self.features, param_dtype=jnp.result_type(float))
        return dense(jnp.concatenate(moved, axis=-1))


class _Convolutions(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features, stride in ((self.width // 4, 2), (self.width // 2, 2), (self.width, 1)):
            norm = linen.LayerNorm(param_dtype=jnp.result_type(float))
            x = linen.relu(norm(_Convolution(features, stride)(x)))
        return x


class Pictures(Spec):
    """Maps a picture, given row by row, to its regions, left to right and down.

        x[0] = the picture
        x[i] = relu(norm(3 x 3 convolution of x[i-1]))    i = 1, 2, 3

    The first two convolutions halve the picture; their W/4 and W/2 channels, and the W of the last
    one, are normalised at each place. A region is the W numbers of one place in the last.

    Attributes:
        in_features: D, the numbers of a row: red, green and blue of each of D / 3 pixels. There are
            as many rows.
        width: W.

    Parameters: those of flax linen's `Dense` (of the patches) and `LayerNorm`, by their names.

    Reference: Xu et al. 2015, "Show, Attend and Tell", arXiv 1502.03044, section 3.1.1: an
    annotation vector for each place of a lower convolutional layer; there of a trained network.
    """

    in_features: int
    width: int

    def __post_init__(self) -> None:
        if self.in_features < 1 or self.in_features % (CHANNELS * STRIDE):
            raise ValueError(
                f"Pictures.in_features: expected a multiple of {CHANNELS * STRIDE}, got "
                f"{self.in_features}"
            )
        if self.width < 4:
            raise ValueError(f"Pictures.width: expected at least 4, got {self.width}")

    @property
    def side(self) -> int:
        """Pixels of a row, and rows."""
        return self.in_features // CHANNELS

    @property
    def grid(self) -> int:
        """Regions beside each other, and below each other."""
        return self.side // STRIDE

    def shape(self, rows: int, steps: int) -> jax.ShapeDtypeStruct:
        """What `apply` takes: so many pictures; their size is their own, whatever `steps` is."""
        del steps
        return jax.ShapeDtypeStruct((rows, self.side, self.in_features), jnp.float32)

    def init(self, key: jax.Array) -> Params:
        """Draws parameters."""
        one = jnp.zeros((1, self.side, self.side, CHANNELS))
        with allow_promotion():
            return dict(_Convolutions(self.width).init(key, one)["params"])

    def decays(self, params: Params) -> Any:
        """See `longlag.Layer.decays`."""
        return by_name(params)

    def apply(
        self, params: Params, inputs: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, None, None]:
        """What layers are given.

        Args:
            params: parameters.
            inputs: `[B, D / 3, D]`, real.
            mask: None: a picture has no padding.

        Returns:
            The regions `[R, B, W]`, and no mask and no resets, as `Embedding.apply` has them.

        Raises:
            ValueError: a wrong shape, or a mask.
        """
        inputs, _, _ = self.check(inputs, mask)
        pixels = jnp.reshape(inputs, (len(inputs), self.side, self.side, CHANNELS))
        # flax would round sums to the dtype of half-precision parameters.
        dtype = at_least_float32(pixels, *jax.tree.leaves(params))
        params, pixels = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, pixels))
        with allow_promotion():
            regions = _Convolutions(self.width).apply({"params": params}, pixels)
        assert isinstance(regions, jax.Array)
        regions = regions.reshape(len(inputs), self.grid**2, self.width)
        return jnp.moveaxis(regions, 0, 1), None, None

    def check(self, inputs: Any, mask: Any = None) -> tuple[jax.Array, None, None]:
        """Returns the pictures as an array, as `Embedding.check` does.

        Raises:
            ValueError: a wrong shape, numbers that are not real, or a mask.
        """
        if mask is not None:
            raise ValueError("mask: expected None, since a picture has no padding")
        inputs = as_array("inputs", inputs)
        if inputs.ndim != 3 or inputs.shape[1:] != (self.side, self.in_features):
            raise ValueError(
                f"inputs: expected pictures of shape [B, {self.side}, {self.in_features}]; got "
                f"{inputs.dtype} of shape {inputs.shape}"
            )
        return inputs, None, None
