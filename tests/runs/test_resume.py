"""Resuming on the command line: after damage, signals and kill -9; with one configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.cli import compare
from longlag.cli.arguments import plain_errors
from longlag.runs import RunFolder, carry_out, checkpoints, lifecycle, load, restore, run_job
from longlag.system.interrupt import Interruption
from longlag.training import init_states
from tests.helpers.small_disk import contents
from tests.helpers.tiny import OPTIONS, PARITY, TRAINING
from tests.helpers.tiny_runs import Whole, assert_same, final, interrupt, new, run_whole

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("shared_compilations")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run_whole(tmp_path_factory.mktemp("whole") / "run")


def main(*arguments: str | Path) -> int:
    """`longlag compare` in this process; returns the exit code."""
    try:
        with plain_errors():
            return compare.main([str(argument) for argument in arguments])
    except SystemExit as left:
        return left.code  # type: ignore[return-value]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, whole, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # the path of a run is often relative
    monkeypatch.setattr(lifecycle, "CHECKPOINT_SECONDS", 0.0)
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
        (["--steps", "19"], "steps: expected at least 20, which"),
        (["--steps", "30", "--seeds", "3"], "seeds: expected 2; got 3"),
        (["--steps", "30", "--schedule", "cosine"], 'schedule: expected "constant"; got "cosine"'),
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


def test_a_run_folder_has_one_writer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A new run and one that goes on keep off another command, by another path, and a sweep."""
    run, outcomes, stop = tmp_path / "run", [], Interruption()
    stop.signal = signal.SIGTERM
    (tmp_path / "link").symlink_to(tmp_path)

    def carry_out_and_look(*_: Any) -> None:
        before = contents(run)
        outcomes.append(main("--resume", tmp_path / "link" / "run", "--steps", "30"))
        outcomes.append(run_job("run", PARITY, tmp_path, stop=stop))
        assert contents(run) == before

    monkeypatch.setattr(compare, "_carry_out_with_progress", carry_out_and_look)
    assert main(*OPTIONS, "--out", run) == 143
    assert main("--resume", run) == 143
    assert outcomes == [2, None, 2, None]
    err = capsys.readouterr().err
    assert err.count("error:") == 2 and "Traceback" not in err
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert f"expected {tmp_path / 'link' / 'run'} to be free; {holder} is writing there" in err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "link"}


# 18 is no multiple of the dispatch. In so few steps no seed solves the task.
STOPPING = dataclasses.replace(TRAINING, stop_when_solved=True, solved=1.0)
LONG = dataclasses.replace(PARITY, seeds=3, training=dataclasses.replace(STOPPING, steps=30))
SHORT = dataclasses.replace(LONG, training=dataclasses.replace(STOPPING, steps=18))


def test_a_run_goes_on_with_more_steps_from_the_numbers_that_it_had(tmp_path: Path):
    folder = RunFolder.open(tmp_path / "run") if run_job("run", SHORT, tmp_path) else None
    assert folder is not None and [m["step"] for m in folder.metrics()][::3] == [5, 10, 15, 18]
    before, config = folder.metrics_file.read_bytes(), folder.config
    shutil.copytree(folder.path, tmp_path / "ended")
    (folder.path / "report.html").write_text("of 18 steps")

    logs = ("--log", "tensorboard", "--log=tensorboard")
    assert main("--resume", folder.path, "--steps", "30", *logs) == 0
    assert [*folder.path.glob("tensorboard/events.*")]
    assert folder.metrics_file.read_bytes().startswith(before)
    assert [m["step"] for m in folder.metrics()][::3] == [5, 10, 15, 18, 23, 28, 30]
    assert "of 18 steps" not in (folder.path / "report.html").read_text()
    expected = config | {"training": config["training"] | {"steps": 30}}
    assert RunFolder.open(folder.path).config == expected
    rows = json.loads((folder.path / "results.json").read_text())["rows"]
    assert {row["budget"] for row in rows} == {row["steps"] for row in rows} == {30}

    # Parameters, and all else that the next step needs, are those of a run made with 30 steps.
    whole = new(tmp_path / "whole", LONG)
    carry_out(LONG, whole)
    like = init_states(LONG.model, LONG.training, 3)
    states = [restore(each.checkpoints, like).tree for each in (folder, whole)]
    jax.tree.map(np.testing.assert_array_equal, *states)

    # A seed that failed, or has solved the task, stays as it was. The sweep goes on like this too.
    ended = RunFolder.open(tmp_path / "ended")
    state = restore(ended.checkpoints, like).tree
    state = state.replace(
        failed=jnp.asarray([True, False, False]), streak=jnp.asarray([0, 3, 0], jnp.int32)
    )
    ended.save(18, state)
    rows = run_job("ended", LONG, tmp_path)["rows"]
    assert [row["steps"] for row in rows if row["lag"] == rows[0]["lag"]] == [18, 18, 30]
    after = restore(ended.checkpoints, like).tree
    for leaf, was, whole_leaf in zip(
        *map(jax.tree.leaves, (after.params, state.params, states[0].params))
    ):
        np.testing.assert_array_equal(leaf[:2], was[:2])
        np.testing.assert_array_equal(leaf[2], whole_leaf[2])


def test_a_run_whose_rate_depends_on_the_end_keeps_its_steps(tmp_path: Path):
    cosine = dataclasses.replace(PARITY.training, schedule="cosine")
    folder = new(tmp_path / "run", dataclasses.replace(PARITY, training=cosine))
    before = contents(folder.path)
    more = dataclasses.replace(PARITY, training=dataclasses.replace(cosine, steps=30))
    for go_on in (
        lambda: lifecycle.extend(more, folder),
        lambda: lifecycle.reopen(more, folder.path),
    ):
        with pytest.raises(ValueError, match=r"steps: expected 20, .*depends on the last"):
            go_on()
    # Before the first step, fewer steps are as good as more.
    assert contents(folder.path) == before
    constant = new(tmp_path / "constant")
    fewer = dataclasses.replace(PARITY, training=dataclasses.replace(TRAINING, steps=7))
    assert lifecycle.extend(fewer, constant).config == new(tmp_path / "fewer", fewer).config


def test_a_run_goes_on_with_the_weight_decay_that_it_began_with(tmp_path: Path):
    decaying = dataclasses.replace(TRAINING, optimizer="adamw")
    experiment = dataclasses.replace(PARITY, training=decaying)
    folder = new(tmp_path / "run", experiment)
    folder.save(5, init_states(experiment.model, decaying, 2))
    env = folder.path / "env.json"
    env.write_text(json.dumps({**folder.env, "weight_decay": None}))  # of an earlier version
    with pytest.raises(ValueError, match="with weight decay of every parameter until now; expect"):
        carry_out(experiment, folder)


def test_a_resume_may_repeat_the_configuration(
    tmp_path: Path, whole, monkeypatch: pytest.MonkeyPatch
):
    """Not only the options that were given: a cell of another width than its blocks too."""
    narrow = dataclasses.replace(PARITY, cell=dataclasses.replace(PARITY.cell, features=5))
    folder = new(tmp_path / "narrow", narrow)
    prepared = []
    monkeypatch.setattr(
        compare, "_carry_out_with_progress", lambda *given: prepared.append(given[0])
    )
    main("--resume", folder.path, "--width", "8", "--cell", "lstm")
    main("--resume", folder.path)
    main("--resume", whole[0].path, *OPTIONS)
    assert prepared == [narrow, narrow, PARITY]


MINE = """
import longlag
from longlag.tasks import Parity


class Mine(longlag.LSTM):
    boost: float = 1.0


class Odd(Parity):
    base: int = 2
"""


def test_what_is_ones_own_is_copied_and_resumed_without_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(MINE)
    own = ["--cell", f"{file}:Mine", "--cell.boost", "2", "--task", f"{file}:Odd"]
    arguments = [*OPTIONS, *own, "--task.base", "3", "--out", run]
    assert main(*arguments) == 0
    assert "odd" in capsys.readouterr().out and str(file) not in (run / "report.html").read_text()
    for copied in ("cell.py", "task.py"):
        assert (run / copied).read_bytes() == file.read_bytes()
    file.unlink()
    loaded: Any = load(run)
    assert (type(loaded.experiment.cell).__name__, loaded.experiment.cell.boost) == ("Mine", 2.0)
    assert (type(loaded.experiment.task).__name__, loaded.experiment.task.base) == ("Odd", 3)
    assert loaded.predict(np.zeros((1, 3), np.int32)).shape == (1, 3, 2)
    before = contents(run)
    capsys.readouterr()
    assert main("--resume", run, "--cell.boost", "3") == 2
    message = capsys.readouterr().err.splitlines()
    assert message[1:] == ["  cell.boost: expected 2.0; got 3.0"]
    assert main("--resume", run, "--task.base", "4") == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["  task.base: expected 3; got 4"]
    assert main("--resume", run, "--cell.boost", "2", "--task.base", "3") == 0
    metrics = ("metrics.jsonl", "results.json", "config.json")
    assert all(contents(run)[name] == before[name] for name in metrics)
    assert main(*arguments) == 2
    assert f"cannot read {file}: No such file" in capsys.readouterr().err


@contextlib.contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command: Sequence[str | Path] = [sys.executable, "-m", "longlag", "compare", *arguments]
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
    assert f"stopped; resume it by --resume {run}" in out and "Traceback" not in err
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
