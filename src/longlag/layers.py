"""The layers: a recurrence, a reading of its past, and what is put around and between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.any_length import associative_scan
from longlag.attention.attention import Attention
from longlag.cell import Cell, Params, affine, dot, split_heads
from longlag.layer import Layer, State
from longlag.promotion import add, at_least_float32, multiply, promote, widen
from longlag.spec import choose
from longlag.unroll import unroll
from longlag.weight_decay import by_name

__all__ = [
    "MLP",
    "Bidirectional",
    "Dense",
    "Dropout",
    "Gated",
    "Norm",
    "Read",
    "Recurrent",
    "Repeated",
    "Residual",
    "Scale",
    "Stack",
    "VariationalDropout",
]


class Recurrent(Layer):
    """A cell unrolled over the sequence; its state is the carry.

    Attributes:
        cell: any cell.
        zoneout: as in `unroll`, while training with the key that `apply` is given.
    """

    cell: Cell
    zoneout: float = 0.0

    def init(self, key: jax.Array, in_features: int) -> Params:
        """The cell's own parameters."""
        return self.cell.init(key, in_features)

    def decays(self, params: Params) -> Any:
        """As the cell says."""
        return self.cell.decays(params)

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
            self.cell,
            params,
            xs,
            state,
            mask=mask,
            resets=resets,
            key=key,
            zoneout=self.zoneout,
            time_major=True,
        )
        return (None if state is None else carry), ys

    def probe(self, params, xs, *, mask=None, resets=None):
        """Inputs, as `longlag.diagnostics` wants them, and outputs."""
        return {"inputs": xs, **super().probe(params, xs, mask=mask, resets=resets)}


class Bidirectional(Layer):
    """A cell from the first step to the last beside one from the last to the first.

    The output is the forward output beside the backward one. The backward one at a step has seen
    the rest of the sequence up to the next reset, so this layer does not stream: it is for
    encoders, and refuses a state.

    Attributes:
        cell: of both directions, each with parameters of its own, `forward` and `backward`.

    Reference: Schuster and Paliwal 1997, IEEE Transactions on Signal Processing 45(11).
    """

    cell: Cell

    def init(self, key: jax.Array, in_features: int) -> Params:
        """`forward` and `backward`."""
        forward, backward = jax.random.split(key)
        return {
            "forward": self.cell.init(forward, in_features),
            "backward": self.cell.init(backward, in_features),
        }

    def decays(self, params: Params) -> Any:
        """As the cell says, in both directions."""
        return {name: self.cell.decays(of_one) for name, of_one in params.items()}

    def out_features(self, in_features: int) -> int:
        """Twice that of the cell."""
        return 2 * Recurrent(self.cell).out_features(in_features)

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """Refused."""
        raise ValueError(f"{self}: expected the whole sequence at once; it has no state to stream")

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        if state is not None:
            raise ValueError(f"{self}: expected no state, since it does not stream; got one")
        keys = (None, None) if key is None else jax.random.split(key)
        options: dict[str, Any] = {"mask": mask, "time_major": True}
        _, forward = unroll(self.cell, params["forward"], xs, resets=resets, key=keys[0], **options)
        if resets is not None:
            # Backwards a sequence begins where the next one has begun.
            last = jnp.ones_like(resets[:1])
            resets = jnp.concatenate([resets[1:], last])
        _, backward = unroll(
            self.cell,
            params["backward"],
            xs,
            resets=resets,
            key=keys[1],
            reverse=True,
            **options,
        )
        return None, jnp.concatenate([forward, backward], axis=-1)


class _Pointwise(Layer):
    """A layer without memory: the same function at every step."""

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        del mask, resets
        features = self.in_features(params)
        if features is not None and xs.shape[-1] != features:
            raise ValueError(
                f"xs: expected [T, B, {features}], the input features of {self}; got shape "
                f"{xs.shape}"
            )
        return state, self.at_each_step(params, xs, key)

    def in_features(self, params: Params) -> int | None:
        """D as the parameters have it; None: any."""
        return params["scale"].shape[0] if "scale" in params else None

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
        """`[..., D]` to `[..., K]`."""
        raise NotImplementedError


class Dense(_Pointwise):
    """An affine map, `x W + b`, of all features or of each block of them by itself.

    Parameters: `kernel` `[D, K]`, or with blocks `[N, D / N, K / N]`; `bias` `[K]`.

    Attributes:
        features: K.
        blocks: N, which divides D and K: W is block-diagonal.
        bias: whether there is b.
    """

    features: int
    blocks: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"Dense.blocks: expected at least 1, got {self.blocks}")

    def init(self, key, in_features):
        """LeCun normal kernel, zero bias."""
        N = self.blocks
        if in_features % N or self.features % N:
            raise ValueError(
                f"Dense.blocks: expected a divisor of {in_features} and {self.features} features, "
                f"got {N}"
            )
        shape = (in_features // N, self.features // N)
        shape, batch = (shape, ()) if N == 1 else ((N, *shape), (0,))
        params: Params = {"kernel": initializers.lecun_normal(batch_axis=batch)(key, shape)}
        return params | ({"bias": jnp.zeros(self.features)} if self.bias else {})

    def out_features(self, in_features):
        """`features`."""
        return self.features

    def in_features(self, params):
        """D, read off the kernel."""
        return self.blocks * params["kernel"].shape[-2]

    def at_each_step(self, params, xs, key):
        """The equation."""
        kernel = params["kernel"]
        if self.blocks == 1:
            ys = dot(xs, kernel)
        else:
            accumulate = at_least_float32(kernel)
            parts = split_heads(xs, self.blocks).astype(kernel.dtype)
            ys = jnp.einsum("...nd,ndk->...nk", parts, kernel, preferred_element_type=accumulate)
            ys = ys.reshape(*xs.shape[:-1], self.features)
        return add(ys, params["bias"]) if self.bias else ys


class Scale(_Pointwise):
    """A learned number for each feature, `s ⊙ x`. Parameters: `scale` `[D]`, begun at one."""

    def init(self, key, in_features):
        """Ones."""
        return {"scale": jnp.ones(in_features)}

    def at_each_step(self, params, xs, key):
        """In at least float32."""
        return multiply(xs, params["scale"])


class MLP(_Pointwise):
    """Two affine maps with an activation φ between them, back to the width of the input.

        W_d φ(W_u x + b_u) + b_d
        W_d (φ(W_g x + b_g) ⊙ (W_u x + b_u)) + b_d             if gated

    Attributes:
        hidden: width between the two.
        activation: φ: "gelu" or "silu".
        gated: whether φ has a map of its own, `gate` (Shazeer 2020, arXiv 2002.05202).
        bias: whether the maps have one.
    """

    hidden: int
    activation: Literal["gelu", "silu"] = "gelu"
    gated: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        choose(self.activation, ("gelu", "silu"), "MLP.activation")

    def init(self, key, in_features):
        """`up`, `down` and, if gated, `gate`."""
        up, down, *gate = jax.random.split(key, 3 if self.gated else 2)
        inner = Dense(self.hidden, bias=self.bias)
        return {
            "up": inner.init(up, in_features),
            "down": Dense(in_features, bias=self.bias).init(down, self.hidden),
        } | ({"gate": inner.init(gate[0], in_features)} if self.gated else {})

    def in_features(self, params):
        """D, read off the first kernel."""
        return params["up"]["kernel"].shape[0]

    def at_each_step(self, params, xs, key):
        """The equation."""
        activation = getattr(jax.nn, self.activation)
        inner = Dense(self.hidden, bias=self.bias)
        hidden = inner.at_each_step(params["up"], xs, None)
        if self.gated:
            hidden = activation(inner.at_each_step(params["gate"], xs, None)) * hidden
        else:
            hidden = activation(hidden)
        return Dense(xs.shape[-1], bias=self.bias).at_each_step(params["down"], hidden, None)


class Norm(_Pointwise):
    """Root-mean-square normalisation with a learned scale (Zhang and Sennrich 2019, 1910.07467).

    Attributes:
        epsilon: added to the mean square.
        groups: of features, each normalised by itself, as the heads of a matrix cell are.
        centered: the mean is taken off first: layer normalisation, or of groups, without a bias.
    """

    epsilon: float = 1e-6
    groups: int = 1
    centered: bool = False

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"Norm.groups: expected at least 1, got {self.groups}")

    def init(self, key, in_features):
        """Scale one."""
        if in_features % self.groups:
            raise ValueError(
                f"Norm.groups: expected a divisor of {in_features} features, got {self.groups}"
            )
        return {"scale": jnp.ones(in_features)}

    def at_each_step(self, params, xs, key):
        """In at least float32."""
        xs = widen(xs)
        parts = split_heads(xs, self.groups)
        if self.centered:
            parts = parts - jnp.mean(parts, axis=-1, keepdims=True)
        square = jnp.mean(parts * parts, axis=-1, keepdims=True)
        normed = (parts * jax.lax.rsqrt(square + self.epsilon)).reshape(xs.shape)
        return multiply(normed, params["scale"])


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


class VariationalDropout(Layer):
    """Zeroes the same features at every step of a sequence while a key is given.

    The zeros are drawn at the first step and at every reset. The state is what a row has drawn,
    so that the chunks of one sequence share it.

    Attributes:
        features: D.
        rate: probability of a zero, in [0, 1).

    Reference: Gal and Ghahramani 2016, arXiv 1512.05287.
    """

    features: int
    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"VariationalDropout.rate: expected 0 <= rate < 1, got {self.rate}")

    def init(self, key, in_features):
        """None."""
        if in_features != self.features:
            raise ValueError(
                f"VariationalDropout.features: expected the width of its inputs, {in_features}; "
                f"got {self.features}"
            )
        return {}

    def init_state(self, params, batch_shape, capacity):
        """Nothing drawn yet: `drawn` `[B]` bool, and which features are `kept`, `[B, D]` bool."""
        return {
            "drawn": jnp.zeros(batch_shape, bool),
            "kept": jnp.ones((*batch_shape, self.features), bool),
        }

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        if key is None or self.rate == 0 or not xs.shape[0]:
            return state, xs
        T, B, D = xs.shape
        now = state or self.init_state(params, (B,), 0)
        begins = jnp.zeros((T, B), bool) if resets is None else resets
        begins = begins.at[0].set(begins[0] | ~now["drawn"])
        # Drawn for every step, so that a sequence may begin at any; used at the last beginning.
        drawn = jax.random.bernoulli(key, 1 - self.rate, (T, B, D))
        steps = jnp.where(begins, jnp.arange(T)[:, None], -1)
        last = associative_scan(jnp.maximum, steps)
        kept = jnp.where(
            (last < 0)[..., None],
            now["kept"],
            jnp.take_along_axis(drawn, jnp.maximum(last, 0)[..., None], axis=0),
        )
        if state is not None:
            state = {"drawn": jnp.ones((B,), bool), "kept": kept[-1]}
        return state, jnp.where(kept, xs / (1 - self.rate), jnp.zeros_like(xs))


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

    def decays(self, params):
        """As each layer says."""
        return {str(i): layer.decays(params[str(i)]) for i, layer in enumerate(self.layers)}

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

    def init(self, key, in_features):
        """Drawn one layer apart from the other, stacked."""
        out = self.inner.out_features(in_features)
        if out != in_features:
            raise ValueError(
                f"Repeated: expected an inner layer that keeps the width {in_features}, got "
                f"{self.inner} with {out}"
            )
        keys = jax.random.split(key, self.count)
        return jax.vmap(lambda key: self.inner.init(key, in_features))(keys)

    def decays(self, params):
        """As the layer says of one."""
        return self.inner.decays(jax.eval_shape(lambda p: jax.tree.map(lambda x: x[0], p), params))

    def init_state(self, params, batch_shape, capacity):
        """Those of the layers, stacked."""

        def one(params):
            return self.inner.init_state(params, batch_shape, capacity)

        return jax.vmap(one, axis_size=self.count)(params)

    def cache_of(self, state):
        """Those of the layers, stacked."""
        return self.inner.cache_of(state)

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        keys = None if key is None else jax.random.split(key, self.count)

        def one(xs, of_layer):
            params, state, key = of_layer
            state, ys = self.inner.apply(params, xs, state, mask=mask, resets=resets, key=key)
            return ys, state

        # What a scan carries keeps its dtype: that of the first layer's outputs from the start.
        first = jax.tree.map(lambda leaf: leaf[0], (params, state, keys))
        xs = xs.astype(jax.eval_shape(one, xs, first)[0].dtype)
        ys, state = jax.lax.scan(one, xs, (params, state, keys), length=self.count)
        return state, ys

    def probe(self, params, xs, *, mask=None, resets=None):
        """Those of every layer, under `index/name`, and the outputs."""
        found: dict[str, jax.Array] = {}
        for i in range(self.count):
            of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            of_layer = self.inner.probe(of_layer, xs, mask=mask, resets=resets)
            found |= {f"{i}/{name}": value for name, value in of_layer.items()}
            xs = of_layer["outputs"]
        return found | {"outputs": xs}


class _Around(Layer):
    """A layer around one inner layer, whose state is its state."""

    inner: Layer

    def decays(self, params):
        """As the inner layer says, and for the rest by name."""
        return by_name(params) | {"inner": self.inner.decays(params["inner"])}

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
        norm: how.
    """

    norm: Norm = Norm()

    def init(self, key, in_features):
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

    def decays(self, params):
        """As the inner layer and the norm say."""
        return {name: getattr(self, name).decays(params[name]) for name in ("norm", "inner")}

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        state, ys = self.inner.apply(
            params["inner"], self.normed(params, xs), state, mask=mask, resets=resets, key=key
        )
        return state, add(xs, ys)

    def probe(self, params, xs, *, mask=None, resets=None):
        """Those of the inner layer under `inner/name`, and the outputs."""
        found = self.inner.probe(params["inner"], self.normed(params, xs), mask=mask, resets=resets)
        named: dict[str, Any] = {f"inner/{name}": value for name, value in found.items()}
        return named | {"outputs": add(xs, found["outputs"])}

    def normed(self, params: Params, xs: jax.Array) -> jax.Array:
        """What the inner layer is given."""
        return self.norm.at_each_step(params["norm"], xs, None)


class Gated(_Around):
    """What an inner layer makes of the input, let through by a gate of the same input.

        φ(W x + b) ⊙ f(x)

    Attributes:
        inner: f.
        activation: φ: "silu" (retention, GLA, Mamba), "gelu" (Griffin) or "sigmoid".
    """

    activation: Literal["silu", "gelu", "sigmoid"] = "silu"

    def __post_init__(self) -> None:
        choose(self.activation, ("silu", "gelu", "sigmoid"), "Gated.activation")

    def init(self, key, in_features):
        """`inner` and `gate`, an affine map to its width."""
        inner_key, gate_key = jax.random.split(key)
        width = self.inner.out_features(in_features)
        return {
            "inner": self.inner.init(inner_key, in_features),
            "gate": Dense(width).init(gate_key, in_features),
        }

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        """See `Layer.apply`."""
        state, ys = self.inner.apply(params["inner"], xs, state, mask=mask, resets=resets, key=key)
        return state, multiply(self._gate(params, xs), ys)

    def probe(self, params, xs, *, mask=None, resets=None):
        """Those of the inner layer under `inner/name`, the gate, and the outputs."""
        found = self.inner.probe(params["inner"], xs, mask=mask, resets=resets)
        named: dict[str, Any] = {f"inner/{name}": value for name, value in found.items()}
        gate = self._gate(params, xs)
        outputs = multiply(gate, found["outputs"])
        return named | {"gate": gate, "outputs": outputs}

    def _gate(self, params, xs):
        return getattr(jax.nn, self.activation)(affine(params["gate"], xs))


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
