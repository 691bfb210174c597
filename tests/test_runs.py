"""Runs from beginning to end: carried out, stopped, killed, damaged, resumed, loaded."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag
from experiments import compare
from longlag import LSTM, runs
from longlag.checkpoint import checkpoints
from longlag.command_line import plain_errors
from longlag.experiment import Architecture, Experiment
from longlag.interrupt import Interruption
from longlag.run_folder import RunFolder
from longlag.tasks import Recall
from longlag.training import Training, evaluation_batch
from tests.small_disk import contents

SMALL = {"batch_size": 8, "dispatch": 5, "eval_size": 16, "stop_when_solved": False}
EXPERIMENT = Experiment(
    task=Recall(length=8, pairs=2, vocab=12),
    cell=LSTM(8),
    architecture=Architecture(width=8, depth=1),
    training=Training(steps=20, **SMALL),
    seeds=2,
)
# The same on the command line, where a run has to last until it is killed.
STEPS = 1500
TRAINING = "--batch-size 8 --dispatch 5 --eval-size 16 --no-stop-when-solved"
ARGUMENTS = (
    "--task recall --task.length 8 --task.pairs 2 --task.vocab 12 --width 8 --depth 1 --seeds 2 "
    f"{TRAINING} --steps"
).split()
KEYS = "task arm seed accuracy exact_match loss length steps parameters state_bytes seconds".split()


def start(path: Path) -> RunFolder:
    return runs.create(EXPERIMENT, path, path.parent, "unused")


def metrics(folder: Path) -> bytes:
    """Every byte of `metrics.jsonl` but the times."""
    return re.sub(rb'"seconds": [^,}]+', b'"seconds": _', (folder / "metrics.jsonl").read_bytes())


def without_seconds(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in results["rows"]]


def same_parameters(one: Path, other: Path) -> None:
    got, expected = longlag.load(one), longlag.load(other)
    assert got.step == expected.step
    jax.tree.map(np.testing.assert_array_equal, got.params, expected.params)


def command(*argv: str) -> int:
    """The command line in this process; the exit code."""
    try:
        with plain_errors():
            return compare.main(argv)
    except SystemExit as left:
        return int(left.code or 0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = start(tmp_path_factory.mktemp("runs") / "whole")
    assert runs.carry_out(EXPERIMENT, folder) is not None
    return folder.path


def stopped_after(dispatches: int, path: Path) -> RunFolder:
    """A run that heard a signal after so many dispatches."""
    folder, stop, seen = start(path), Interruption(), []

    def listen(progress: runs.Progress) -> None:
        seen.append(progress.step)
        if len(seen) == dispatches:
            stop.signal = signal.SIGTERM

    assert runs.carry_out(EXPERIMENT, folder, stop=stop, on_progress=listen) is None
    assert seen == [5 * (i + 1) for i in range(dispatches)]
    return folder


def test_results(uninterrupted: Path):
    results = json.loads((uninterrupted / "results.json").read_text())
    rows = results["rows"]
    assert all(set(KEYS) <= set(row) for row in rows)
    vocab_limit = EXPERIMENT.lags  # recall wants vocab > length, so only the training lag is left
    assert [(row["seed"], row["length"]) for row in rows] == [
        (seed, lag) for lag in vocab_limit for seed in (0, 1)
    ]
    for row in rows:
        assert (row["task"], row["arm"], row["steps"]) == ("recall", "LSTM", 20)
        assert 0 <= row["accuracy"] <= 1 and row["loss"] > 0 and row["seconds"] > 0
        assert row["state_bytes"] == 2 * 8 * 4
    params = longlag.load(uninterrupted).of_seed(0)
    assert {row["parameters"] for row in rows} == {sum(x.size for x in jax.tree.leaves(params))}
    steps = [line["step"] for line in RunFolder.open(uninterrupted).metrics()]
    assert steps == [5, 5, 10, 10, 15, 15, 20, 20]
    assert [curve["steps"] for curve in results["curves"]] == [[5, 10, 15, 20]] * 2
    floors = runs.floor_rows(EXPERIMENT)
    assert [(f["length"], f["accuracy"], f["seed"]) for f in floors] == [(8, 1 / 6, None)]
    assert all(set(KEYS) <= set(floor) for floor in floors)


@pytest.mark.parametrize("dispatches", [1, 3])
def test_stopped_and_carried_out_again(uninterrupted: Path, tmp_path: Path, dispatches: int):
    folder = stopped_after(dispatches, tmp_path / "run")
    assert list(checkpoints(folder.checkpoints))[-1] == 5 * dispatches, "saved where it stopped"
    assert not (folder.path / "results.json").exists()
    again = runs.carry_out(EXPERIMENT, RunFolder.open(folder.path))
    assert again is not None
    assert metrics(folder.path) == metrics(uninterrupted)
    same_parameters(folder.path, uninterrupted)
    whole = json.loads((uninterrupted / "results.json").read_text())
    assert without_seconds(again) == without_seconds(whole)
    assert runs.carry_out(EXPERIMENT, folder) == again, "a finished run says the same again"


def test_stopped_before_the_first_dispatch(uninterrupted: Path, tmp_path: Path):
    folder, stop = start(tmp_path / "run"), Interruption()
    stop.signal = signal.SIGINT
    assert runs.carry_out(EXPERIMENT, folder, stop=stop) is None
    assert runs.carry_out(EXPERIMENT, folder) is not None
    assert metrics(folder.path) == metrics(uninterrupted)


def test_a_seed_that_diverges_leaves_the_others_alone(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    honest, calls = runs.dispatch, []

    def poison(model, task, training, states, active):
        calls.append(np.asarray(active).tolist())
        if len(calls) == 2:
            bad = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), states.params)
            states = states.replace(params=bad)
        return honest(model, task, training, states, active)

    monkeypatch.setattr(runs, "dispatch", poison)
    folder, said = start(tmp_path / "run"), []
    found = runs.carry_out(EXPERIMENT, folder, on_progress=lambda p: said.extend(p.messages))
    assert found is not None
    assert said == [
        "seed 1 ended at step 5: the loss or its gradient is not finite (gradient norm nan). "
        "The other seeds go on."
    ]
    assert calls == [[True, True], [True, True], [True, False], [True, False]]
    ours = [line for line in metrics(folder.path).splitlines() if b'"seed": 0' in line]
    assert ours == [x for x in metrics(uninterrupted).splitlines() if b'"seed": 0' in x]
    rows = {row["seed"]: row for row in found["rows"]}
    assert rows[0]["steps"] == 20 and rows[0]["accuracy"] is not None
    assert (rows[1]["steps"], rows[1]["accuracy"], rows[1]["loss"]) == (5, None, None)


def test_a_huge_learning_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wild = ("--optimizer", "sgd", "--clip", "0", "--learning-rate", "1e38")
    out = tmp_path / "run"
    assert command(*ARGUMENTS, "20", *wild, "--out", str(out)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for seed in (0, 1):
        assert re.search(rf"seed {seed} ended at step \d+: .*not finite \(gradient norm", said)
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert all(row["accuracy"] is None and row["steps"] < 20 for row in rows)
    assert (out / "report.html").is_file()


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "long"
    assert command(*ARGUMENTS, str(STEPS), "--out", str(out)) == 0
    return out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_then_resume(
    long_run: Path, tmp_path: Path, number: signal.Signals, code: int
):
    out = tmp_path / "run"
    argv = [*ARGUMENTS, str(STEPS), "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.compare", *argv],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            file = out / "metrics.jsonl"
            while process.poll() is None and not (
                file.exists() and file.read_bytes().count(b"\n") >= 4  # two dispatches, two seeds
            ):
                time.sleep(0.005)
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, said
    assert "Traceback" not in said
    if number == signal.SIGTERM:
        assert f"go on by --resume {out}" in said
        last = RunFolder.open(out).metrics()[-1]["step"]
        assert list(checkpoints(out / "checkpoints"))[-1] == last
    assert 4 <= file.read_bytes().count(b"\n") < 2 * STEPS // 5, "not in the middle"
    assert command("--resume", str(out)) == 0
    assert metrics(out) == metrics(long_run)
    same_parameters(out, long_run)
    assert (out / "results.json").is_file() and (out / "report.html").is_file()


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", 0.0)
    folder = stopped_after(3, tmp_path / "run")
    before, newest = checkpoints(folder.checkpoints).values()
    damaged = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    os.truncate(damaged, damaged.stat().st_size // 2)
    loaded = longlag.load(folder.path)
    assert (loaded.step, before.name) == (10, "step_00000010")
    assert [str(damaged.relative_to(newest)) in message for message in loaded.messages] == [True]
    assert command("--resume", str(folder.path)) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert f"damaged checkpoint {newest}: {damaged.relative_to(newest)}" in said
    assert metrics(folder.path) == metrics(uninterrupted)
    same_parameters(folder.path, uninterrupted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--learning-rate 0.5", "training.learning_rate: expected 0.003; got 0.5"),
        ("--task.pairs 1", "task.pairs: expected 2; got 1"),
        ("--cell gru", 'cell.name: expected "lstm"; got "gru"'),
        ("--cell.features 4", "cell.features: expected 8; got 4"),
        ("--task parity", 'task.name: expected "recall"; got "parity"'),
        ("--seeds 3", "seeds: expected 2; got 3"),
    ],
)
def test_another_configuration_is_refused(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
):
    before = contents(uninterrupted)
    assert command("--resume", str(uninterrupted), *options.split()) == 2
    said = capsys.readouterr().err
    assert "was made with another configuration" in said and message in said
    assert contents(uninterrupted) == before


def test_the_same_configuration_in_words_is_accepted(uninterrupted: Path, tmp_path: Path):
    folder = stopped_after(1, tmp_path / "run")
    assert command(*ARGUMENTS, "20", "--resume", str(folder.path)) == 0
    assert metrics(folder.path) == metrics(uninterrupted)


def test_load_predicts_what_the_model_gives(uninterrupted: Path, tmp_path: Path):
    loaded = longlag.load(str(uninterrupted))
    assert (loaded.experiment, loaded.step, loaded.messages) == (EXPERIMENT, 20, ())
    batch = evaluation_batch(EXPERIMENT.task, 16, "test")
    rows = json.loads((uninterrupted / "results.json").read_text())["rows"]
    for seed in (0, 1):
        answers = loaded.predict(batch.inputs, seed=seed)
        _, expected = loaded.model.apply(loaded.of_seed(seed), batch.inputs)
        np.testing.assert_array_equal(answers, expected)
        right = (answers.argmax(-1) == batch.targets)[batch.scored].mean()
        assert float(right) == pytest.approx(rows[seed]["accuracy"])
    with pytest.raises(ValueError, match=r"seed: expected 0 \.\. 1, got 2"):
        loaded.predict(batch.inputs, seed=2)
    with pytest.raises(ValueError, match="expected a run folder"):
        longlag.load(tmp_path / "nothing")


MINE = """
import jax.numpy as jnp
import longlag as ll

class Mine(ll.LinearCell):
    gates = ("a", "b")
    def project(self, params, xs, *, key=None):
        a, b = ll.gate_projection(params["input"], xs, 2)
        return jnp.tanh(a), b, None
"""


def test_a_cell_of_ones_own_stays_with_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, out = tmp_path / "mine.py", tmp_path / "run"
    source.write_text(MINE)
    argv = (*ARGUMENTS, "10", "--cell", f"{source}:Mine", "--out", str(out))
    assert command(*argv) == 0
    assert (out / "cell.py").read_text() == MINE
    expected = longlag.load(out).predict(jnp.ones((2, 8), jnp.int32))
    source.unlink()
    loaded = longlag.load(out)
    assert type(loaded.experiment.cell).__name__ == "Mine"
    np.testing.assert_array_equal(loaded.predict(jnp.ones((2, 8), jnp.int32)), expected)
    before = metrics(out)
    assert command("--resume", str(out)) == 0
    assert metrics(out) == before
    assert command(*argv) == 2, "the file is gone"
    assert f"cannot read {source}" in capsys.readouterr().err
