"""The layers: a recurrence, a reading of its past, and what is put around and between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.cell import Cell, Params, dot
from longlag.layer import Layer, State
from longlag.unroll import unroll

__all__ = ["MLP", "Dense", "Dropout", "Norm", "Read", "Recurrent", "Residual", "Stack"]


class Recurrent(Layer):
    """A cell unrolled over the sequence; its state is the carry.

    Attributes:
        cell: any cell; it must have a field `features`, the width of its output.
    """

    cell: Cell

    def init(self, key: jax.Array, in_features: int) -> Params:
        """The cell's own parameters."""
        return self.cell.init(key, in_features)

    def out_features(self, in_features: int) -> int:
        """The cell's `features`, read off its output where it has no such field."""
        params = jax.eval_shape(lambda: self.init(jax.random.key(0), in_features))
        xs = jax.ShapeDtypeStruct((1, 1, in_features), jnp.float32)
        return jax.eval_shape(lambda p, x: unroll(self.cell, p, x), params, xs)[1].shape[-1]

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """The cell's initial carry."""
        del capacity
        return self.cell.initial_carry(params, batch_shape)

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        carry, ys = unroll(
            self.cell, params, xs, state, mask=mask, resets=resets, key=key, time_major=True
        )
        return (None if state is None else carry), ys


class _Pointwise(Layer):
    """A layer without memory: the same function at every step."""

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        del mask, resets
        return state, self.at_each_step(params, xs, key)

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
        """`[..., D]` to `[..., K]`."""
        raise NotImplementedError


class Dense(_Pointwise):
    """An affine map, `x W + b`. Parameters: `kernel` `[D, features]`, `bias` `[features]`.

    Attributes:
        features: K.
    """

    features: int

    def init(self, key, in_features):
        """LeCun normal kernel, zero bias."""
        kernel = initializers.lecun_normal()(key, (in_features, self.features))
        return {"kernel": kernel, "bias": jnp.zeros(self.features)}

    def out_features(self, in_features):
        """`features`."""
        return self.features

    def at_each_step(self, params, xs, key):
        """The equation."""
        return dot(xs, params["kernel"]) + params["bias"]


class MLP(_Pointwise):
    """Two affine maps with a GELU between them, back to the width of the input.

    Attributes:
        hidden: width between the two.
    """

    hidden: int

    def init(self, key, in_features):
        """Both maps."""
        up, down = jax.random.split(key)
        return {
            "up": Dense(self.hidden).init(up, in_features),
            "down": Dense(in_features).init(down, self.hidden),
        }

    def at_each_step(self, params, xs, key):
        """Up, GELU, down."""
        hidden = jax.nn.gelu(dot(xs, params["up"]["kernel"]) + params["up"]["bias"])
        return dot(hidden, params["down"]["kernel"]) + params["down"]["bias"]


class Norm(_Pointwise):
    """Root-mean-square normalisation with a learned scale (Zhang and Sennrich 2019, 1910.07467).

    Attributes:
        epsilon: added to the mean square.
    """

    epsilon: float = 1e-6

    def init(self, key, in_features):
        """Scale one."""
        return {"scale": jnp.ones(in_features)}

    def at_each_step(self, params, xs, key):
        """In at least float32."""
        xs = xs.astype(jnp.promote_types(xs.dtype, jnp.float32))
        square = jnp.mean(xs * xs, axis=-1, keepdims=True)
        return xs * jax.lax.rsqrt(square + self.epsilon) * params["scale"]


class Dropout(_Pointwise):
    """Zeroes features at random while a key is given, and scales the others up to make good.

    Attributes:
        rate: probability of a zero, in [0, 1).
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"Dropout.rate: expected 0 <= rate < 1, got {self.rate}")

    def init(self, key, in_features):
        """None."""
        return {}

    def at_each_step(self, params, xs, key):
        """Fresh zeros at every step and feature."""
        if key is None or self.rate == 0:
            return xs
        kept = jax.random.bernoulli(key, 1 - self.rate, xs.shape)
        return jnp.where(kept, xs / (1 - self.rate), jnp.zeros_like(xs))


class Stack(Layer):
    """Layers one after another; parameters are theirs under "0", "1", ..., the state is a list.

    Attributes:
        layers: the layers, the first one first.
    """

    layers: tuple[Layer, ...]

    def init(self, key, in_features):
        """One entry per layer."""
        params: Params = {}
        keys = jax.random.split(key, len(self.layers))
        for i, (layer, layer_key) in enumerate(zip(self.layers, keys)):
            params[str(i)] = layer.init(layer_key, in_features)
            in_features = layer.out_features(in_features)
        return params

    def out_features(self, in_features):
        """That of the last layer."""
        for layer in self.layers:
            in_features = layer.out_features(in_features)
        return in_features

    def init_state(self, params, batch_shape, capacity):
        """A list, one entry per layer."""
        return [
            layer.init_state(params[str(i)], batch_shape, capacity)
            for i, layer in enumerate(self.layers)
        ]

    def cache_of(self, state):
        """A list, one entry per layer."""
        return [layer.cache_of(s) for layer, s in zip(self.layers, state)]

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        count = len(self.layers)
        keys = [None] * count if key is None else list(jax.random.split(key, count))
        states = [None] * count if state is None else state
        if not isinstance(states, list | tuple) or len(states) != count:
            got = len(states) if isinstance(states, list | tuple) else type(states).__name__
            raise ValueError(f"state: expected a list of {count} states, one per layer; got {got}")
        new = []
        for i, (layer, s, k) in enumerate(zip(self.layers, states, keys)):
            s, xs = layer.apply(params[str(i)], xs, s, mask=mask, resets=resets, key=k)
            new.append(s)
        return (None if state is None else new), xs

    def probe(self, params, xs, *, mask=None, resets=None):
        """Those of every layer, under `index/name`, and the outputs."""
        found: dict[str, jax.Array] = {}
        for i, layer in enumerate(self.layers):
            of_layer = layer.probe(params[str(i)], xs, mask=mask, resets=resets)
            found |= {f"{i}/{name}": value for name, value in of_layer.items()}
            xs = of_layer["outputs"]
        return found | {"outputs": xs}


class _Around(Layer):
    """A layer around one inner layer, whose state is its state."""

    inner: Layer

    def out_features(self, in_features):
        """As the inner layer."""
        return self.inner.out_features(in_features)

    def init_state(self, params, batch_shape, capacity):
        """The inner layer's."""
        return self.inner.init_state(params["inner"], batch_shape, capacity)

    def cache_of(self, state):
        """The inner layer's."""
        return self.inner.cache_of(state)


class Residual(_Around):
    """The input is added to what the inner layer makes of it, normalised first: `x + f(norm(x))`.

    Attributes:
        inner: f; it must keep the width.
    """

    def init(self, key, in_features):
        """`norm` and `inner`."""
        out = self.inner.out_features(in_features)
        if out != in_features:
            raise ValueError(
                f"Residual: expected an inner layer that keeps the width {in_features}, got "
                f"{self.inner} with {out}"
            )
        return {
            "norm": Norm().init(key, in_features),
            "inner": self.inner.init(key, in_features),
        }

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        normed = Norm().at_each_step(params["norm"], xs, None)
        state, ys = self.inner.apply(
            params["inner"], normed, state, mask=mask, resets=resets, key=key
        )
        return state, xs + ys

    def probe(self, params, xs, *, mask=None, resets=None):
        """Those of the inner layer under `inner/name`, and the outputs."""
        normed = Norm().at_each_step(params["norm"], xs, None)
        found = self.inner.probe(params["inner"], normed, mask=mask, resets=resets)
        named: dict[str, Any] = {f"inner/{name}": value for name, value in found.items()}
        return named | {"outputs": xs + found["outputs"]}


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
        both = jnp.concatenate([xs, contexts], axis=-1)
        return jnp.tanh(Dense(xs.shape[-1]).at_each_step(params["join"], both, None))
