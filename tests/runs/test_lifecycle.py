"""Runs: what they leave behind, interrupted or not."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import longlag
from longlag.runs import (
    CheckpointError,
    Experiment,
    Progress,
    RunFolder,
    carry_out,
    checkpoints,
    floor_rows,
    lifecycle,
    load,
)
from longlag.system.atomic_files import DiskError
from longlag.system.interrupt import Interruption
from longlag.training import compiled_dispatch, curriculum, dispatch, evaluate, evaluation_batch
from tests.helpers.small_disk import contents, fill, small_disk
from tests.helpers.tiny import PARITY, TRAINING
from tests.helpers.tiny_runs import (
    Whole,
    assert_same,
    final,
    interrupt,
    new,
    run_whole,
    without_times,
)

PROMISED = (
    *("task", "arm", "seed", "accuracy", "exact_match", "loss", "length", "steps"),
    *("parameters", "state_bytes", "seconds"),
)

pytestmark = pytest.mark.usefixtures("shared_compilations")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run_whole(tmp_path_factory.mktemp("whole") / "run")


# --- a run --------------------------------------------------------------------------------------


def test_a_run_leaves_its_numbers(whole):
    folder, found, told = whole
    assert json.loads((folder.path / "results.json").read_text()) == found
    assert Experiment.from_config(folder.config, folder.path) == PARITY
    lines = folder.metrics()
    assert [(line["step"], line["seed"]) for line in lines] == [
        (step, seed) for step in (5, 10, 15, 20) for seed in (0, 1)
    ]
    assert [line for report in told for line in report.lines] == lines
    assert [report.step for report in told] == [5, 10, 15, 20]
    keys = "accuracy exact_match grad_norm loss seconds seed validation_loss".split()  # noqa: SIM905
    assert list(lines[0]) == ["step", *keys]
    assert all(np.isfinite(list(line.values())).all() for line in lines)

    # One row per seed and test length.
    rows, params = found["rows"], load(folder.path).params
    assert [(row["lag"], row["seed"]) for row in rows] == [(8, 0), (8, 1), (16, 0), (16, 1)]
    for row in rows:
        assert set(PROMISED) <= set(row)
        assert (row["task"], row["arm"], row["steps"]) == ("parity", "LSTM", 20)
        assert row["length"] == row["lag"] == len(row["by_position"])
        assert row["train_length"] == row["train_lag"] == 8
        assert row["parameters"] == sum(leaf[0].size for leaf in jax.tree.leaves(params))
        assert row["state_bytes"] == 2 * 8 * 4  # h and c of eight units in float32
        expected = sum(line["seconds"] for line in lines if line["seed"] == row["seed"])
        assert row["seconds"] == pytest.approx(expected, abs=0.01)
    assert rows[2]["by_position"][:15] == [None] * 15  # strings of 16 are asked at their end only
    assert found["curves"][1]["accuracy"] == [x["accuracy"] for x in lines if x["seed"] == 1]
    assert [point["accuracy"] for point in found["by_lag"]] == [row["accuracy"] for row in rows]


def test_floors_are_rows(whole):
    floors = floor_rows(PARITY)
    assert [row["lag"] for row in floors] == [8, 16]
    assert set(floors[0]) <= set(whole[1]["rows"][0])
    assert {row["arm"] for row in floors} == {"floor: a coin"}
    assert {row["accuracy"] for row in floors} == {0.5}


def test_a_loaded_run_predicts_as_its_model(whole):
    folder, found, _ = whole
    assert longlag.load is load
    loaded = longlag.load(str(folder.path))
    assert loaded.experiment == PARITY and loaded.step == 20 and loaded.messages == ()
    batch = evaluation_batch(PARITY.task, 16, "test")
    for seed in (0, 1):
        answers = loaded.predict(np.asarray(batch.inputs), mask=batch.mask, seed=seed)
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], loaded.params)
        _, expected = jax.jit(PARITY.model.apply)(params, batch.inputs, mask=batch.mask)
        np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-6)
        right = (answers.argmax(-1) == batch.targets)[np.asarray(batch.scored)].mean()
        assert float(right) == pytest.approx(found["rows"][seed]["accuracy"])
    assert not np.array_equal(
        loaded.predict(batch.inputs, seed=0), loaded.predict(batch.inputs, seed=1)
    )
    for seed in (-1, 2):
        with pytest.raises(ValueError, match=rf"seed: expected 0 \.\. 1, got {seed}"):
            loaded.predict(batch.inputs, seed=seed)


def test_what_cannot_be_loaded(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected a run folder at .*; got nothing"):
        load(tmp_path / "none")
    folder = new(tmp_path / "run")
    with pytest.raises(CheckpointError, match="there is none yet"):
        load(folder.path)


def test_a_seed_that_fails_ends_and_the_others_go_on(
    tmp_path: Path, whole, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def poison(model, task, training, states, until, *where):
        calls.append((until > 0).tolist())
        if len(calls) == 2:
            bad = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), states.params)
            states = states.replace(params=bad)
        return dispatch(model, task, training, states, until)

    monkeypatch.setattr(curriculum, "dispatch", poison)
    folder, told = new(tmp_path / "run"), []
    found = carry_out(PARITY, folder, on_progress=told.append)
    assert [message for report in told for message in report.messages] == [
        "seed 1 ended at step 5: the loss or its gradient is not finite (mean loss nan, gradient "
        "norm inf)."
    ]
    assert calls == [[True, True], [True, True], [True, False], [True, False]]
    failed = [line for line in folder.metrics() if line["seed"] == 1][-1]
    assert (failed["step"], failed["failed_at"]) == (10, 5)
    assert failed["loss"] is failed["grad_norm"] is None  # JSON knows no NaN
    lines, expected = (without_times(run).splitlines() for run in (folder, whole[0]))
    of_seed_0 = [line for line in expected if b'"seed": 0' in line]
    assert [line for line in lines if b'"seed": 0' in line] == of_seed_0
    assert found is not None
    for row, sound in zip(found["rows"], whole[1]["rows"], strict=True):
        if row["seed"] == 0:
            assert row["accuracy"] == sound["accuracy"] and row["steps"] == 20
        else:
            assert row["accuracy"] is row["exact_match"] is row["loss"] is None
            assert (row["steps"], row["budget"], row["solved_at"]) == (5, 20, None)


@pytest.mark.parametrize(("stops", "steps"), [(True, 15), (False, 20)])
def test_a_solved_seed_stops(tmp_path: Path, whole, monkeypatch, stops: bool, steps: int):
    """Seed 0 answers everything right from the first evaluation on."""

    def solve(*arguments: Any) -> Any:
        found = evaluate(arguments[0], arguments[1], TRAINING, *arguments[3:])
        return found.replace(accuracy=found.accuracy.at[0].set(1.0))

    monkeypatch.setattr(curriculum, "evaluate", solve)
    monkeypatch.setattr(
        curriculum, "dispatch", lambda m, k, t, *rest: dispatch(m, k, TRAINING, *rest)
    )
    training = dataclasses.replace(TRAINING, stop_when_solved=stops)
    experiment = dataclasses.replace(PARITY, training=training)
    folder = new(tmp_path / "run", experiment)
    found = carry_out(experiment, folder)
    assert found is not None
    assert [m["step"] for m in folder.metrics() if m["seed"] == 0] == [*range(5, steps + 1, 5)]
    assert [m["step"] for m in folder.metrics() if m["seed"] == 1] == [5, 10, 15, 20]
    assert [(row["seed"], row["steps"], row["solved_at"]) for row in found["rows"][:2]] == [
        (0, steps, 5),
        (1, 20, None),
    ]


# --- interrupted and resumed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "how", "saved"),
    [
        (5, "in a dispatch", 5),
        (15, "in a dispatch", 15),
        (15, "after a dispatch", 15),
        (15, "killed", 5),
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, whole, at: int, how: str, saved: int
):
    folder = new(tmp_path / "run")
    interrupt(folder, at, how)
    assert max(checkpoints(folder.checkpoints)) == saved
    compiled, told = compiled_dispatch._cache_size(), []
    found = carry_out(PARITY, RunFolder.open(folder.path), on_progress=told.append)
    assert [report.step for report in told] == [*range(saved, 25, 5)]
    assert (
        compiled_dispatch._cache_size() == compiled
    )  # restored states are as those that were saved
    assert_same(final(folder), final(whole[0]))
    for row, expected in zip(found["rows"], whole[1]["rows"], strict=True):
        assert row | {"seconds": 0} == expected | {"seconds": 0}


def test_a_run_that_was_stopped_before_its_first_dispatch(tmp_path: Path, whole):
    folder, stop = new(tmp_path / "run"), Interruption()
    stop.signal = signal.SIGINT
    assert carry_out(PARITY, folder, stop=stop) is None
    assert folder.metrics() == [] and checkpoints(folder.checkpoints) == {}
    assert carry_out(PARITY, folder) is not None
    assert_same(final(folder), final(whole[0]))


def test_a_finished_run_may_be_resumed(tmp_path: Path, whole):
    folder = new(tmp_path / "run")
    carry_out(PARITY, folder)
    (folder.path / "results.json.partial").write_text("{")  # killed while it wrote
    before = contents(folder.path)
    found = carry_out(PARITY, folder)
    del before["results.json.partial"]
    assert contents(folder.path) == before and found is not None


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path, whole):
    with small_disk(tmp_path / "disk", "4m") as disk:
        folder = new(disk / "run")

        def told(report: Progress) -> None:
            if report.step == 10:
                fill(disk)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lifecycle, "CHECKPOINT_SECONDS", 0.0)
            with pytest.raises(DiskError, match=r"cannot write .* to .*No space left on device"):
                carry_out(PARITY, folder, on_progress=told)
        assert max(checkpoints(folder.checkpoints)) == 10
        (disk / "filler").unlink()
        assert carry_out(PARITY, folder) is not None
        assert_same(final(folder), final(whole[0]))
