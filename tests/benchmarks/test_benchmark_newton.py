"""The benchmark of `newton`: committed weights, one row for each run, a table that is theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import newton

KEYS = {
    *("cell", "steps", "jacobian", "iterations", "converged", "fell_back", "residual", "error"),
    "forward",
}


@pytest.mark.deep
def test_a_row_for_each_run(capsys: pytest.CaptureFixture[str]):
    argv = ["--cells", "elman", "--lengths", "30", "--rounds", "1", "--passes", "forward"]
    assert newton.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["accuracy"] == {"elman": round(float(newton.weights("elman")["accuracy"]), 4)}
    assert [row["jacobian"] for row in found["rows"]] == ["dense", "diagonal"]
    for row in found["rows"]:
        assert set(row) == KEYS and row["steps"] == 30 and row["converged"] and row["error"] < 1e-4
        assert row["forward"]["newton_ms"] > 0 and row["forward"]["unroll_ms"] > 0
    assert "| elman | 30 | dense |" in newton.section(found)


@pytest.mark.parametrize("name", ["elman", "gru"])
def test_trained_cells_converge_though_free_moves_overflow(name: str):
    row = newton.measure(name, 1000, "dense", (), 1)
    assert row["converged"] and row["iterations"] <= 60 and row["error"] <= 1e-4


def test_the_weights_are_those_of_trained_cells():
    for name in newton.CELLS:
        found = newton.weights(name)
        assert found["accuracy"] > 0.85, f"{name}: chance is 0.25"
        assert found["cell"]["recurrent"]["kernel"].shape[0] == newton.FEATURES


@pytest.mark.deep
def test_training_writes_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(newton, "WEIGHTS", tmp_path / "weights.npz")
    with pytest.raises(ValueError, match=r"expected weights of elman .*; run with --train first"):
        newton.weights("elman")
    params, loss, accuracy = newton.train(newton.CELLS["elman"], steps=2)
    monkeypatch.setattr(newton, "train", lambda cell: (params, loss, accuracy))
    newton.train_all(["elman"])
    found = newton.weights("elman")
    assert found["loss"] == loss and found["accuracy"] == accuracy
    for part in ("input", "recurrent"):
        np.testing.assert_array_equal(found["cell"][part]["kernel"], params[part]["kernel"])


def test_sequences_are_episodes_back_to_back():
    xs = np.asarray(newton.sequences(25))
    assert xs.shape == (25, newton.BATCH, newton.TASK.in_features)
    marks = xs[:, :, -1].argmax(0)
    assert (marks == 7).all() and (xs[17, :, -1] == 1).all()


def test_bad_input():
    with pytest.raises(ValueError, match="expected at least 1, got 0 and"):
        newton.main(["--rounds", "0"])
