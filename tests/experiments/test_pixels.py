"""Pictures pixel by pixel: the floor, and the table."""

from __future__ import annotations

import types

import numpy as np
import pytest

from experiments.real_data import pixels


def test_the_floor_names_a_picture_after_the_nearest_mean(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (10, 28, 28))
    labels = np.arange(10).repeat(3)
    train = np.clip(base[labels] + rng.integers(-9, 9, (30, 28, 28)), 0, 255).astype(np.uint8)
    # Nine of ten are near the mean of their class, and the last one is near that of another.
    images = types.SimpleNamespace(
        train=train,
        train_labels=labels,
        test=base[[*range(9), 0]].astype(np.uint8),
        test_labels=np.arange(10),
    )
    monkeypatch.setattr(pixels.fashion_mnist, "load", lambda: images)
    assert pixels.nearest_mean() == pytest.approx(0.9)
    assert pixels.measure_floor({}, [], None)["floors"]["any class"] == 0.1


def test_every_arm_and_floor_has_a_line():
    row = {
        "arm": "GRU",
        "lag": 784,
        "train_lag": 784,
        "rate": 0.001,
        "parameters": 1000,
        "state_bytes": 256,
        "seconds": 3.0,
        "spent": 4e12,
    }
    rows = [row | {"seed": k, "steps": 100 + k, "accuracy": 0.7 + k / 10} for k in range(3)]
    results = {
        "rows": rows,
        "floors": {"any class": 0.1},
        "trials": [{"spent": 1e12}, {"spent": 2e12}],
        "meta": {"core_hours": 1.5},
    }
    gru, floor = pixels.lines(results)
    assert gru[:5] == ("GRU", "0.800 (0.700–0.900)", "101", "0.001", "1,000")
    assert floor[:2] == ("floor: any class", "0.100") and len(floor) == len(pixels.COLUMNS)
    assert "4.0e+12 operations" in pixels.verdict(results)
    assert "took 3.0e+12" in pixels.verdict(results)
