"""Diagnostics against what is known of simple recurrences, and the script on a run."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, LSTM, Elman, MinGRU
from longlag.analysis.diagnostics import (
    attention_by_lag,
    gradient_by_lag,
    jacobians,
    recurrences,
    spectral_radius,
    time_constants,
)
from longlag.cells import DeltaNet
from longlag.cli import diagnose
from longlag.models import build
from longlag.runs import Architecture, Experiment, Loaded
from longlag.tasks import Recall
from tests.helpers.paper import sigmoid


def test_the_jacobian_of_a_plain_network_is_its_formula(x64, rng):
    cell, xs = Elman(3), rng.normal(size=(5, 2))
    params = jax.tree.map(lambda leaf: leaf.astype(float), cell.init(jax.random.key(0), 2))
    found = jacobians(cell, params, xs)
    h = np.zeros(3)
    for t in range(5):
        v = xs[t] @ params["input"]["kernel"] + h @ params["recurrent"]["kernel"]
        h = np.tanh(v)
        expected = np.diag(1 - h**2) @ np.asarray(params["recurrent"]["kernel"]).T
        np.testing.assert_allclose(found[t], expected, 1e-10, 1e-12)
        radius = np.abs(np.linalg.eigvals(expected)).max()
        np.testing.assert_allclose(spectral_radius(found)[t], radius, 1e-10)


def test_time_constants_are_those_of_the_gates(x64, rng):
    xs = rng.normal(size=(6, 2))
    gru = MinGRU(3)
    params = jax.tree.map(lambda leaf: leaf.astype(float), gru.init(jax.random.key(0), 2))
    kept = sigmoid(-(xs @ np.asarray(params["input"]["kernel"])[:, :3]))
    expected = -1 / np.log(kept).mean(axis=0)
    np.testing.assert_allclose(time_constants(jacobians(gru, params, xs)), expected, 1e-10)
    lstm = LSTM(2)
    params = lstm.init(jax.random.key(0), 2)
    params["recurrent"]["kernel"] *= 0  # so that c' depends on c through the forget gate alone
    forget = sigmoid(xs @ np.asarray(params["input"]["kernel"])[:, 2:4] + 1)
    found = time_constants(jacobians(lstm, params, xs))[2:]
    np.testing.assert_allclose(found, -1 / np.log(forget).mean(axis=0), 1e-6)
    assert np.isinf(time_constants(np.ones((3, 1, 1)))).all()
    assert np.isnan(time_constants(np.full((3, 1, 1), np.nan))).all()


def test_a_matrix_state_has_a_jacobian_too(rng):
    cell = DeltaNet(4, heads=2)
    found = jacobians(cell, cell.init(jax.random.key(0), 3), rng.normal(size=(4, 3)))
    assert found.shape == (4, 8, 8)
    assert (spectral_radius(found) <= 1 + 1e-5).all()


def test_gradients_by_lag_are_those_of_each_input(rng):
    model = build(inputs="features", in_features=4, out_features=3, cell=GRU(4), width=4, depth=1)
    params = model.init(jax.random.key(0))
    params["head"]["kernel"] = rng.normal(size=(4, 3)).astype(np.float32)
    params["embed"]["kernel"] = np.eye(4, dtype=np.float32)
    xs, targets = rng.normal(size=(2, 6, 4)).astype(np.float32), np.array([[1] * 6, [2] * 6])
    at = np.array([5, 3])
    found = gradient_by_lag(model, params, xs, targets=targets, at=jnp.asarray(at))

    @jax.jit
    def slope(x, t, target):
        def loss(x):
            return -jax.nn.log_softmax(model.apply(params, x[None])[1][0, t])[target]

        return jax.grad(loss)(x)

    slopes = [slope(xs[row], at[row], targets[row, 0]) for row in range(2)]
    norms = np.linalg.norm(np.array(slopes), axis=-1)
    for lag in range(6):
        there = [norms[row, at[row] - lag] for row in range(2) if lag <= at[row]]
        np.testing.assert_allclose(found[lag], np.mean(there), rtol=1e-4)
    plain = gradient_by_lag(model, params, xs)
    assert plain.shape == (6,) and np.isfinite(plain).all()


def test_an_attention_is_counted_by_its_lag():
    weights = np.zeros((1, 4, 4))
    weights[0, 0, 0] = weights[0, 3, 1] = 1
    weights[0, 2, 0] = weights[0, 2, 2] = 0.5
    mask = np.array([[True, False, True, True]])
    np.testing.assert_allclose(attention_by_lag(weights, mask), np.array([1.5, 0, 1.5, 0]) / 3)
    one = attention_by_lag(weights, mask, at=np.array([3]))
    np.testing.assert_allclose(one, [0, 0, 1, 0])


def test_every_recurrence_is_found_with_what_it_is_given(rng):
    model = build(
        inputs="tokens", in_features=5, out_features=5, cell=LSTM(4), width=4, depth=3, mlp=4,
        attention="window", heads=1, convolution=2,
    )  # fmt: skip
    params = model.init(jax.random.key(0))
    seen = model.probe(params, rng.integers(0, 5, size=(2, 6)))
    found = list(recurrences(model, params))
    assert len(found) == 2
    for path, cell, weights in found:
        assert cell == LSTM(4) and weights["recurrent"]["kernel"].shape == (4, 16)
        assert seen[f"{path}inputs"].shape == (6, 2, 4)


def test_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As though a run had been loaded, since training one would cost most of a minute."""
    experiment = Experiment(
        Recall(length=8, pairs=2, vocab=10),
        GRU(4),
        Architecture(attention="full", width=4, heads=1),
        seeds=2,
    )
    seeds = [experiment.model.init(jax.random.key(seed)) for seed in range(2)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    loaded = Loaded(experiment, experiment.model, params, 0, ())
    monkeypatch.setattr(diagnose, "load", lambda run: loaded)
    assert diagnose.diagnose_run(tmp_path, seed=1, sequences=4) == 0
    said = capsys.readouterr().out
    for word in ("gradient by lag", "spectral radius", "time constants", "attention by lag"):
        assert word in said
    found = json.loads((tmp_path / "diagnosis" / "diagnosis.json").read_text())
    # The last answer is asked for at step 6, so that no input lies seven steps back.
    assert len(found["gradient"]) == 7 and len(found["radius"]) == 1
    names = {"gradient.png", "radius.png", "constants.png", "attention.png", "diagnosis.json"}
    assert {path.name for path in (tmp_path / "diagnosis").iterdir()} == names
    with pytest.raises(ValueError, match=r"expected 0 \.\. 1, got 2"):
        diagnose.diagnose_run(tmp_path, seed=2)
    with pytest.raises(ValueError, match="--sequences: expected at least 1, got 0"):
        diagnose.diagnose_run(tmp_path, sequences=0)
