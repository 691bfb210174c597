"""The optimisers and schedules of optax by name, with their own keywords checked."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from longlag.core.spec import choose

__all__ = [
    "Options",
    "check_optimizer",
    "freeze",
    "optimizer",
    "optimizers",
    "schedule",
    "schedule_names",
    "schedule_needs_end",
    "schedules",
    "takes_weight_decay",
]

# Keywords and their values. A configuration hashes, so it keeps them as pairs (`freeze`).
Options = Mapping[str, Any] | tuple[tuple[str, Any], ...]

# Where the defaults of this library are not those of optax.
DEFAULTS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "rmsprop": {"decay": 0.9}}
# Optimisers, with their defaults, and schedules that were tried once and for all (`_try`).
TRIED = ("adam", "adamw", "rmsprop", "sgd")
MASKS = ("mask", "weight_decay_mask")
# The part of the learning rate that a trial takes, a power of two so that scaling is exact.
PART = 2.0**-20


@functools.cache
def optimizers() -> dict[str, Callable[..., Any]]:
    """Lists the optimisers of `optax` and `optax.contrib` that take a learning rate."""
    named = {}
    for module in (optax.contrib, optax):  # of two of one name, optax's own
        for name, function in sorted(vars(module).items()):
            first = next(iter(_keywords(function)), None) if not name.startswith("_") else None
            if first == "learning_rate" and not name.startswith("scale_by"):
                named[name] = function
    return dict(sorted(named.items()))


@functools.cache
def schedules() -> dict[str, Callable[..., Any]]:
    """Lists the schedules of `optax`, besides "constant" and "cosine"."""
    return {
        name: function
        for name, function in sorted(vars(optax).items())
        if name.endswith(("_schedule", "exponential_decay")) and not name.startswith("scale_by")
    }


def schedule_names() -> list[str]:
    """Returns "constant", "cosine" and the names of `schedules`."""
    return ["constant", "cosine", *schedules()]


def freeze(options: Any, what: str) -> tuple[tuple[str, Any], ...]:
    """Turns options into sorted pairs, which can be hashed and stored as JSON.

    Args:
        options: a mapping from keywords to values, or pairs of them. Values are numbers, bools,
            strings, None, and sequences and mappings of these.
        what: the option, for the message.

    Raises:
        ValueError: it is something else.
    """
    try:
        pairs = dict(options)
        if not all(isinstance(key, str) for key in pairs):
            raise TypeError
        return tuple((key, _freeze_value(pairs[key])) for key in sorted(pairs))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what}: expected keywords with values that JSON can hold, such as "
            f"{{'b1': 0.95}}; got {options!r}"
        ) from error


def takes_weight_decay(name: str) -> bool:
    """Whether an optimiser has a weight decay, and a mask of the parameters that it shrinks."""
    keywords = _keywords(optimizers()[name])
    return "weight_decay" in keywords and not keywords.keys().isdisjoint(MASKS)


def optimizer_options(name: str, options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Checks the keywords of an optimiser and returns them.

    Raises:
        ValueError: an unknown name or keyword (the nearest one is offered), or one that is given
            elsewhere.
    """
    choose(name, optimizers(), "optimizer")
    keywords = _keywords(optimizers()[name])
    elsewhere = {"learning_rate": "learning_rate", **dict.fromkeys(MASKS, "Model.decays")}
    if takes_weight_decay(name):
        elsewhere["weight_decay"] = "weight_decay"
    chosen = DEFAULTS.get(name, {}) | _thaw_options(options)
    for key in chosen:
        if key.endswith("weight_decay") and key not in elsewhere:
            raise ValueError(
                f"optimizer_options: expected no {key}, since {name} has no mask for it, so that "
                "it would shrink biases, scales and decays too; got one"
            )
        if key in elsewhere:
            raise ValueError(
                f"optimizer_options: expected no {key}, which {elsewhere[key]} sets; got one"
            )
        choose(key, [k for k in keywords if k not in elsewhere], f"keyword of optimizer {name}")
    return chosen


def optimizer(
    name: str,
    options: tuple[tuple[str, Any], ...],
    rate: float | Callable[[Any], Any],
    weight_decay: float,
    mask: Callable[[Any], Any],
) -> optax.GradientTransformation:
    """Makes the optimiser of optax.

    Args:
        name: one of `optimizers`.
        options: its own keywords.
        rate: learning rate, a number or a schedule.
        weight_decay: for one that `takes_weight_decay`.
        mask: maps parameters to a tree of bools: what is shrunk.
    """
    function, chosen = optimizers()[name], optimizer_options(name, options)
    keywords = _keywords(function)
    chosen |= {key: mask for key in MASKS if key in keywords}
    if takes_weight_decay(name):
        chosen["weight_decay"] = weight_decay
    return function(rate, **chosen)


def check_optimizer(
    name: str, options: tuple[tuple[str, Any], ...], weight_decay: float, scheduled: bool
) -> None:
    """Raises `ValueError` unless training can use an optimiser.

    One program serves all learning rates (`TrainState.rate`), so updates must be proportional to
    the rate. A trial of a few steps finds out: keywords that do not fit fail in it too.
    """
    optimizer_options(name, options)
    if name.startswith("schedule_free"):
        raise ValueError(
            f"optimizer: expected one that trains the parameters that are evaluated; got {name!r}, "
            "which evaluates an average of them"
        )
    if name not in TRIED or options:
        _try(name, options, weight_decay if takes_weight_decay(name) else 0.0, scheduled)


@functools.cache
def _try(
    name: str, options: tuple[tuple[str, Any], ...], weight_decay: float, scheduled: bool
) -> None:
    """`check_optimizer`, of what is not known yet."""
    params = {"kernel": np.linspace(-1, 1.5, 6).reshape(3, 2), "bias": np.asarray([0.5, -0.25])}
    params = jax.tree.map(np.float32, params)

    def updates(part: float) -> list[Any]:
        rate = (lambda count: part / (1 + count)) if scheduled else part
        decays = {"kernel": True, "bias": False}
        transformation = optimizer(name, options, rate, weight_decay, lambda _: decays)
        state, steps = transformation.init(params), []
        dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(state)]
        if any(jnp.issubdtype(dtype, jax.dtypes.prng_key) for dtype in dtypes):
            raise ValueError("its state holds a random key, which no checkpoint can")
        for i, scale in enumerate((1.0, -2.0, 0.5, 3.0)):
            moved = jax.tree.map(lambda leaf, i=i: leaf * (1 + i / 8), params)
            gradients = jax.tree.map(lambda leaf, scale=scale: scale * jnp.cos(3 * leaf), moved)
            update, state = transformation.update(gradients, state, moved)
            steps.append(update)
        return steps

    try:
        with jax.ensure_compile_time_eval(), jax.enable_x64(False):
            whole, part = jax.device_get(jax.jit(lambda: (updates(1.0), updates(PART)))())
    except Exception as error:
        raise ValueError(
            "optimizer: expected one that makes updates from gradients and parameters alone; "
            f"{name!r} with {_thaw_options(options)} fails: {error}"
        ) from error
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(part)):
        if not np.allclose(one, other / PART, rtol=1e-4, atol=1e-6):
            raise ValueError(
                "optimizer: expected updates proportional to the learning rate, since one program "
                f"serves all rates; got {name!r} with {_thaw_options(options)}, whose updates are "
                "not"
            )


def schedule_needs_end(name: str, options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether a schedule depends on the total number of steps."""
    if name in ("constant", "cosine"):
        return name == "cosine"
    given = dict(options)
    return any(key not in given for key in _required_keywords(name) if key in _LENGTHS)


_LENGTHS = ("decay_steps", "transition_steps")


def _required_keywords(name: str) -> list[str]:
    empty = inspect.Parameter.empty
    return [key for key, p in _keywords(schedules()[name]).items() if p.default is empty]


def schedule(
    name: str, options: tuple[tuple[str, Any], ...], rate: float, steps: int, warmup: int
) -> float | Callable[[Any], Any]:
    """Makes the learning rate schedule.

    Args:
        name: "constant", "cosine" (to zero over `steps`) or one of `schedules`.
        options: the keywords of one of `schedules`; rates are in units of `rate`. What optax
            demands and is not given is: the peak, or where there is none the first rate or the
            value, 1; the other rates 0; the warmup `warmup`; the length what `steps` leaves.
        rate: the peak.
        steps: optimiser steps in all.
        warmup: steps over which the rate rises from zero, before a schedule without a warmup.

    Raises:
        ValueError: an unknown name or keyword, or one that is missing.
    """
    choose(name, schedule_names(), "schedule")
    if name == "cosine" and not options:
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup else rate, rate, warmup, max(steps, warmup + 1)
        )
    if name == "constant" and not options:
        return optax.linear_schedule(0.0, rate, warmup) if warmup else rate
    if name in ("constant", "cosine"):
        raise ValueError(
            f"schedule_options: expected none, since schedule {name!r} has none; got "
            f"{_thaw_options(options)}"
        )
    keywords = _keywords(schedules()[name])
    peak = next((key for key in ("peak_value", "init_value", "value") if key in keywords), None)
    warms = "warmup_steps" in keywords
    chosen = _thaw_options(options)
    for key in chosen:
        choose(key, keywords, f"keyword of schedule {name}")
    for key in _required_keywords(name):
        left = max(steps if warms else steps - warmup, 1)
        fill = {"warmup_steps": warmup, "init_value": 0.0, "end_value": 0.0}
        fill |= dict.fromkeys(_LENGTHS, left) | {peak: 1.0}
        if key not in chosen and key not in fill:
            raise ValueError(f"schedule_options: expected {key}, which {name} demands; got none")
        chosen.setdefault(key, fill.get(key))
    try:
        shape = schedules()[name](**chosen)
        if warmup and not warms:
            shape = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), shape], [warmup])
        jax.eval_shape(shape, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        raise ValueError(f"schedule: {name!r} fails with {chosen}: {error}") from error
    return lambda count: rate * shape(count)


@functools.cache
def _keywords(function: Any) -> Mapping[str, inspect.Parameter]:
    if not callable(function) or inspect.isclass(function):
        return {}
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _freeze_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, _freeze_value(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_freeze_value, value))
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(type(value))


def _thaw_options(options: Any) -> dict[str, Any]:
    return {key: _thaw(value) for key, value in options}


def _thaw(value: Any) -> Any:
    """Pairs become a mapping again: no keyword of optax wants a sequence of pairs."""
    if not isinstance(value, tuple):
        return value
    pairs = all(isinstance(v, tuple) and len(v) == 2 and isinstance(v[0], str | int) for v in value)
    return {k: _thaw(v) for k, v in value} if value and pairs else [_thaw(v) for v in value]
