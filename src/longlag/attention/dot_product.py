"""Scaled dot-product attention with several heads."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory, masked_softmax
from longlag.cell import Params, dot
from longlag.spec import choose

__all__ = ["DotProduct", "rotate"]


class DotProduct(Attention):
    """Multi-head scaled dot-product attention over the sequence so far.

        q, k, v = W_q x, W_k x, W_v x                   N heads of width K each
        e[t, s] = q[t] · k[s] / √K                      q and k turned by their positions (rotary)
        y[t]    = W_o Σ_s softmax over s of e[t, s] v[s]

    Attributes:
        features: width of the output, and of all heads together.
        heads: N.
        window: None (everything), or how many positions are read.
        positions: "rotary" (Su et al. 2021), or "none": the order of the past is then not seen.

    Parameters: `query.kernel`, `key.kernel`, `value.kernel` `[D, features]`, `out.kernel`
    `[features, features]`.

    Reference: Vaswani et al. 2017, arXiv 1706.03762; rotary: arXiv 2104.09864.

    Cost: 3 D · features + features² parameters; each step of the cache 2 · features numbers.
    """

    heads: int = 4
    positions: Literal["rotary", "none"] = "rotary"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.positions, ("rotary", "none"), "DotProduct.positions")
        if self.heads < 1:
            raise ValueError(f"DotProduct.heads: expected at least 1, got {self.heads}")
        even = 2 if self.positions == "rotary" else 1
        if self.features % (self.heads * even):
            raise ValueError(
                f"DotProduct.features: expected a multiple of {self.heads * even} (heads"
                f"{', each of even width for rotary positions' if even == 2 else ''}), "
                f"got {self.features}"
            )

    def out_features(self, in_features: int) -> int:
        """`features`."""
        del in_features
        return self.features

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Draws parameters: LeCun normal kernels."""
        widths = {"query": in_features, "key": in_features, "value": in_features}
        widths["out"] = self.features
        return {
            name: {"kernel": initializers.lecun_normal()(k, (width, self.features))}
            for (name, width), k in zip(widths.items(), jax.random.split(key, 4))
        }

    def write(self, params, xs, position):
        """The step's key, turned by its position, and its value."""
        key, value = (self._heads(params, name, xs) for name in ("key", "value"))
        return {"key": self._turn(key, position), "value": value}

    def read(self, params: Params, xs: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """The equations above."""
        query = self._turn(self._heads(params, "query", xs), memory.query_position)
        scale = (self.features // self.heads) ** -0.5
        logits = jnp.einsum("btnk,bmnk->bntm", query, memory.entries["key"]) * scale
        weights = masked_softmax(logits, memory.visible[:, None])
        contexts = jnp.einsum("bntm,bmnk->btnk", weights, memory.entries["value"])
        contexts = contexts.reshape(*contexts.shape[:2], self.features)
        return dot(contexts, params["out"]["kernel"]), weights.mean(axis=1)

    def _heads(self, params: Params, name: str, xs: jax.Array) -> jax.Array:
        return dot(xs, params[name]["kernel"]).reshape(*xs.shape[:-1], self.heads, -1)

    def _turn(self, x: jax.Array, position: jax.Array) -> jax.Array:
        return rotate(x, position) if self.positions == "rotary" else x


def rotate(x: jax.Array, position: jax.Array, base: float = 10_000.0) -> jax.Array:
    """Turns pairs of features by angles that grow with the position (rotary embedding).

    The product of two turned vectors depends on the difference of their positions only.

    Args:
        x: `[B, T, N, K]`, K even; feature i is paired with feature i + K / 2.
        position: `[B, T]` int32.
        base: the longest wavelength is about 2π · base positions.

    Returns:
        `[B, T, N, K]`; angles are computed in at least float32.

    Reference: Su et al. 2021, arXiv 2104.09864.
    """
    half = x.shape[-1] // 2
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    frequency = base ** (-jnp.arange(half, dtype=dtype) / half)
    angle = position[..., None, None].astype(dtype) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
