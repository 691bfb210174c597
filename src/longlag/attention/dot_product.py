"""Scaled dot-product attention with several heads."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory, attention_weights, log_total
from longlag.core.array_types import (
    AttentionWeights,
    Contexts,
    Features,
    Positions,
    PRNGKey,
    Queries,
    StepPositions,
)
from longlag.core.ops import Params, dot, split_heads
from longlag.core.promotion import add, at_least_float32, contract, look_up, multiply, promote
from longlag.core.selection import select
from longlag.core.spec import choose

__all__ = ["DotProduct", "rotate"]


class DotProduct(Attention):
    """Multi-head scaled dot-product attention over the sequence so far, or over an encoder's.

        q = W_q (x + p)                                 N heads of width K each
        k, v = W_k (x + p), W_v x                       M heads, each for N / M queries
        e[t, s] = q[t] · k[s] / √K - m (t - s)
        y[t]    = W_o Σ_s softmax over s of e[t, s] v[s]

    Where it is not "learned", p is zero; where it is not "alibi", m is zero; with "rotary", q and k
    are turned by their positions.

    Attributes:
        features: width of the output.
        heads: N.
        window: None (everything), or how many positions are read.
        positions: "rotary" (Su et al. 2021); "alibi" (Press et al. 2022), a bias against distance,
            m = 2^(-8 n / N) for head n = 1 .. N; "learned", a table of `max_positions`, beyond
            which the output is NaN; or "none": the order of the past is then not seen.
        kv_heads: M, which divides N: of 1, multi-query (Shazeer 2019), of more, grouped-query
            attention (Ainslie et al. 2023); None: N.
        inner_features: N K, the width of all heads of q together; None: `features`.
        max_positions: of "learned".
        stretch: distances of "rotary" and "alibi" are divided by it (position interpolation, Chen
            et al. 2023): a model that was trained to n steps sees no other distance at stretch n.
        implementation: None, our own; or "xla" or "cudnn", `jax.nn.dot_product_attention` with that
            implementation ("cudnn": CUDA, bfloat16 or float16). Weights that are asked for are our
            own in any case.

    Parameters: `query.kernel` `[D, N K]`, `key.kernel`, `value.kernel` `[D, M K]`, `out.kernel`
    `[N K, features]`; with learned positions `position.embedding` `[max_positions, D]`, normal with
    deviation .02.

    Reference: Vaswani et al. 2017, arXiv 1706.03762; rotary: 2104.09864; alibi: 2108.12409;
    multi-query: 1911.02150; grouped-query: 2305.13245; stretch: 2306.15595.

    Cost: 2 (D + features) N K - 2 D (N - M) K parameters; each step of the cache 2 M K numbers.
    """

    heads: int = 4
    positions: Literal["rotary", "alibi", "learned", "none"] = "rotary"
    kv_heads: int | None = None
    inner_features: int | None = None
    max_positions: int = 1024
    stretch: float = 1.0
    implementation: Literal["xla", "cudnn"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.positions, ("rotary", "alibi", "learned", "none"), "DotProduct.positions")
        if self.implementation is not None:
            choose(self.implementation, ("xla", "cudnn"), "DotProduct.implementation")
        if self.heads < 1:
            raise ValueError(f"DotProduct.heads: expected at least 1, got {self.heads}")
        if self.key_heads < 1 or self.heads % self.key_heads:
            raise ValueError(
                f"DotProduct.kv_heads: expected a divisor of heads = {self.heads}, got "
                f"{self.key_heads}"
            )
        if self.max_positions < 1:
            raise ValueError(
                f"DotProduct.max_positions: expected at least 1, got {self.max_positions}"
            )
        if not self.stretch > 0:
            raise ValueError(f"DotProduct.stretch: expected more than 0, got {self.stretch}")
        even = 2 if self.positions == "rotary" else 1
        if self.query_features < 1 or self.query_features % (self.heads * even):
            name = "features" if self.inner_features is None else "inner_features"
            raise ValueError(
                f"DotProduct.{name}: expected a multiple of {self.heads * even} (heads"
                f"{', each of even width for rotary positions' if even == 2 else ''}), "
                f"got {self.query_features}"
            )

    def out_features(self, in_features: int) -> int:
        """`features`."""
        del in_features
        return self.features

    @property
    def key_heads(self) -> int:
        """The number of key heads, M."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def query_features(self) -> int:
        """The width of all queries, N K."""
        return self.features if self.inner_features is None else self.inner_features

    def init(self, key: PRNGKey, in_features: int, memory_features: int | None = None) -> Params:
        """Draws parameters: LeCun normal kernels."""
        memory_features = in_features if memory_features is None else memory_features
        of_keys = self.query_features // self.heads * self.key_heads
        shapes = {
            "query": (in_features, self.query_features),
            "key": (memory_features, of_keys),
            "value": (memory_features, of_keys),
            "out": (self.query_features, self.features),
        }
        keys = jax.random.split(key, len(shapes) + 1)
        params: Params = {
            name: {"kernel": initializers.lecun_normal()(k, shape)}
            for (name, shape), k in zip(shapes.items(), keys)
        }
        if self.positions == "learned":
            table = 0.02 * jax.random.normal(keys[-1], (self.max_positions, in_features))
            params["position"] = {"embedding": table}
        return params

    def write_memory(
        self, params: Params, encoded: jax.Array, mask: jax.Array | None = None
    ) -> Memory:
        """See `Attention.write_memory`. A step has no distance to what an encoder left."""
        if self.positions != "none":
            raise ValueError(
                f"DotProduct.positions: expected 'none' over an encoder, got {self.positions!r}"
            )
        return super().write_memory(params, encoded, mask)

    def write(self, params: Params, xs: Features, position: Positions) -> Any:
        """The step's key, turned by its position, and its value."""
        key = self._split_heads(params, "key", self._add_position(params, xs, position))
        value = self._split_heads(params, "value", xs)
        return {"key": self._rotate(key, position), "value": value}

    def read(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[Contexts, AttentionWeights]:
        """The equations above."""
        query, logits = self._score(params, xs, memory)
        weights = attention_weights(logits, memory)
        if self.implementation is None or memory.scale is not None:
            contexts = self._weigh(weights, memory)
        else:
            contexts = jax.nn.dot_product_attention(
                query,
                memory.entries["key"],
                memory.entries["value"],
                bias=self._bias(memory, logits.dtype),
                mask=memory.visible[:, None],
                scale=query.shape[-1] ** -0.5,
                implementation=self.implementation,
            )
            # It reads the mean of everything where it sees nothing.
            seen = jnp.any(memory.visible, axis=-1)
            contexts = select(seen, contexts, jnp.zeros_like(contexts))
        return self.join_heads(params, contexts), weights.mean(axis=1)

    def read_part(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        """See `Attention.read_part`; `implementation` does not matter."""
        _, logits = self._score(params, xs, memory)
        contexts = self._weigh(attention_weights(logits, memory), memory)
        return contexts, jnp.swapaxes(log_total(logits, memory), 1, 2)

    def join_heads(self, params: Params, contexts: jax.Array) -> Contexts:
        """W_o of all heads side by side."""
        return dot(super().join_heads(params, contexts), params["out"]["kernel"])

    def _score(self, params: Params, xs: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """Queries `[B, T, N, K]` and scores `[B, N, T, M]`."""
        position = memory.query_position
        query = self._split_heads(params, "query", self._add_position(params, xs, position))
        query = self._rotate(query, position)
        # Heads first, and a dimension for all queries that read the same keys: XLA:CPU takes up to
        # sixteen times as long over the same products with the heads between.
        q, k = (jnp.swapaxes(x, 1, 2) for x in (query, memory.entries["key"]))
        B, heads, T, K = q.shape
        apart = (B, self.key_heads, heads // self.key_heads, T)
        # In two steps: with the batch cut on a mesh, jax cuts one axis or joins two, not both.
        q = q.reshape(*apart, K).reshape(*apart[:2], apart[2] * T, K)
        logits = contract("bgqk,bgmk->bgqm", q, k) * K**-0.5
        logits = logits.reshape(*apart, k.shape[2]).reshape(B, heads, T, k.shape[2])
        bias = self._bias(memory, logits.dtype)
        return query, logits if bias is None else logits + bias

    def _weigh(self, weights: jax.Array, memory: Memory) -> jax.Array:
        """The means of the values by weights `[B, N, T, M]`, `[B, T, N, K]`."""
        v = jnp.swapaxes(memory.entries["value"], 1, 2)
        B, heads, T, M = weights.shape
        apart = (B, self.key_heads, heads // self.key_heads, T)
        shared = weights.reshape(*apart, M).reshape(*apart[:2], apart[2] * T, M)
        contexts = contract("bgqm,bgmk->bgqk", shared, v)
        contexts = contexts.reshape(*apart, v.shape[3]).reshape(B, heads, T, v.shape[3])
        return jnp.swapaxes(contexts, 1, 2)

    def _split_heads(self, params: Params, name: str, xs: jax.Array) -> jax.Array:
        heads = self.heads if name == "query" else self.key_heads
        return split_heads(dot(xs, params[name]["kernel"]), heads)

    def _rotate(self, x: jax.Array, position: jax.Array) -> jax.Array:
        return rotate(x, position, stretch=self.stretch) if self.positions == "rotary" else x

    def _add_position(self, params: Params, xs: jax.Array, position: jax.Array) -> jax.Array:
        if self.positions != "learned":
            return xs
        # The position of a masked step means nothing; -1 is one that no step is at.
        return add(xs, look_up(params["position"]["embedding"], jnp.maximum(position, 0)))

    def _bias(self, memory: Memory, dtype: Any) -> jax.Array | None:
        """`[B, N, T, M]`, or None."""
        if self.positions != "alibi":
            return None
        slopes = 2.0 ** (-8 * jnp.arange(1, self.heads + 1, dtype=dtype) / self.heads)
        slopes = slopes if self.stretch == 1 else slopes / self.stretch
        distance = memory.query_position[:, :, None] - memory.position[:, None, :]
        return multiply(-slopes[:, None, None], distance[:, None])


def rotate(
    x: Queries, position: StepPositions, base: float = 10_000.0, stretch: float = 1.0
) -> Queries:
    """Turns pairs of features by angles that grow with the position (rotary embedding).

    The product of two turned vectors depends on the difference of their positions only.

    Args:
        x: `[B, T, N, K]`, K even; feature i is paired with feature i + K / 2.
        position: `[B, T]` int32.
        base: the longest wavelength is about 2π · base positions.
        stretch: positions are divided by it.

    Returns:
        `[B, T, N, K]`; angles are computed in at least float32.

    Reference: Su et al. 2021, arXiv 2104.09864.
    """
    half = x.shape[-1] // 2
    dtype = at_least_float32(x)
    frequency = base ** (-jnp.arange(half, dtype=dtype) / half)
    frequency = frequency if stretch == 1 else frequency / stretch
    angle = multiply(position[..., None, None].astype(dtype), frequency)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, cos, sin = promote(x, cos, sin)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
