"""A grid of learning rates, whose pairs of a rate and a seed are the states of one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longlag.core.spec import refuse_idle
from longlag.training.config import Training

__all__ = ["check_rates", "describe_label", "label_states"]


def check_rates(rates: Sequence[float], training: Training) -> None:
    """Raises `ValueError` if a grid of learning rates is impossible; an empty one never is."""
    if any(rate <= 0 for rate in rates):
        raise ValueError(f"rates: expected more than 0, got {tuple(rates)}")
    if len({f"{rate:g}" for rate in rates}) < len(rates):
        raise ValueError(f"rates: expected each rate once, to six digits; got {tuple(rates)}")
    if rates:
        refuse_idle("learning_rate", training.learning_rate, Training.learning_rate, "beside rates")


def label_states(seeds: Sequence[int], rates: Sequence[float] = ()) -> list[dict[str, Any]]:
    """What tells the states of `init_states` apart, in their order, the rates outermost.

    Args:
        seeds: their numbers.
        rates: a grid of learning rates, or empty.

    Returns:
        Mappings of `seed` and, where there is a grid, of `rate`.
    """
    if not rates:
        return [{"seed": seed} for seed in seeds]
    return [{"seed": seed, "rate": rate} for rate in rates for seed in seeds]


def describe_label(label: Mapping[str, Any]) -> str:
    """A label, or a line that has one, for the user: "seed 0" or "seed 0 at rate 0.001"."""
    at = f" at rate {label['rate']:g}" if "rate" in label else ""
    return f"seed {label['seed']}{at}"
