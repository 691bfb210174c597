"""The bootstrap that translation, language and intents share."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.harness.bootstrap import RESAMPLES, Interval, bootstrap


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3, 2, 400)
    seen = []

    def mean(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights @ values / len(values)

    found = bootstrap(mean, len(values))
    error = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean(), abs=1e-4)
    assert found.low == pytest.approx(found.mean - error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + error, abs=0.1 * error)
    once, weights = seen
    assert once.shape == (1, 400) and (once == 1).all() and weights.shape == (RESAMPLES, 400)
    # With replacement: as many draws as units, and e^-1 of the units in none of a resample's.
    assert (weights.sum(1) == 400).all()
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)
    assert bootstrap(mean, len(values)) == found, "the draws are always the same"


def test_the_draws_are_those_of_the_recorded_intervals():
    """Committed tables hold intervals of these draws, which were once made without scipy."""
    drawn = np.random.default_rng(0).integers(7, size=(RESAMPLES, 7))
    values = np.arange(7.0) ** 2
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    interval = bootstrap(lambda w: w @ values / 7, 7, digits=10)
    assert interval == pytest.approx((values.mean(), low, high), abs=1e-9)


def test_one_unit_is_its_own_interval():
    assert bootstrap(lambda w: w @ [3.0] / w.sum(1), 1) == Interval(3, 3, 3)


def test_a_difference_of_the_same_units_is_paired():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 300)
    a, b = hard + 1 + rng.normal(0, 0.1, 300), hard
    paired = bootstrap(lambda w: w @ (a - b) / 300, 300)
    assert paired.apart and paired.high - paired.low < 0.05
    assert not bootstrap(lambda w: w @ a / 300, 300).apart


@pytest.mark.parametrize(
    ("interval", "apart"),
    [((1, 0.5, 2), True), ((-1, -2, -0.5), True), ((1, -0.1, 2), False), ((0, 0, 0), False)],
)
def test_an_interval_with_zero_in_it_tells_nothing_apart(interval, apart):
    assert Interval(*interval).apart is apart


def test_there_must_be_something_to_draw():
    with pytest.raises(ValueError, match="at least one unit, got 0"):
        bootstrap(lambda w: w[:, 0], 0)
