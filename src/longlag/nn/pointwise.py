"""Layers that act on every step alone, and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.core.any_length import associative_scan
from longlag.core.array_types import PRNGKey, StepInputs, StepOutputs
from longlag.core.ops import Params, dot, split_heads
from longlag.core.over_devices import refuse_time_axis
from longlag.core.placement import shard_like
from longlag.core.promotion import add, at_least_float32, multiply, widen
from longlag.core.spec import choose
from longlag.nn.layer import Layer, State

__all__ = ["MLP", "Dense", "Dropout", "Norm", "Scale", "VariationalDropout"]


class _Pointwise(Layer):
    """A layer without memory: the same function at every step."""

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

    def at_each_step(self, params: Params, xs: StepInputs, key: PRNGKey | None) -> StepOutputs:
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

    def init(self, key: jax.Array, in_features: int) -> Params:
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

    def out_features(self, in_features: int) -> int:
        """`features`."""
        return self.features

    def in_features(self, params: Params) -> int:
        """D, read off the kernel."""
        return self.blocks * params["kernel"].shape[-2]

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
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

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Ones."""
        return {"scale": jnp.ones(in_features)}

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
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

    def init(self, key: jax.Array, in_features: int) -> Params:
        """`up`, `down` and, if gated, `gate`."""
        up, down, *gate = jax.random.split(key, 3 if self.gated else 2)
        inner = Dense(self.hidden, bias=self.bias)
        return {
            "up": inner.init(up, in_features),
            "down": Dense(in_features, bias=self.bias).init(down, self.hidden),
        } | ({"gate": inner.init(gate[0], in_features)} if self.gated else {})

    def in_features(self, params: Params) -> int:
        """D, read off the first kernel."""
        return params["up"]["kernel"].shape[0]

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
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

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Scale one."""
        if in_features % self.groups:
            raise ValueError(
                f"Norm.groups: expected a divisor of {in_features} features, got {self.groups}"
            )
        return {"scale": jnp.ones(in_features)}

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
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

    def init(self, key: jax.Array, in_features: int) -> Params:
        """None."""
        return {}

    def at_each_step(self, params: Params, xs: jax.Array, key: jax.Array | None) -> jax.Array:
        """Fresh zeros at every step and feature."""
        if key is None or self.rate == 0:
            return xs
        kept = shard_like(jax.random.bernoulli(key, 1 - self.rate, xs.shape), xs)
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

    def init(self, key: jax.Array, in_features: int) -> Params:
        """None."""
        if in_features != self.features:
            raise ValueError(
                f"VariationalDropout.features: expected the width of its inputs, {in_features}; "
                f"got {self.features}"
            )
        return {}

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """Nothing drawn yet: `drawn` `[B]` bool, and which features are `kept`, `[B, D]` bool."""
        return {
            "drawn": jnp.zeros(batch_shape, bool),
            "kept": jnp.ones((*batch_shape, self.features), bool),
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
        if key is None or self.rate == 0 or not xs.shape[0]:
            return state, xs
        refuse_time_axis(f"{self}", "use Dropout, which draws for every step")
        T, B, D = xs.shape
        now = state or self.init_state(params, (B,), 0)
        begins = jnp.zeros((T, B), bool) if resets is None else resets
        begins = begins.at[0].set(begins[0] | ~now["drawn"])
        # Drawn for every step, so that a sequence may begin at any; used at the last beginning.
        drawn = shard_like(jax.random.bernoulli(key, 1 - self.rate, (T, B, D)), xs)
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
