"""Local attention with a predicted position."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory
from longlag.core.array_types import AttentionWeights, Contexts, Features, Positions, PRNGKey
from longlag.core.ops import Params, dot
from longlag.core.promotion import multiply, promote
from longlag.core.weight_decay import by_name

__all__ = ["Local"]


class Local(Attention):
    """Local-p: another attention, near a position that each step predicts.

        p[t]    = S · σ(v · tanh(W x[t]))
        α[t, s] = softmax over |s - p[t]| ≤ R of e[t, s], times exp(-2 (s - p[t])² / R²)
        y[t]    = what the other attention makes of these weights

    e is the score of the other attention; S is the number of positions that the step may read: the
    length of the source over an encoder, and t + 1 over the own past. The weights do not sum to
    one, as in the paper, whose deviation σ = R / 2 this is. A gradient reaches the position through
    the bell, not through its edge. What is not finite spoils all steps that may read it, near or
    far.

    Attributes:
        features: width of the network that predicts the position.
        attention: the other attention, without a window; it counts positions in no other way than
            by "none" over an encoder.
        radius: R, positions to each side; "D" in the paper.

    Parameters: those of the attention under `attention`; `position.kernel` `[D, features]`,
    `position.score` `[features, 1]`.

    Reference: Luong, Pham and Manning 2015, arXiv 1508.04025, equations 8 to 10.

    Cost: (D + 1) features parameters more, and no other state.
    """

    attention: Attention = dataclasses.field(kw_only=True)
    radius: int = dataclasses.field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None or self.attention.window is not None:
            raise ValueError(f"Local.window: expected None, here and in the attention; got {self}")
        if self.radius < 1:
            raise ValueError(f"Local.radius: expected at least 1, got {self.radius}")

    def init(self, key: PRNGKey, in_features: int, memory_features: int | None = None) -> Params:
        """LeCun normal kernels: a position near the middle."""
        attention, kernel, score = jax.random.split(key, 3)
        lecun = initializers.lecun_normal()
        return {
            "attention": self.attention.init(attention, in_features, memory_features),
            "position": {
                "kernel": lecun(kernel, (in_features, self.features)),
                "score": lecun(score, (self.features, 1)),
            },
        }

    def decays(self, params: Params) -> Any:
        """As the attention says, and both kernels of the position."""
        return {
            "attention": self.attention.decays(params["attention"]),
            "position": by_name(params["position"], "score"),
        }

    def out_features(self, in_features: int) -> int:
        """That of the attention."""
        return self.attention.out_features(in_features)

    def write_memory(
        self, params: Params, encoded: jax.Array, mask: jax.Array | None = None
    ) -> Memory:
        """That of the attention."""
        return self.attention.write_memory(params["attention"], encoded, mask)

    def write(self, params: Params, xs: Features, position: Positions) -> Any:
        """What the attention writes."""
        return self.attention.write(params["attention"], xs, position)

    def read(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[Contexts, AttentionWeights]:
        """The equations above."""
        count = memory.visible.sum(axis=-1)
        hidden = jnp.tanh(dot(xs, params["position"]["kernel"]))
        center = multiply(count, jax.nn.sigmoid(dot(hidden, params["position"]["score"])[..., 0]))
        place, center = promote(memory.position[:, None, :], center[:, :, None])
        distance = place - center
        near = memory.replace(  # type: ignore[attr-defined]
            visible=memory.visible & (jnp.abs(distance) <= self.radius),
            scale=jnp.exp(-2 * jnp.square(distance / self.radius)),
        )
        return self.attention.read(params["attention"], xs, near)

    def _in_features(self, params: Params) -> int:
        return params["position"]["kernel"].shape[0]
