"""The demo at a tiny size: the same twice, and put in place only at its end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import pytest

from longlag import LSTM
from longlag.cli import demo
from longlag.cli.arguments import plain_errors
from longlag.runs import Experiment, run_job, sweep
from longlag.tasks import Parity, Recall
from tests.helpers.small_disk import contents

pytestmark = pytest.mark.usefixtures("shared_compilations")

KEYS = {
    *("task", "arm", "seed", "accuracy", "exact_match", "loss", "length", "steps"),
    *("parameters", "state_bytes", "seconds"),
}
STEPS = 10
Jobs = Mapping[str, Experiment]


class KilledError(Exception):
    """In place of kill -9."""


def test_the_demo_itself():
    """Three tasks, five arms of equal depth, three seeds; failing arms get steps enough."""
    jobs = demo.experiments()
    assert {task for task, _ in jobs} == {"recall", "parity", "selective-copy"}
    assert len(jobs) == 15 and set(demo.ROLES) == {arm for _, arm in jobs}
    for (task, _), experiment in jobs.items():
        assert experiment.seeds == 3 and experiment.architecture.depth == 2
        assert experiment.training.steps == demo.TASKS[task][1]
    assert demo.TASKS["recall"][0].length == 32
    parity: Any = jobs["parity", "LSTM"]
    assert (parity.task.min_length, parity.task.max_length, parity.lags) == (1, 40, (40, 80, 160))


@pytest.fixture(scope="module")
def small():
    """Two tasks, and of their four jobs the three that the report cannot do without."""
    tasks = {
        "recall": (Recall(length=8, pairs=2, vocab=10), STEPS),
        "parity": (Parity(min_length=1, max_length=8), STEPS),
    }
    arms = {"LSTM": (LSTM(8), "none"), "LSTM + full": (LSTM(8), "full")}
    every = demo.experiments

    def experiments(steps: int | None = None) -> dict[tuple[str, str], Experiment]:
        jobs = {job: dataclasses.replace(one, test_lags=(8,)) for job, one in every(steps).items()}
        del jobs["parity", "LSTM + full"]
        return jobs

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TASKS": tasks, "ARMS": arms, "WIDTH": 8, "SEEDS": 2}.items():
            patch.setattr(demo, name, value)
        patch.setattr(demo, "experiments", experiments)
        patch.setattr(demo, "sweep", one_after_another)
        # As if nothing here had changed since the last commit.
        now = demo.environment() | {"dirty": False}
        patch.setattr(demo, "environment", lambda: dict(now))
        # Nearly all the time goes into compiling; this halves it, here and in the processes.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


def one_after_another(jobs: Jobs, folder: Path, workers: int) -> dict[str, dict[str, Any]]:
    """In this process, where what is compiled stays; the processes have a test of their own."""
    return {name: run_job(name, job, folder) for name, job in jobs.items()}


def timeless(value: Any) -> Any:
    """Results without what depends on the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "wall_seconds")}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def results(out: Path) -> dict[str, Any]:
    return timeless(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def finished(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo, which no test changes."""
    out = tmp_path_factory.mktemp("finished") / "runs" / "demo"
    assert demo.run_demo(out, steps=STEPS) == 0
    return out


def test_the_results(finished: Path):
    found = json.loads((finished / "results.json").read_text())
    rows = found["rows"]
    assert all(set(row) >= KEYS for row in rows)
    floors = [row for row in rows if row["seed"] is None]
    assert {(row["task"], row["length"]) for row in floors} == {
        (row["task"], row["length"]) for row in rows
    }
    assert all(row["arm"].startswith("floor: ") for row in floors)
    trained = [row for row in rows if row["seed"] is not None and row["lag"] == row["train_lag"]]
    assert {(row["task"], row["arm"], row["seed"]) for row in trained} == {
        (*job, seed) for job in demo.experiments() for seed in (0, 1)
    }
    assert all(row["steps"] == STEPS and row["parameters"] > 0 for row in trained)
    assert len(found["attention"]["weights"]) == len(found["attention"]["tokens"]) == 8
    assert len(found["trace"]["states"]) == len(found["trace"]["tokens"]) == 8
    assert {*found["meta"]} == {
        *("command", "commit", "dirty", "device", "versions", "wall_seconds")
    }
    assert "longlag demo" in (finished / "report.html").read_text()
    assert list((finished / "plots").glob("*.png"))
    assert (finished / "recall-lstm-full" / "metrics.jsonl").is_file()
    assert [path.name for path in finished.parent.iterdir()] == ["demo"]


def test_the_demo_twice(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """An earlier demo stands until the new one is complete; a killed one is gone on with."""
    out = tmp_path / "demo"
    out.mkdir()
    (out / "results.json").write_text("of the earlier demo")
    before = contents(out)

    def killed(jobs: Jobs, aside: Path, workers: int) -> None:
        run_job("recall-lstm", jobs["recall-lstm"], aside)
        (aside / "recall-lstm" / "mark").write_text("of the killed demo")
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(demo, "sweep", killed)
        demo.run_demo(out, steps=STEPS)
    assert contents(out) == before

    replace, seen = demo._replace, []

    def watched(out: Path, aside: Path) -> None:
        seen.append((contents(out) == before, (aside / "report.html").is_file()))
        replace(out, aside)

    monkeypatch.setattr(demo, "_replace", watched)
    assert demo.run_demo(out, steps=STEPS) == 0
    assert seen == [(True, True)]
    assert results(out) == results(finished)
    assert (out / "recall-lstm" / "mark").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert str(out / "report.html") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ({}, {}, True),
        ({}, {"commit": "another"}, False),
        ({}, {"cpu": "another"}, False),
        ({"dirty": True}, {"dirty": True}, False),  # who knows what was changed
        ({"dirty": None}, {"dirty": None}, False),
        ({"argv": ["one"]}, {"argv": ["two"]}, True),
    ],
)
def test_only_a_demo_of_the_same_code_is_gone_on_with(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, Any],
    second: dict[str, Any],
    kept: bool,
):
    now = demo.environment()
    monkeypatch.setattr(demo, "environment", lambda: now | first)
    mark = demo._folder_beside(tmp_path / "demo") / "mark"
    mark.write_text("")
    monkeypatch.setattr(demo, "environment", lambda: now | second)
    assert demo._folder_beside(tmp_path / "demo") == mark.parent
    assert mark.exists() == kept


@pytest.mark.parametrize("files", [["notes.txt"], ["results.json", "config.json"], []])
def test_what_is_no_demo_is_not_replaced(tmp_path: Path, files: list[str]):
    out = tmp_path / "mine"
    out.mkdir()
    for name in files:
        (out / name).write_text("mine")
    message = r"expected a new folder, or that of an earlier demo; .*mine is neither"
    with pytest.raises(ValueError, match=message):
        demo.run_demo(out, steps=STEPS)
    assert contents(tmp_path) == {f"mine/{name}": b"mine" for name in sorted(files)}


def test_a_cluster_that_is_out_of_reach_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "sweep", sweep)  # which the other tests replace
    with pytest.raises(SystemExit) as left, plain_errors():
        demo.main(["--cluster", "tcp://127.0.0.1:1", "--out", str(tmp_path / "demo")])
    error = capsys.readouterr().err
    assert left.value.code == 2 and "no scheduler answers at tcp://127.0.0.1:1: " in error
    assert error.count("\n") == 1 and not (tmp_path / "demo").exists()
