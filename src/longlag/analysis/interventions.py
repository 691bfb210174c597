"""Knock-outs: remove one part of a trained hybrid at test time, and measure again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from longlag.attention import Attention
from longlag.core.ops import Params
from longlag.models import SequenceModel
from longlag.nn import Layer, ShortConvolution
from longlag.nn.layer import State
from longlag.runs import load
from longlag.tasks import Batch
from longlag.training import evaluate, evaluation_batch

__all__ = ["KNOCK_OUTS", "knock_outs"]

KNOCK_OUTS = {
    "attention silent": "its outputs are zero",
    "carry reset": "every recurrence begins anew at the first step that is scored",
    "short window": "the attention reads the last quarter of the lag alone",
}


class _Around(Layer):
    """A layer of a trained model, changed: parameters and state are its own."""

    inner: Layer

    def init(self, key: jax.Array, in_features: int) -> Params:
        return self.inner.init(key, in_features)

    def out_features(self, in_features: int) -> int:
        return self.inner.out_features(in_features)

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        return self.inner.init_state(params, batch_shape, capacity)

    def cache_of(self, state: State) -> State:
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
        return self.inner.apply(params, xs, state, mask=mask, resets=resets, key=key)


class Silent(_Around):
    """A layer that returns zeros."""

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
        state, ys = super().apply(params, xs, state, mask=mask, resets=resets, key=key)
        return state, jnp.zeros_like(ys)


class Deaf(_Around):
    """A layer that ignores resets."""

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
        return super().apply(params, xs, state, mask=mask, resets=None, key=key)


def replace_layers(layer: Layer, change: Callable[[Layer], Layer | None]) -> Layer:
    """The layer with each one in it, itself too, that `change` answers for replaced.

    Args:
        layer: a layer, perhaps of layers.
        change: what stands in a layer's place; None: what it is, looked into.
    """
    instead = change(layer)
    if instead is not None:
        return instead
    values: dict[str, Any] = {}
    for field in dataclasses.fields(layer):  # type: ignore[arg-type]
        value = getattr(layer, field.name)
        if isinstance(value, Layer):
            values[field.name] = replace_layers(value, change)
        elif isinstance(value, tuple) and any(isinstance(one, Layer) for one in value):
            values[field.name] = tuple(replace_layers(one, change) for one in value)
    return dataclasses.replace(layer, **values) if values else layer  # type: ignore[type-var]


def silence(layer: Layer) -> Layer | None:
    """Replaces attentions by layers that return zeros."""
    return Silent(layer) if isinstance(layer, Attention) else None


def deafen(layer: Layer) -> Layer | None:
    """Makes layers that look back without a carry ignore resets, so only recurrences reset."""
    return Deaf(layer) if isinstance(layer, Attention | ShortConvolution) else None


def knock_outs(run: Path) -> list[dict[str, Any]]:
    """Knocks parts of a run's models out, one at a time.

    Args:
        run: the folder of a finished run, of a recurrence with an attention.

    Returns:
        For each seed and each of `KNOCK_OUTS`: `seed, part, lag, accuracy`, on the test set of the
        lag trained at, and `rate` of a grid of learning rates. `part` is "none" for the model as it
        was trained. `nan`, the share of the answers that are NaN, where there are any.
    """
    loaded = load(run)
    experiment, model = loaded.experiment, loaded.model
    task, training = experiment.task, experiment.training
    batch = evaluation_batch(task, training.eval_size, "test")
    window = max(task.lag // 4, 1)

    def shorten(layer: Layer) -> Layer | None:
        if isinstance(layer, Attention):
            return dataclasses.replace(layer, window=window)
        return None

    changed: dict[str, tuple[SequenceModel, Batch]] = {
        "none": (model, batch),
        "attention silent": (_change_layers(model, silence), batch),
        "carry reset": (
            _change_layers(model, deafen),
            batch.replace(resets=_first_scored(batch)),  # type: ignore[attr-defined]
        ),
        "short window": (_change_layers(model, shorten), batch),
    }
    rows = []
    for part, (altered, test_batch) in changed.items():
        measured = jax.device_get(evaluate(altered, task, training, loaded.params, test_batch))
        rows += [
            {**label, "part": part, "lag": task.lag, "accuracy": accuracy}
            | ({"nan": nan} if nan else {})
            for label, accuracy, nan in zip(
                experiment.labels, measured.accuracy.tolist(), measured.nan.tolist()
            )
        ]
    return rows


def _change_layers(model: SequenceModel, change: Callable[[Layer], Layer | None]) -> SequenceModel:
    layers = tuple(replace_layers(layer, change) for layer in model.layers)
    return dataclasses.replace(model, layers=layers)  # type: ignore[type-var]


def _first_scored(batch: Batch) -> jax.Array:
    """`[B, T]` bool, true at the first scored step of each row."""
    return batch.scored & (jnp.arange(batch.scored.shape[1]) == batch.scored.argmax(1)[:, None])
