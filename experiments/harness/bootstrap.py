"""Intervals by a bootstrap: how far a figure would move if other units had been drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["RESAMPLES", "Interval", "bootstrap"]

RESAMPLES = 2000


class Interval(NamedTuple):
    """A figure with its 95% bootstrap interval.

    Attributes:
        mean: of the units as they are.
        low: the 2.5th percentile over the resamples.
        high: the 97.5th.
    """

    mean: float
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether zero is outside."""
        return self.low > 0 or self.high < 0


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], units: int, digits: int = 4
) -> Interval:
    """The 95% percentile interval of a statistic, when its units are drawn anew with replacement.

    The draws depend on the number of units alone. A difference of two arms is to be one statistic,
    of the same units: the interval is then a paired one.

    Args:
        statistic: of `[R, units]` float64, how often each unit counts in each of R resamples, to
            `[R]`.
        units: how many units there are: what is independent of each other, such as sentences.
        digits: that the figures are rounded to.

    Raises:
        ValueError: no units.

    Reference: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    if units < 1:
        raise ValueError(f"bootstrap: expected at least one unit, got {units}")
    mean = float(statistic(np.ones((1, units)))[0])
    low = high = mean
    if units > 1:
        from scipy import stats  # takes a second

        interval = stats.bootstrap(
            (np.arange(units),),
            lambda drawn, axis: statistic(_counts(drawn)),
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Interval(*(round(x, digits) for x in (mean, low, high)))


def _counts(drawn: np.ndarray) -> np.ndarray:
    """How often each unit is among those drawn, float64; both are `[R, units]`."""
    rows, units = drawn.shape
    places = drawn + units * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape) * 1.0
