"""Interventions: change one part of a trained model at test time, and measure again."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from longlag.attention import Attention, DotProduct
from longlag.core.ops import Params
from longlag.models import SequenceModel
from longlag.nn import Layer, Recurrent, ShortConvolution
from longlag.nn.layer import State
from longlag.runs import Loaded, load
from longlag.tasks import Batch
from longlag.training import evaluate, evaluation_batch

__all__ = [
    "BEYOND",
    "KNOCK_OUTS",
    "beyond",
    "change_layers",
    "deafen",
    "knock_outs",
    "silence",
]

KNOCK_OUTS = {
    "attention silent": "its outputs are zero",
    "carry reset": "every recurrence begins anew at the first step that is scored",
    "short window": "the attention reads the last quarter of the lag alone",
}

# What may fail beyond the trained length, each put back to what it was in training.
BEYOND = {
    "positions stretched": "distances are divided until the longest is one of training",
    "no positions": "the attention sees no order",
    "scores sharpened": "scores are multiplied by log n / log of the trained n, for n steps",
    "trained window": "the attention reads as many steps as in training",
    "young state": "recurrences begin anew, as many steps before the end as training had",
}

# A changed model, its parameters, and the test set.
Changed = tuple[SequenceModel, Params, Batch]


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


def change_layers(model: SequenceModel, change: Callable[[Layer], Layer | None]) -> SequenceModel:
    """Replaces layers of a model, which keeps its parameters.

    Args:
        model: the model.
        change: as in `replace_layers`, such as `silence` or `deafen`.
    """
    layers = tuple(replace_layers(layer, change) for layer in model.layers)
    return dataclasses.replace(model, layers=layers)  # type: ignore[type-var]


def knock_outs(run: Path, lags: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
    """Knocks parts of a run's models out, one at a time.

    Args:
        run: the folder of a finished run, of a recurrence with an attention.
        lags: the lag to measure each seed at. A seed that is not here is left out. None: all
            seeds, at the lag of the task.

    Returns:
        For each seed and each of `KNOCK_OUTS`: `seed, part, lag, accuracy`, on the test set of the
        lag, and `rate` of a grid of learning rates. `part` is "none" for the model as it was
        trained. `nan`, the share of the answers that are NaN, where there are any.
    """
    loaded = load(run)

    def change(model: SequenceModel, params: Params, batch: Batch, lag: int) -> dict[str, Changed]:
        window = functools.partial(_look_back, max(lag // 4, 1))
        return {
            "attention silent": (change_layers(model, silence), params, batch),
            "carry reset": (
                change_layers(model, deafen),
                params,
                batch.replace(resets=_first_scored(batch)),  # type: ignore[attr-defined]
            ),
            "short window": (change_layers(model, window), params, batch),
        }

    if lags is None:
        lags = dict.fromkeys(loaded.experiment.seed_numbers, loaded.experiment.task.lag)
    return _measure(loaded, lags, change)


def beyond(run: Path, lags: Mapping[int, int], times: int) -> list[dict[str, Any]]:
    """Asks what fails beyond the trained length, by putting one part back to what it was.

    If the accuracy returns where one part is put back, that part was what failed.

    Args:
        run: the folder of a finished run.
        lags: the lag that each seed was trained to. A seed that is not here is left out.
        times: how many times that lag to measure at.

    Returns:
        For each seed and each of `BEYOND` that the model has the part for: the entries of
        `knock_outs`.
    """
    loaded = load(run)
    task = loaded.experiment.task

    def change(model: SequenceModel, params: Params, batch: Batch, lag: int) -> dict[str, Changed]:
        steps, trained = batch.weights.shape[1], task.at_lag(lag // times).time_steps
        changed: dict[str, Changed] = {}
        if _layers_of(model, DotProduct):
            stretch = functools.partial(_stretch, steps / trained)
            sharper = math.log(steps) / math.log(trained)
            looks_back = functools.partial(_look_back, trained)
            changed = {
                "positions stretched": (change_layers(model, stretch), params, batch),
                "no positions": (change_layers(model, _without_positions), params, batch),
                "scores sharpened": (model, _scale_queries(params, sharper), batch),
                "trained window": (change_layers(model, looks_back), params, batch),
            }
        if _layers_of(model, Recurrent):
            young = jnp.zeros(batch.weights.shape, bool).at[:, steps - trained].set(True)
            young_batch = batch.replace(resets=young)  # type: ignore[attr-defined]
            changed["young state"] = (change_layers(model, deafen), params, young_batch)
        return changed

    return _measure(loaded, {seed: times * lag for seed, lag in lags.items()}, change)


def _measure(
    loaded: Loaded,
    lags: Mapping[int, int],
    change: Callable[[SequenceModel, Params, Batch, int], dict[str, Changed]],
) -> list[dict[str, Any]]:
    """Rows of the model as it was trained ("none"), and with each change, seeds by their lag."""
    experiment, model = loaded.experiment, loaded.model
    training, rows = experiment.training, []
    for lag in sorted(set(lags.values())):
        task = experiment.task.at_lag(lag)
        batch = evaluation_batch(task, training.eval_size, "test")
        at = [i for i, label in enumerate(experiment.labels) if lags.get(label["seed"]) == lag]
        params = jax.tree.map(lambda leaf, at=at: leaf[jnp.asarray(at)], loaded.params)
        variants = {"none": (model, params, batch)} | change(model, params, batch, lag)
        for part, (altered, weights, test_batch) in variants.items():
            measured = jax.device_get(evaluate(altered, task, training, weights, test_batch))
            rows += [
                {**experiment.labels[i], "part": part, "lag": lag, "accuracy": accuracy}
                | ({"nan": nan} if nan else {})
                for i, accuracy, nan in zip(at, measured.accuracy.tolist(), measured.nan.tolist())
            ]
    return rows


def _look_back(window: int, layer: Layer) -> Layer | None:
    """Makes attentions read so many steps, or fewer if they did."""
    if isinstance(layer, Attention):
        return dataclasses.replace(layer, window=min(window, layer.window or window))
    return None


def _stretch(times: float, layer: Layer) -> Layer | None:
    """Divides the distances that attentions see."""
    return dataclasses.replace(layer, stretch=times) if isinstance(layer, DotProduct) else None


def _without_positions(layer: Layer) -> Layer | None:
    return dataclasses.replace(layer, positions="none") if isinstance(layer, DotProduct) else None


def _scale_queries(params: Params, factor: float) -> Params:
    """Multiplies the queries of every attention."""

    def scale(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [getattr(entry, "key", None) for entry in path]
        return leaf * factor if names[-2:] == ["query", "kernel"] else leaf

    return jax.tree_util.tree_map_with_path(scale, params)


def _layers_of(model: SequenceModel, kind: type[Layer]) -> list[Layer]:
    """The layers of a kind, wherever in the model."""
    layers: list[Layer] = []

    def collect(layer: Layer) -> Layer | None:
        if isinstance(layer, kind):
            layers.append(layer)
        return None

    change_layers(model, collect)
    return layers


def _first_scored(batch: Batch) -> jax.Array:
    """`[B, T]` bool, true at the first scored step of each row."""
    return batch.scored & (jnp.arange(batch.scored.shape[1]) == batch.scored.argmax(1)[:, None])
