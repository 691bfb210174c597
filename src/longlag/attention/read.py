"""An attention whose context joins the output that it reads from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from longlag.attention.attention import Attention
from longlag.core.ops import Params
from longlag.core.promotion import promote
from longlag.nn.containers import _Wrapper
from longlag.nn.layer import State
from longlag.nn.pointwise import Dense

__all__ = ["Read"]


class Read(_Wrapper):
    """A read of the past that joins the output: `tanh(W [x; f(x)] + b)`, back to the width of x.

    This is the placement of Luong, Pham and Manning 2015 (arXiv 1508.04025, equation 5): the
    present state and the context are merged into one attentional state. The other placement, an
    attention as a block of its own, is the attention itself inside `Residual`.

    Attributes:
        inner: the attention.
    """

    inner: Attention

    def out_features(self, in_features: int) -> int:
        """The width of the input."""
        return in_features

    def init(self, key: jax.Array, in_features: int) -> Params:
        """`inner` and `join`, an affine map."""
        inner_key, join_key = jax.random.split(key)
        both = in_features + self.inner.out_features(in_features)
        return {
            "inner": self.inner.init(inner_key, in_features),
            "join": Dense(in_features).init(join_key, both),
        }

    def apply(
        self,
        params: Params,
        xs: jax.Array,
        state: State = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        """See `Layer.apply`."""
        state, contexts = self.inner.apply(
            params["inner"], xs, state, mask=mask, resets=resets, key=key
        )
        return state, self._join(params, xs, contexts)

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Those of the attention under `inner/name`, and the outputs."""
        of_attention = self.inner.probe(params["inner"], xs, mask=mask, resets=resets)
        named: dict[str, Any] = {f"inner/{name}": value for name, value in of_attention.items()}
        return named | {"outputs": self._join(params, xs, of_attention["outputs"])}

    def _join(self, params: Params, xs: jax.Array, contexts: jax.Array) -> jax.Array:
        both = jnp.concatenate(promote(xs, contexts), axis=-1)
        return jnp.tanh(Dense(xs.shape[-1]).at_each_step(params["join"], both, None))
