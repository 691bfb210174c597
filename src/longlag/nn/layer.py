"""The contract of a layer: a map of sequences that streams.

A layer takes and gives whole sequences, time-major inside a model: `[T, B, D]`. What it must
remember between two chunks of one sequence is its state; a recurrence keeps a carry, an attention
keeps a cache, a pointwise layer keeps nothing.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from longlag.core.array_types import (
    PRNGKey,
    TimeMajor,
    TimeMajorMask,
    TimeMajorOutputs,
    TimeMajorResets,
)
from longlag.core.checks import as_key, check_sequence
from longlag.core.ops import Params
from longlag.core.over_devices import key_of_device
from longlag.core.spec import Spec
from longlag.core.weight_decay import by_name

__all__ = ["Layer", "State"]

State = Any


class Layer(Spec, abc.ABC):
    """A map from `[T, B, D]` to `[T, B, K]`. Write `init` and `apply`; more if it keeps a state.

    Masks and resets mean what they mean in `longlag.unroll`: the reset comes first, then a masked
    step leaves the state as it is and gives zero. A pointwise layer may ignore both; containers
    and models pass them on.

    What `apply` and `probe` are given is checked before they are called, for every subclass: lists
    and NumPy arrays become arrays, and a mask that is not of bools or does not fit raises
    `ValueError`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "apply" in vars(cls):
            cls.apply = _check_before_apply(vars(cls)["apply"])  # type: ignore[method-assign]
        if "probe" in vars(cls):
            cls.probe = _check_before_probe(vars(cls)["probe"])  # type: ignore[method-assign]

    @abc.abstractmethod
    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Draws parameters for an input of D = `in_features`."""

    @abc.abstractmethod
    def apply(
        self,
        params: Params,
        xs: TimeMajor,
        state: State = None,
        *,
        mask: TimeMajorMask | None = None,
        resets: TimeMajorResets | None = None,
        key: PRNGKey | None = None,
    ) -> tuple[State, TimeMajorOutputs]:
        """Maps a sequence, or the next chunk of one.

        Args:
            params: parameters.
            xs: `[T, B, D]`.
            state: what the last chunk left, or `init_state`. None begins anew and keeps nothing,
                which is cheaper where the whole sequence is at hand.
            mask: `[T, B]` bool or None.
            resets: `[T, B]` bool or None.
            key: source of noise (dropout) while training; None means none.

        Returns:
            The new state (None if `state` was None) and the outputs `[T, B, K]`.
        """

    def decays(self, params: Params) -> Any:
        """Which parameters weight decay shrinks: a tree of bools like `params`.

        By default kernels and embeddings, by their names (`core.weight_decay.by_name`). A layer
        with parts asks each of them.

        Args:
            params: parameters, or their shapes.
        """
        return by_name(params)

    def out_features(self, in_features: int) -> int:
        """K for an input of D = `in_features`; by default the same."""
        return in_features

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """The state before the first step.

        Args:
            params: parameters.
            batch_shape: `(B,)`.
            capacity: the number of steps that an unbounded memory has room for.

        Returns:
            A tree of arrays; the empty tuple for a layer that keeps nothing.
        """
        del params, batch_shape, capacity
        return ()

    def cache_of(self, state: State) -> State:
        """The part of a state that is a cache of the past, which grows with the capacity."""
        del state
        return ()

    def probe(
        self,
        params: Params,
        xs: TimeMajor,
        *,
        mask: TimeMajorMask | None = None,
        resets: TimeMajorResets | None = None,
    ) -> dict[str, jax.Array]:
        """What is worth looking at in a whole sequence, by name: outputs, attention weights."""
        return {"outputs": self.apply(params, xs, mask=mask, resets=resets)[1]}


def _check_before_apply(apply: Callable[..., Any]) -> Callable[..., Any]:
    """An `apply` that is given arrays and a typed key."""

    @functools.wraps(apply)
    def check_and_apply(
        self: Layer,
        params: Params,
        xs: jax.Array,
        state: State = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        xs, mask, resets = check_sequence("xs", xs, mask, resets, time_major=True)
        key = key_of_device(as_key("key", key))
        return apply(self, params, xs, state, mask=mask, resets=resets, key=key)

    return check_and_apply


def _check_before_probe(probe: Callable[..., Any]) -> Callable[..., Any]:
    """A `probe` that is given arrays."""

    @functools.wraps(probe)
    def check_and_probe(
        self: Layer,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        xs, mask, resets = check_sequence("xs", xs, mask, resets, time_major=True)
        return probe(self, params, xs, mask=mask, resets=resets)

    return check_and_probe
