"""`longlag report`: the page of one run made anew, and one page of several."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from longlag import GRU, LSTM
from longlag.cli import report
from longlag.cli.commands import main
from longlag.runs import Architecture, Experiment
from longlag.tasks import Parity
from longlag.training import Training
from tests.helpers.small_disk import contents
from tests.helpers.tiny_runs import new

EXPERIMENT = Experiment(
    task=Parity(1, 8), cell=LSTM(8), architecture=Architecture(width=8), seeds=2, test_lags=(32,)
)


def finished(path: Path, experiment: Experiment = EXPERIMENT, accuracy: float = 0.5) -> report.Run:
    """A run folder with results that nobody trained for."""
    folder = new(path, experiment)
    own: dict[str, Any] = {"task": experiment.task_title, "arm": experiment.arm}
    rows, curves = [], []
    for seed in experiment.seed_numbers:
        for lag in experiment.lags:
            tested = {"lag": lag, "train_lag": 8, "length": lag, "train_length": 8}
            costs = {"parameters": 10, "state_bytes": 64, "seconds": 1.0, "steps": 20, "budget": 20}
            scores = {"accuracy": accuracy, "exact_match": 0.5, "loss": 1.0, "solved_at": None}
            rows.append(own | {"seed": seed} | tested | costs | scores)
        curve = {"steps": [10, 20], "loss": [1.0, 0.9], "accuracy": [0.5, accuracy]}
        curves.append(own | {"seed": seed} | curve)
    keys = ("task", "arm", "seed", "lag", "train_lag", "accuracy")
    results = {
        "rows": rows,
        "by_lag": [{key: row[key] for key in keys} for row in rows],
        "curves": curves,
        "threshold": experiment.training.solved,
    }
    (folder.path / "results.json").write_text(json.dumps(results))
    return report.Run(path, experiment, results)


def refused(*argv: str | Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["report", *map(str, argv)])
    assert left.value.code == 2


def test_the_page_of_a_run_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = finished(tmp_path / "run")
    report.show_results(report.results_of_run(run.experiment, copy.deepcopy(run.results)), run.path)
    printed, page = capsys.readouterr().out, (run.path / "report.html").read_bytes()
    assert "floor" in printed and "median accuracy by lag: 8: .50, 32: .50\n" in printed
    before = contents(run.path)
    (run.path / "report.html").write_text("of an earlier version")
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == printed
    assert (run.path / "report.html").read_bytes() == page
    assert contents(run.path) == before


def test_several_runs_are_on_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    finished(Path("lstm"))
    finished(Path("gru"), dataclasses.replace(EXPERIMENT, cell=GRU(8)), accuracy=1.0)
    before = contents(tmp_path)
    assert main(["report", "lstm", "gru", "lstm"]) == 0  # a run that is named twice is one
    printed = capsys.readouterr().out
    assert "LSTM" in printed and "GRU" in printed and printed.count("floor") == 1
    assert "runs/comparison/report.html" in printed
    page = Path("runs/comparison/report.html").read_text()
    assert "longlag report lstm gru" in page and "2 runs" in page
    assert {name: text for name, text in contents(tmp_path).items() if name in before} == before
    assert main(["report", "lstm", "gru", "--out", "mine", "--threshold", ".5"]) == 0
    assert "2/2" in capsys.readouterr().out and Path("mine/report.html").is_file()
    refused("lstm", "gru", "--out", "lstm")
    assert "expected a folder that is no run folder; got lstm" in capsys.readouterr().err


def names(*runs: report.Run) -> list[tuple[str, str]]:
    results = report.results_of_runs(runs)
    return [*dict.fromkeys((row["task"], row["arm"]) for row in results["rows"])][: len(runs)]


def test_namesakes_are_told_apart_by_what_they_differ_in(tmp_path: Path):
    run = finished(tmp_path / "run")
    wide = dataclasses.replace(EXPERIMENT, cell=LSTM(16), architecture=Architecture(width=16))
    longer = dataclasses.replace(EXPERIMENT, task=Parity(1, 9), test_lags=(36,))
    assert names(run, finished(tmp_path / "wide", wide)) == [
        ("parity", "LSTM (width=8)"),
        ("parity", "LSTM (width=16)"),
    ]
    long = report.Run(tmp_path / "long", longer, run.results)
    assert names(run, long) == [
        ("parity (max_length=8)", "LSTM"),
        ("parity (max_length=9)", "LSTM"),
    ]
    # Other seeds are more seeds. The same seeds twice are not.
    further = finished(tmp_path / "further", dataclasses.replace(EXPERIMENT, first_seed=2))
    rows = report.results_of_runs([run, further])["rows"]
    assert {(row["arm"], row["seed"]) for row in rows if row["seed"] is not None} == {
        ("LSTM", seed) for seed in range(4)
    }
    again = dataclasses.replace(run, path=tmp_path / "again")
    assert [arm for _, arm in names(run, again)] == [f"LSTM ({run.path})", f"LSTM ({again.path})"]


def test_what_is_no_finished_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cuts").mkdir()
    new(tmp_path / "cuts" / "cut", EXPERIMENT)
    new(tmp_path / "cut", EXPERIMENT)
    strict = dataclasses.replace(EXPERIMENT, training=Training(solved=0.9), cell=GRU(8))
    run, other = finished(tmp_path / "run"), finished(tmp_path / "other", strict)
    finished(tmp_path / "damaged")
    (tmp_path / "damaged" / "results.json").write_text('{"rows"')
    before = contents(tmp_path)
    for arguments, message in [
        ([], "expected a run folder, or several; got none"),
        ([tmp_path / "rum"], f"got nothing. Did you mean {tmp_path / 'run'}?"),
        ([tmp_path / "empty"], f"results.json of a question; got {tmp_path}/empty, a folder with"),
        ([tmp_path / "cuts"], f"got only unfinished ones: {tmp_path}/cuts/cut"),
        ([run.path, tmp_path / "cut"], f"Finish it by: longlag compare --resume {tmp_path}/cut"),
        ([tmp_path / "damaged"], f"expected the results of a run in {tmp_path}/damaged/results"),
        ([run.path, other.path], "expected runs with one threshold of accuracy, or --threshold"),
    ]:
        refused(*arguments)
        printed = capsys.readouterr()
        assert message in printed.err and printed.out == "" and "Traceback" not in printed.err
    assert contents(tmp_path) == before


def question(file: Path, task: str, lengths: tuple[int, ...] = (8, 32)) -> None:
    """What a script of experiments leaves, with an arm that is named as a run is."""
    costs = {"exact_match": 0.5, "loss": 1.0, "steps": 9, "parameters": 1, "state_bytes": 64}
    rows = [
        {"task": task, "arm": arm, "seed": 0, "accuracy": 0.25, "seconds": 1.0, "floor": 0.125}
        | {"length": length, "train_length": lengths[0], "lag": length, "train_lag": lengths[0]}
        | costs
        for arm in ("LSTM", "LSTM, told the lag")
        for length in lengths
    ]
    file.write_text(json.dumps({"rows": rows, "threshold": 0.98, "meta": {}}))


def test_folders_of_runs_and_results_of_questions_stand_beside_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    finished(Path("run"))
    # A sweep: its trials lie deeper than its runs, and one run was stopped.
    finished(Path("sweep/gru"), dataclasses.replace(EXPERIMENT, cell=GRU(8)), accuracy=1.0)
    finished(Path("sweep/rates/gru-0.1"), dataclasses.replace(EXPERIMENT, cell=GRU(9)))
    new(Path("sweep/stopped"), EXPERIMENT)
    finished(Path("deep/lag-8/lstm"), dataclasses.replace(EXPERIMENT, first_seed=7))
    Path("asked").mkdir()
    question(Path("asked/results.json"), "parity")
    question(Path("longer.json"), "parity", (9, 36))
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(report, "show_results", lambda results, out: shown.append(results))
    words = ["run", "sweep", "deep", "asked"]
    assert main(["report", *words, "--threshold", ".9"]) == 0
    assert capsys.readouterr().out == "left out, unfinished: sweep/stopped\n"
    paths = "run sweep/gru deep/lag-8/lstm asked/results.json"
    assert shown[0]["meta"]["command"] == f"longlag report {paths}"
    assert shown[0]["title"] == "3 runs and 1 question" and shown[0]["threshold"] == 0.9
    assert {point["arm"] for point in shown[0]["by_lag"]} >= {"GRU", "LSTM, told the lag"}

    asked, longer = (report._read_question(Path(f)) for f in ("asked/results.json", "longer.json"))
    run = report._read(Path("run"))
    with pytest.raises(ValueError, match=r"or --threshold; 0\.98 and 0\.99"):
        report.results_of_runs([run], questions=[asked])
    rows = report.results_of_runs([run], 0.95, [asked, longer])["rows"]
    assert [*dict.fromkeys((row["task"], row["arm"]) for row in rows if row["seed"] == 0)] == [
        ("parity", "LSTM"),
        ("parity", "LSTM (asked/results.json)"),
        ("parity", "LSTM, told the lag"),
        ("parity (trained at 9 steps)", "LSTM"),
        ("parity (trained at 9 steps)", "LSTM, told the lag"),
    ]
    floors = {(row["task"], row["accuracy"]) for row in rows if row["arm"].startswith("floor: b")}
    assert floors == {("parity", 0.125), ("parity (trained at 9 steps)", 0.125)}
    Path("other.json").write_text(json.dumps({"rows": [{"arm": "copy"}]}))
    refused("run", "other.json")
    assert "other.json cannot be compared with runs: expected rows with" in capsys.readouterr().err
