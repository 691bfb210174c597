"""Layers made of other layers: stacks, residuals, gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax

from longlag.core.array_types import StepInputs
from longlag.core.ops import Params, affine
from longlag.core.promotion import add, multiply
from longlag.core.spec import choose
from longlag.core.weight_decay import by_name
from longlag.nn.layer import Layer, State
from longlag.nn.pointwise import Dense, Norm

__all__ = ["Gated", "Repeated", "Residual", "Stack"]


class Stack(Layer):
    """Layers one after another; parameters are theirs under "0", "1", ..., the state is a list.

    Attributes:
        layers: the layers, the first one first.
    """

    layers: tuple[Layer, ...]

    def init(self, key: jax.Array, in_features: int) -> Params:
        """One entry per layer."""
        params: Params = {}
        keys = jax.random.split(key, len(self.layers))
        for i, (layer, layer_key) in enumerate(zip(self.layers, keys)):
            params[str(i)] = layer.init(layer_key, in_features)
            in_features = layer.out_features(in_features)
        return params

    def decays(self, params: Params) -> Any:
        """As each layer says."""
        return {str(i): layer.decays(params[str(i)]) for i, layer in enumerate(self.layers)}

    def out_features(self, in_features: int) -> int:
        """That of the last layer."""
        for layer in self.layers:
            in_features = layer.out_features(in_features)
        return in_features

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """A list, one entry per layer."""
        return [
            layer.init_state(params[str(i)], batch_shape, capacity)
            for i, layer in enumerate(self.layers)
        ]

    def cache_of(self, state: State) -> State:
        """A list, one entry per layer."""
        return [layer.cache_of(s) for layer, s in zip(self.layers, state)]

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
        count = len(self.layers)
        keys = [None] * count if key is None else list(jax.random.split(key, count))
        states = [None] * count if state is None else state
        if not isinstance(states, list | tuple) or len(states) != count:
            given = len(states) if isinstance(states, list | tuple) else type(states).__name__
            raise ValueError(
                f"state: expected a list of {count} states, one per layer; got {given}"
            )
        new = []
        for i, (layer, s, k) in enumerate(zip(self.layers, states, keys)):
            s, xs = layer.apply(params[str(i)], xs, s, mask=mask, resets=resets, key=k)
            new.append(s)
        return (None if state is None else new), xs

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Those of every layer, under `index/name`, and the outputs."""
        probes: dict[str, jax.Array] = {}
        for i, layer in enumerate(self.layers):
            of_layer = layer.probe(params[str(i)], xs, mask=mask, resets=resets)
            probes |= {f"{i}/{name}": value for name, value in of_layer.items()}
            xs = of_layer["outputs"]
        return probes | {"outputs": xs}


class Repeated(Layer):
    """The same layer several times over, each time with parameters and a state of its own.

    Parameters and states are those of one layer with a leading axis of layers, over which a scan
    runs: a stack of twelve compiles in the time of one.

    Attributes:
        inner: the layer; it must keep the width.
        count: how often.
    """

    inner: Layer
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"Repeated.count: expected at least 1, got {self.count}")

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Drawn one layer apart from the other, stacked."""
        out = self.inner.out_features(in_features)
        if out != in_features:
            raise ValueError(
                f"Repeated: expected an inner layer that keeps the width {in_features}, got "
                f"{self.inner} with {out}"
            )
        keys = jax.random.split(key, self.count)
        return jax.vmap(lambda key: self.inner.init(key, in_features))(keys)

    def decays(self, params: Params) -> Any:
        """As the layer says of one."""
        return self.inner.decays(jax.eval_shape(lambda p: jax.tree.map(lambda x: x[0], p), params))

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """Those of the layers, stacked."""

        def init_one(params: Params) -> State:
            return self.inner.init_state(params, batch_shape, capacity)

        return jax.vmap(init_one, axis_size=self.count)(params)

    def cache_of(self, state: State) -> State:
        """Those of the layers, stacked."""
        return self.inner.cache_of(state)

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
        keys = None if key is None else jax.random.split(key, self.count)

        def apply_one(
            xs: jax.Array, of_layer: tuple[Params, State, jax.Array | None]
        ) -> tuple[jax.Array, State]:
            params, state, key = of_layer
            state, ys = self.inner.apply(params, xs, state, mask=mask, resets=resets, key=key)
            return ys, state

        # What a scan carries keeps its dtype: that of the first layer's outputs from the start.
        first = jax.tree.map(lambda leaf: leaf[0], (params, state, keys))
        xs = xs.astype(jax.eval_shape(apply_one, xs, first)[0].dtype)
        ys, state = jax.lax.scan(apply_one, xs, (params, state, keys), length=self.count)
        return state, ys

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Those of every layer, under `index/name`, and the outputs."""
        probes: dict[str, jax.Array] = {}
        for i in range(self.count):
            of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            of_layer = self.inner.probe(of_layer, xs, mask=mask, resets=resets)
            probes |= {f"{i}/{name}": value for name, value in of_layer.items()}
            xs = of_layer["outputs"]
        return probes | {"outputs": xs}


class _Wrapper(Layer):
    """A layer around one inner layer, whose state is its state."""

    inner: Layer

    def decays(self, params: Params) -> Any:
        """As the inner layer says, and for the rest by name."""
        return by_name(params) | {"inner": self.inner.decays(params["inner"])}

    def out_features(self, in_features: int) -> int:
        """As the inner layer."""
        return self.inner.out_features(in_features)

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """The inner layer's."""
        return self.inner.init_state(params["inner"], batch_shape, capacity)

    def cache_of(self, state: State) -> State:
        """The inner layer's."""
        return self.inner.cache_of(state)


class Residual(_Wrapper):
    """The input is added to what the inner layer makes of it, normalised first: `x + f(norm(x))`.

    Attributes:
        inner: f; it must keep the width.
        norm: how.
    """

    norm: Norm = Norm()

    def init(self, key: jax.Array, in_features: int) -> Params:
        """`norm` and `inner`."""
        out = self.inner.out_features(in_features)
        if out != in_features:
            raise ValueError(
                f"Residual: expected an inner layer that keeps the width {in_features}, got "
                f"{self.inner} with {out}"
            )
        return {
            "norm": self.norm.init(key, in_features),
            "inner": self.inner.init(key, in_features),
        }

    def decays(self, params: Params) -> Any:
        """As the inner layer and the norm say."""
        return {name: getattr(self, name).decays(params[name]) for name in ("norm", "inner")}

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
        state, ys = self.inner.apply(
            params["inner"], self.normalise(params, xs), state, mask=mask, resets=resets, key=key
        )
        return state, add(xs, ys)

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Those of the inner layer under `inner/name`, and the outputs."""
        of_inner = self.inner.probe(
            params["inner"], self.normalise(params, xs), mask=mask, resets=resets
        )
        named: dict[str, Any] = {f"inner/{name}": value for name, value in of_inner.items()}
        return named | {"outputs": add(xs, of_inner["outputs"])}

    def normalise(self, params: Params, xs: StepInputs) -> StepInputs:
        """What the inner layer is given."""
        return self.norm.at_each_step(params["norm"], xs, None)


class Gated(_Wrapper):
    """What an inner layer makes of the input, let through by a gate of the same input.

        φ(W x + b) ⊙ f(x)

    Attributes:
        inner: f.
        activation: φ: "silu" (retention, GLA, Mamba), "gelu" (Griffin) or "sigmoid".
    """

    activation: Literal["silu", "gelu", "sigmoid"] = "silu"

    def __post_init__(self) -> None:
        choose(self.activation, ("silu", "gelu", "sigmoid"), "Gated.activation")

    def init(self, key: jax.Array, in_features: int) -> Params:
        """`inner` and `gate`, an affine map to its width."""
        inner_key, gate_key = jax.random.split(key)
        width = self.inner.out_features(in_features)
        return {
            "inner": self.inner.init(inner_key, in_features),
            "gate": Dense(width).init(gate_key, in_features),
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
        state, ys = self.inner.apply(params["inner"], xs, state, mask=mask, resets=resets, key=key)
        return state, multiply(self._gate(params, xs), ys)

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Those of the inner layer under `inner/name`, the gate, and the outputs."""
        of_inner = self.inner.probe(params["inner"], xs, mask=mask, resets=resets)
        named: dict[str, Any] = {f"inner/{name}": value for name, value in of_inner.items()}
        gate = self._gate(params, xs)
        outputs = multiply(gate, of_inner["outputs"])
        return named | {"gate": gate, "outputs": outputs}

    def _gate(self, params: Params, xs: jax.Array) -> jax.Array:
        return getattr(jax.nn, self.activation)(affine(params["gate"], xs))
