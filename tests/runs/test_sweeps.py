"""A sweep: the same as run after run, cut and gone on with."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pickle
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from longlag import LSTM
from longlag.runs import Architecture, Experiment, cell_class, run_job, sweeps
from longlag.runs.jobs import Job
from longlag.tasks import FirstInput
from longlag.training import Training

pytestmark = pytest.mark.usefixtures("shared_compilations")

SMALL = Experiment(
    task=FirstInput(lag=3),
    cell=LSTM(4),
    architecture=Architecture(width=4, depth=1),
    training=Training(steps=10, dispatch=5, batch_size=4, eval_size=16),
    seeds=2,
    test_lags=(3,),
)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_processes_find_what_one_finds_and_finished_runs_are_not_repeated(tmp_path: Path):
    expected = run_job("alone", SMALL, tmp_path)
    jobs = {"a": SMALL, "b": dataclasses.replace(SMALL, seeds=1)}
    found = sweeps.sweep(jobs, tmp_path / "runs", workers=1)
    assert list(found) == ["a", "b"] and len(found["b"]["rows"]) == 1
    # A process pinned to one core adds up in another order than this one on all of them, so the
    # last bits of what is measured differ; what is counted does not.
    measured = ("accuracy", "exact_match", "loss", "by_position")
    for mine, theirs in zip(*map(without_times, (found["a"]["rows"], expected["rows"]))):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        counted = [{k: v for k, v in row.items() if k not in measured} for row in (mine, theirs)]
        assert counted[0] == counted[1]
    file = tmp_path / "runs" / "a" / "results.json"
    file.write_text(json.dumps(found["a"] | {"mark": True}))
    assert run_job("a", SMALL, tmp_path / "runs")["mark"]
    with pytest.raises(ValueError, match=r"made with another configuration:\n.*seeds"):
        run_job("a", jobs["b"], tmp_path / "runs")


OWN = """
from longlag import LSTM


class Mine(LSTM):
    pass
"""


def test_a_cell_of_ones_own_is_copied_and_has_to_stay_what_it_was(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    mine = dataclasses.replace(SMALL, cell=cell_class(f"{file}:Mine")(4), seeds=1)  # type: ignore[call-arg]
    found = run_job("run", mine, tmp_path)
    assert (tmp_path / "run" / "cell.py").read_text() == OWN
    assert run_job("run", mine, tmp_path) == found
    file.write_text(OWN + "    # no longer\n")
    other = dataclasses.replace(mine, cell=cell_class(f"{file}:Mine")(4))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"run was made with another .*own\.py: expected it as in"):
        run_job("run", other, tmp_path)
    with pytest.raises(ValueError, match="made with another configuration"):
        run_job("run", SMALL, tmp_path)


FOR_MINUTES = Training(steps=10**6, dispatch=25, batch_size=4, stop_when_solved=False)


def test_ctrl_c_leaves_with_130_and_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: Any) -> Any:
        began = time.monotonic()
        while not (tmp_path / "long").exists() and time.monotonic() - began < 60:
            time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "wait", interrupted)
    before = {*multiprocessing.active_children()}
    with pytest.raises(SystemExit) as leave:
        sweeps.sweep(
            {"long": dataclasses.replace(SMALL, training=FOR_MINUTES)}, tmp_path, workers=1
        )
    assert leave.value.code == 130 and (tmp_path / "long" / "env.json").is_file()
    assert {*multiprocessing.active_children()} <= before


def test_fewer_workers_than_none_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="workers: expected at least 0, got -3"):
        sweeps.sweep({"a": SMALL}, tmp_path, workers=-3)


def test_a_failure_ends_the_sweep_at_once(tmp_path: Path):
    jobs = {name: dataclasses.replace(SMALL, training=FOR_MINUTES) for name in ("bad", "long")}
    (tmp_path / "bad").mkdir()  # where a run folder is expected
    before, began = {*multiprocessing.active_children()}, time.monotonic()
    with pytest.raises(ValueError, match=r"expected a run folder at .*; got a folder without"):
        sweeps.sweep(jobs, tmp_path, workers=1)
    assert time.monotonic() - began < 60
    assert {*multiprocessing.active_children()} <= before
    assert not list((tmp_path / "bad").iterdir())


def test_a_cell_of_the_script_that_runs_is_had_by_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A class of `__main__` is of another `__main__` there."""
    script = tmp_path / "script.py"
    script.write_text(f'{OWN}\n\nif __name__ == "__main__":\n    raise SystemExit("again")\n')
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "__main__", module)
        text = script.read_text().partition("\n\nif")[0]
        exec(compile(text, script, "exec"), vars(module))
        mine = dataclasses.replace(SMALL, cell=module.Mine(4))
        job, config = Job.of("run", mine, tmp_path, tmp_path / "mark"), mine.config()
    experiment = pickle.loads(job.experiment)
    assert type(experiment.cell).__module__.startswith("longlag_user_")
    assert experiment.config() == config and config["cell"]["name"] == f"{script}:Mine"
    assert job.sources["cell"].text == script.read_bytes()
