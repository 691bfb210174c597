from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import longlag
from experiments import compare
from longlag import runs
from longlag.checkpoint import CheckpointError, checkpoints, restore
from longlag.command_line import plain_errors
from longlag.disk import DiskError
from longlag.experiment import Experiment
from longlag.interrupt import Interruption
from longlag.run_folder import RunFolder
from longlag.runs import Progress, carry_out, create, floor_rows, load
from longlag.training import dispatch, evaluate, evaluation_batch, init_states
from tests.small_disk import contents, fill, small_disk
from tests.tiny import OPTIONS, PARITY, TRAINING

PROMISED = (
    *("task", "arm", "seed", "accuracy", "exact_match", "loss", "length", "steps"),
    *("parameters", "state_bytes", "seconds"),
)
ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.usefixtures("shared_compilations")


def new(path: Path, experiment: Experiment = PARITY) -> RunFolder:
    return create(experiment, path, path.parent, "unused")


def without_times(folder: RunFolder) -> bytes:
    return re.sub(rb'"seconds": [\d.e-]+', b'"seconds": 0', folder.metrics_file.read_bytes())


def final(folder: RunFolder, experiment: Experiment = PARITY) -> tuple[bytes, Any]:
    """The metrics but for times, and the last checkpoint: what must not depend on a resume."""
    restored = restore(folder.checkpoints, init_states(experiment.model, experiment.training, 2))
    return without_times(folder), jax.tree.map(np.asarray, restored)


def assert_same(found: tuple[bytes, Any], expected: tuple[bytes, Any]) -> None:
    assert found[0] == expected[0]
    assert found[1].step == expected[1].step
    jax.tree.map(np.testing.assert_array_equal, found[1].tree, expected[1].tree)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any], list]:
    """A run that nobody interrupted: its folder, results, and what was told meanwhile."""
    folder, told = new(tmp_path_factory.mktemp("whole") / "run"), []
    found = carry_out(PARITY, folder, on_progress=told.append)
    assert found is not None
    return folder, found, told


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

    def poison(model, task, training, states, active):
        calls.append(active.tolist())
        if len(calls) == 2:
            bad = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), states.params)
            states = states.replace(params=bad)
        return dispatch(model, task, training, states, active)

    monkeypatch.setattr(runs, "dispatch", poison)
    folder, told = new(tmp_path / "run"), []
    found = carry_out(PARITY, folder, on_progress=told.append)
    assert [message for report in told for message in report.messages] == [
        "seed 1 ended at step 5: the loss or its gradient is not finite (gradient norm nan)."
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

    monkeypatch.setattr(runs, "evaluate", solve)
    monkeypatch.setattr(runs, "dispatch", lambda m, k, t, *rest: dispatch(m, k, TRAINING, *rest))
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


class KilledError(Exception):
    """In place of kill -9."""


def interrupt(folder: RunFolder, at: int, how: str) -> None:
    """Ends a run: by a signal during the dispatch to step `at` or after it, or all at once."""
    stop = Interruption()

    def dispatch_and_stop(*arguments: Any) -> Any:
        if how == "in a dispatch" and int(arguments[3].step[0]) == at - 5:
            stop.signal = signal.SIGTERM
        return dispatch(*arguments)

    def told(report: Progress) -> None:
        if report.step == at and how == "after a dispatch":
            stop.signal = signal.SIGTERM
        if report.step == at and how == "killed":
            raise KilledError

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(runs, "dispatch", dispatch_and_stop)
        assert carry_out(PARITY, folder, stop=stop, on_progress=told) is None
    assert folder.metrics()[-1]["step"] == at
    assert not (folder.path / "results.json").exists()


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
    compiled, told = dispatch._cache_size(), []
    found = carry_out(PARITY, RunFolder.open(folder.path), on_progress=told.append)
    assert [report.step for report in told] == [*range(saved, 25, 5)]
    assert dispatch._cache_size() == compiled  # restored states are as those that were saved
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
            patch.setattr(runs, "CHECKPOINT_SECONDS", 0.0)
            with pytest.raises(DiskError, match=r"cannot write .* to .*No space left on device"):
                carry_out(PARITY, folder, on_progress=told)
        assert max(checkpoints(folder.checkpoints)) == 10
        (disk / "filler").unlink()
        assert carry_out(PARITY, folder) is not None
        assert_same(final(folder), final(whole[0]))


# --- the same on the command line ---------------------------------------------------------------


def main(*arguments: str | Path) -> int:
    """`python -m experiments.compare` in this process; returns the exit code."""
    try:
        with plain_errors():
            return compare.main([str(argument) for argument in arguments])
    except SystemExit as left:
        return left.code  # type: ignore[return-value]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, whole, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # the path of a run is often relative
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", 0.0)
    folder = new(Path("run"))
    interrupt(folder, 15, "in a dispatch")
    _, fifteen = checkpoints(folder.checkpoints).values()
    os.truncate(fifteen / "manifest.json", (fifteen / "manifest.json").stat().st_size // 2)
    loaded = load("run")
    assert loaded.step == 10 and [str(fifteen) in each for each in loaded.messages] == [True]
    assert main("--resume", "run") == 0
    out = capsys.readouterr().out
    assert f"damaged checkpoint {fifteen}: manifest.json" in out.replace("\n", " ")
    assert_same(final(folder), final(whole[0]))
    assert (folder.path / "report.html").is_file() and "floor" in out

    for path in checkpoints(folder.checkpoints).values():
        (path / "manifest.json").unlink()
    before = contents(folder.path)
    assert main("--resume", "run") == 2
    err = capsys.readouterr().err
    assert "no intact checkpoint is left" in err and "Traceback" not in err
    assert all(f"{path}: manifest.json" in err for path in checkpoints(folder.checkpoints).values())
    assert contents(folder.path) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--steps", "30"], "training.steps: expected 20; got 30"),
        (["--task.max-length", "9"], "task.max_length: expected 8; got 9"),
        (["--cell", "gru"], 'cell.name: expected "lstm"; got "gru"'),
        (["--cell.chrono", "9"], "cell.chrono: expected null; got 9"),
        (["--width", "16"], "cell.features: expected 8; got 16"),
        (["--seeds", "3"], "seeds: expected 2; got 3"),
        (["--test-lags", "16", "32"], "test_lags: expected [16]; got [16, 32]"),
        (["--out", "elsewhere"], "expected --resume or --out; got both"),
    ],
)
def test_a_resume_with_another_configuration_is_refused(
    whole, capsys: pytest.CaptureFixture[str], options: list[str], difference: str
):
    folder = whole[0].path
    before = contents(folder)
    assert main("--resume", folder, *options) == 2
    out, err = capsys.readouterr()
    assert difference in err and "Traceback" not in err and not out
    assert contents(folder) == before


def test_a_resume_may_repeat_the_configuration(
    tmp_path: Path, whole, monkeypatch: pytest.MonkeyPatch
):
    """Not only the options that were given: a cell of another width than its blocks too."""
    narrow = dataclasses.replace(PARITY, cell=dataclasses.replace(PARITY.cell, features=5))
    folder = new(tmp_path / "narrow", narrow)
    prepared = []
    monkeypatch.setattr(compare, "_with_progress", lambda *given: prepared.append(given[0]))
    with contextlib.suppress(AttributeError):
        main("--resume", folder.path, "--width", "8", "--cell", "lstm")
    main("--resume", folder.path)
    main("--resume", whole[0].path, *OPTIONS)
    assert prepared == [narrow, narrow, PARITY]


def test_a_cell_of_ones_own_is_copied_and_resumed_without_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text("import longlag\n\n\nclass Mine(longlag.LSTM):\n    boost: float = 1.0\n")
    arguments = [*OPTIONS, "--cell", f"{file}:Mine", "--cell.boost", "2", "--out", run]
    assert main(*arguments) == 0
    assert (run / "cell.py").read_bytes() == file.read_bytes()
    file.unlink()
    loaded: Any = load(run)
    assert (type(loaded.experiment.cell).__name__, loaded.experiment.cell.boost) == ("Mine", 2.0)
    assert loaded.predict(np.zeros((1, 3), np.int32)).shape == (1, 3, 2)
    before = contents(run)
    capsys.readouterr()
    assert main("--resume", run, "--cell.boost", "3") == 2
    message = capsys.readouterr().err.splitlines()
    assert message[1:] == ["  cell.boost: expected 2.0; got 3.0"]
    assert main("--resume", run, "--cell.boost", "2") == 0
    metrics = ("metrics.jsonl", "results.json", "config.json")
    assert all(contents(run)[name] == before[name] for name in metrics)
    assert main(*arguments) == 2
    assert f"cannot read {file}: No such file" in capsys.readouterr().err


@contextlib.contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command: Sequence[str | Path] = [sys.executable, "-m", "experiments.compare", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def wait_for_lines(run: Path, count: int, started: subprocess.Popen[str]) -> None:
    file = run / "metrics.jsonl"
    for _ in range(60_000):
        if file.is_file() and file.read_bytes().count(b"\n") >= count:
            return
        assert started.poll() is None, started.communicate()
        time.sleep(0.002)
    raise TimeoutError(f"{count} lines in {file}")


def test_a_run_that_is_terminated_and_killed_ends_as_one_that_was_not(tmp_path: Path):
    # 300 dispatches take a second; the signals come after a few.
    training = dataclasses.replace(TRAINING, steps=1500)
    experiment, run = dataclasses.replace(PARITY, training=training), tmp_path / "run"
    with process(*OPTIONS, "--steps", "1500", "--out", run) as started:
        wait_for_lines(run, 4, started)
        started.send_signal(signal.SIGTERM)
        out, err = started.communicate(timeout=60)
    assert started.returncode == 143, err
    assert f"stopped; go on by --resume {run}" in out and "Traceback" not in err
    folder = RunFolder.open(run)
    saved = max(checkpoints(folder.checkpoints))
    assert folder.metrics()[-1]["step"] == saved < 1500

    with process("--resume", run) as started:
        wait_for_lines(run, 2 * saved // 5 + 4, started)
        started.kill()  # kill -9
        started.communicate(timeout=60)
    assert started.returncode == -signal.SIGKILL
    assert saved < folder.metrics()[-1]["step"] < 1500
    assert main("--resume", run) == 0

    never_stopped = new(tmp_path / "whole", experiment)
    carry_out(experiment, never_stopped)
    assert_same(final(folder, experiment), final(never_stopped, experiment))
