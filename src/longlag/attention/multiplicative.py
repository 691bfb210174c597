"""Multiplicative attention."""

from __future__ import annotations

from typing import Any, Literal

import jax
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.attention.cache import Memory, attention_weights, log_total
from longlag.core.array_types import AttentionWeights, Contexts, Features, Positions, PRNGKey
from longlag.core.ops import Params, dot
from longlag.core.promotion import contract
from longlag.core.spec import choose

__all__ = ["Multiplicative"]


class Multiplicative(Attention):
    """Multiplicative attention over a recurrence's own past outputs, or over an encoder's.

        e[t, s] = x[t] · x[s]             score="dot"
        e[t, s] = x[t] · W x[s]           score="general"
        α[t]    = softmax over s of e[t, s]
        y[t]    = Σ_s α[t, s] x[s]

    The third score of the paper, "concat", is `Additive`.

    Attributes:
        features: D, the width of the inputs, which are the queries.
        window: None (everything), or how many positions are read.
        score: "general" or "dot".

    Parameters: with score="general" `key.kernel` `[E, D]`, W, for a memory of width E, which is D
    over the own past; with "dot" none.

    Reference: Luong, Pham and Manning 2015, arXiv 1508.04025, there over an encoder's states.

    Cost: D E parameters or none; each step of the cache 2D numbers, or D with "dot".
    """

    score: Literal["general", "dot"] = "general"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.score, ("general", "dot"), "Multiplicative.score")

    def init(self, key: PRNGKey, in_features: int, memory_features: int | None = None) -> Params:
        """Draws W, LeCun normal."""
        memory_features = in_features if memory_features is None else memory_features
        if in_features != self.features:
            raise ValueError(
                f"Multiplicative.features: expected the width of its inputs, {in_features}; got "
                f"{self.features}"
            )
        if self.score == "dot":
            if memory_features != in_features:
                raise ValueError(
                    f"{self}: expected a memory as wide as its inputs, {in_features}; got "
                    f"{memory_features}"
                )
            return {}
        shape = (memory_features, in_features)
        return {"key": {"kernel": initializers.lecun_normal()(key, shape)}}

    def write(self, params: Params, xs: Features, position: Positions) -> Any:
        """The step's value x, and its key W x unless that is x too."""
        del position
        if self.score == "dot":
            return {"value": xs}
        return {"key": dot(xs, params["key"]["kernel"]), "value": xs}

    def read(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[Contexts, AttentionWeights]:
        """The equations above."""
        weights = attention_weights(self._score(xs, memory), memory)
        return contract("btm,bmd->btd", weights, memory.entries["value"]), weights

    def read_part(
        self, params: Params, xs: Features, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        """See `Attention.read_part`; one head."""
        contexts, _ = self.read(params, xs, memory)
        total = log_total(self._score(xs, memory), memory)
        return contexts[:, :, None], total[..., None]

    def _score(self, xs: jax.Array, memory: Memory) -> jax.Array:
        keys = memory.entries.get("key", memory.entries["value"])
        return contract("btd,bmd->btm", xs, keys)

    def _in_features(self, params: Params) -> int:
        del params
        return self.features
