"""Layers put together by an equation, where a stack is not enough."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, StepFeatures, StepOutputs, TimeMajor, TimeMajorOutputs
from longlag.core.ops import Params
from longlag.core.selection import select
from longlag.nn.layer import Layer, State

__all__ = ["Block", "Run", "concatenate_features"]

# A part by its name, and what it is given.
Run = Callable[[str, TimeMajor], TimeMajorOutputs]


class Block(Layer):
    """Layers put together by an equation. Write `parts` and `equation`.

    Parameters and state are those of the parts, by their names. Streaming, masks, resets and probes
    come with them: what is masked is zero before the equation and after it.

    Attributes:
        features: D, the width of inputs and outputs.
    """

    features: int

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(
                f"{type(self).__name__}.features: expected at least 1, got {self.features}"
            )
        self.parts  # noqa: B018 - each refuses what is impossible in it

    @property
    @abc.abstractmethod
    def parts(self) -> Mapping[str, Layer]:
        """The layers by name."""

    @abc.abstractmethod
    def equation(self, run: Run, xs: TimeMajor) -> TimeMajorOutputs:
        """The output, of inputs `[T, B, D]`; `run(name, xs)` is what a part makes of `xs`.

        Each part is run once, and nothing else in here may look at other steps.
        """

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Those of the parts, whose widths are read off the equation."""
        if in_features != self.features:
            raise ValueError(
                f"{type(self).__name__}.features: expected the width of its inputs, {in_features}; "
                f"got {self.features}"
            )
        parts, widths = self.parts, {}

        def measure(name: str, xs: jax.Array) -> jax.Array:
            if name in widths:
                raise ValueError(f"{self}: expected each part to be run once; {name!r} is twice")
            widths[name] = xs.shape[-1]
            return jnp.zeros((*xs.shape[:-1], parts[name].out_features(xs.shape[-1])), xs.dtype)

        one = jax.ShapeDtypeStruct((1, 1, in_features), jnp.float32)
        jax.eval_shape(lambda xs: self.equation(measure, xs), one)
        keys = jax.random.split(key, len(parts))
        return {name: part.init(k, widths[name]) for (name, part), k in zip(parts.items(), keys)}

    def decays(self, params: Params) -> Any:
        """By name."""
        return {name: part.decays(params[name]) for name, part in self.parts.items()}

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """By name."""
        return {
            name: part.init_state(params[name], batch_shape, capacity)
            for name, part in self.parts.items()
        }

    def cache_of(self, state: State) -> State:
        """By name."""
        return {name: part.cache_of(state[name]) for name, part in self.parts.items()}

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
        parts = self.parts
        keys = [None] * len(parts) if key is None else list(jax.random.split(key, len(parts)))
        key_of = dict(zip(parts, keys))
        if state is not None and (not isinstance(state, dict) or set(state) != set(parts)):
            given = ", ".join(state) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"state: expected one of {', '.join(parts)}; got {given}")
        new: dict[str, State] = {}

        def run(name: str, xs: jax.Array) -> jax.Array:
            old = None if state is None else state[name]
            new[name], ys = parts[name].apply(
                params[name], xs, old, mask=mask, resets=resets, key=key_of[name]
            )
            return ys

        ys = self._run_equation(run, xs, mask)
        return (None if state is None else new), ys

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Those of the parts, under `name/`, and the outputs."""
        probes: dict[str, jax.Array] = {}

        def run(name: str, xs: jax.Array) -> jax.Array:
            of_part = self.parts[name].probe(params[name], xs, mask=mask, resets=resets)
            probes.update({f"{name}/{what}": value for what, value in of_part.items()})
            return of_part["outputs"]

        ys = self._run_equation(run, xs, mask)
        return probes | {"outputs": ys}

    def _run_equation(self, run: Run, xs: jax.Array, mask: jax.Array | None) -> jax.Array:
        if mask is None:
            return self.equation(run, xs)
        ys = self.equation(run, select(mask, xs, jnp.zeros_like(xs)))
        return select(mask, ys, jnp.zeros_like(ys))


def concatenate_features(*parts: StepFeatures) -> StepOutputs:
    """Concatenate arrays along their features, `[..., K]` each."""
    return jnp.concatenate(parts, axis=-1)
