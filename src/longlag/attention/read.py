"""An attention whose context joins the output that it reads from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from longlag.attention.attention import Attention
from longlag.core.promotion import promote
from longlag.nn.containers import _Around
from longlag.nn.pointwise import Dense

__all__ = ["Read"]


class Read(_Around):
    """A read of the past that joins the output: `tanh(W [x; f(x)] + b)`, back to the width of x.

    This is the placement of Luong, Pham and Manning 2015 (arXiv 1508.04025, equation 5): the
    present state and the context are merged into one attentional state. The other placement, an
    attention as a block of its own, is the attention itself inside `Residual`.

    Attributes:
        inner: the attention.
    """

    inner: Attention

    def out_features(self, in_features):
        """The width of the input."""
        return in_features

    def init(self, key, in_features):
        """`inner` and `join`, an affine map."""
        inner_key, join_key = jax.random.split(key)
        both = in_features + self.inner.out_features(in_features)
        return {
            "inner": self.inner.init(inner_key, in_features),
            "join": Dense(in_features).init(join_key, both),
        }

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        state, contexts = self.inner.apply(
            params["inner"], xs, state, mask=mask, resets=resets, key=key
        )
        return state, self._join(params, xs, contexts)

    def probe(self, params, xs, *, mask=None, resets=None):
        """Those of the attention under `inner/name`, and the outputs."""
        found = self.inner.probe(params["inner"], xs, mask=mask, resets=resets)
        named: dict[str, Any] = {f"inner/{name}": value for name, value in found.items()}
        return named | {"outputs": self._join(params, xs, found["outputs"])}

    def _join(self, params, xs, contexts):
        both = jnp.concatenate(promote(xs, contexts), axis=-1)
        return jnp.tanh(Dense(xs.shape[-1]).at_each_step(params["join"], both, None))
