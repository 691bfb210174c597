"""Products and projections for all kinds of cell."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from longlag.core.array_types import Gates, Kernel, StepInputs, StepOutputs
from longlag.core.promotion import add, at_least_float32

__all__ = [
    "Params",
    "affine",
    "dot",
    "finite_exp",
    "gate_projection",
    "keep_dtype",
    "lecun",
    "split_heads",
]


Params = dict[str, Any]


def keep_dtype(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new`, in the dtype that the carry came with."""
    floating = jnp.issubdtype(old.dtype, jnp.floating)
    return new.astype(old.dtype) if floating and new.dtype != old.dtype else new


def dot(x: StepInputs, kernel: Kernel) -> StepOutputs:
    """`x @ kernel` in the kernel's dtype, accumulated and returned in at least float32.

    The dtype of the parameters is the dtype of the computation: cast them to bfloat16 and every
    product of the forward runs in bfloat16, while states and sums stay float32. In the backward, a
    gradient in float32 meets the kernel in bfloat16, and the gradient in `x` is rounded to
    bfloat16.

    Args:
        x: `[..., D]`.
        kernel: `[D, K]`.

    Returns:
        `[..., K]`.
    """
    accumulate = at_least_float32(kernel)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=accumulate)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[..., N * K]` to `[..., N, K]`; leading axes may be empty, where a size cannot be -1."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def lecun(key: jax.Array, *shape: int) -> jax.Array:
    """A LeCun normal kernel, `[D, K]`: outputs have the variance of the inputs."""
    return initializers.lecun_normal()(key, shape)


def gate_projection(params: Params, xs: StepInputs, gates: int) -> Gates:
    """The affine projection of the input, one array per gate.

    Args:
        params: `kernel` `[D, G * H]`, which a `SeparableCell` may lack, and `bias` `[G * H]`.
        xs: `[..., D]`.
        gates: G.

    Returns:
        G arrays `[..., H]`, taken apart here: slices of one fused array that are taken inside the
        loop stop it from vectorising on XLA:CPU.
    """
    return tuple(jnp.split(affine(params, xs), gates, axis=-1))


def finite_exp(x: jax.Array) -> jax.Array:
    """`exp(x)`, or a very large number where that would overflow: zero times it is zero, not NaN.

    Its bound leaves room for a product with a number of ordinary size.
    """
    largest = 0.8 * float(np.log(np.finfo(x.dtype).max))
    return jnp.exp(jnp.minimum(x, largest))


def affine(params: Params, xs: jax.Array) -> jax.Array:
    """`x W + b` in at least float32, or without a kernel `x + b`."""
    if "kernel" in params:
        xs = dot(xs, params["kernel"])
    return add(xs, params["bias"])
