"""Write the page of one run again, or one page that compares several runs.

    longlag report runs/20261124-101500-recall-lstm-full
    longlag report runs/20261124-* --out runs/comparison
    longlag report runs/family-hold runs/MY-RUN

With one run, prints its table and writes FOLDER/report.html, as `longlag compare` does at its end.
With several, writes one table and one page of all. A folder that holds run folders stands for the
finished ones among them. The results.json of a question can be given too. Runs that differ only in
their seeds form one arm. Arms or tasks of the same name get the options in which they differ. Takes
seconds.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from longlag import report
from longlag.cli.arguments import call
from longlag.report.statements import format_accuracy
from longlag.report.summary import FLOOR, REQUIRED, Spread
from longlag.runs import Experiment, RunFolder, floor_rows
from longlag.runs.result_rows import arm_at_rate
from longlag.system.atomic_files import writing
from longlag.system.console import console

__all__ = ["main", "results_of_run", "results_of_runs", "show_results", "write_report"]

COMPARISON = Path("runs/comparison")
CONFIG, RESULTS = "config.json", "results.json"
BASELINE = f"{FLOOR}best fixed answer"


def main(argv: Sequence[str]) -> int:
    """Runs `longlag report` and returns the exit code."""
    return call(write_report, argv, "longlag report", __doc__ or "")


def write_report(
    folders: tyro.conf.Positional[tuple[Path, ...]],
    out: Path | None = None,
    threshold: float | None = None,
) -> int:
    """Writes the page of one run, or one page that compares several.

    Args:
        folders: run folders, folders that hold run folders, or results.json of questions.
        out: the folder of the page. By default that of the run, or runs/comparison for several.
        threshold: the accuracy from which a seed has solved its task, in place of that of the runs.
    """
    if not folders:
        raise ValueError("expected a run folder, or several; got none")
    paths = dict.fromkeys(path for folder in folders for path in _expand(folder))
    runs = [_read(path) for path in paths if not path.is_file()]
    questions = [_read_question(path) for path in paths if path.is_file()]
    if len(runs) == 1 and not questions:
        results, out = results_of_run(runs[0].experiment, runs[0].results), out or runs[0].path
    else:
        results, out = results_of_runs(runs, threshold, questions), out or COMPARISON
        if (out / CONFIG).exists():
            raise ValueError(f"--out: expected a folder that is no run folder; got {out}")
    if threshold is not None:
        results["threshold"] = threshold
    show_results(results, out)
    return 0


def show_results(results: Mapping[str, Any], folder: Path) -> None:
    """Prints the table and the accuracy at every lag, and writes the page.

    Args:
        results: as `longlag.report` takes them, with `by_lag`.
        folder: of the page.
    """
    console.print(report.table(report.summarise(results["rows"], results["threshold"])))
    arms = {(point["task"], point["arm"]) for point in results["by_lag"]}
    if len(arms) == 1:
        console.print(_describe_lags(results["by_lag"]), highlight=False)
    with writing("the report", folder):
        page = report.write(folder, results)
    console.print(f"report     {page}", highlight=False, soft_wrap=True)


def results_of_run(experiment: Experiment, results: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of the page of one run: its results, the floors of its task, and a title."""
    rows = [*results["rows"], *floor_rows(experiment)]
    return {**results, "rows": rows, "title": f"{experiment.arm} on {experiment.task_title}"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    path: Path
    experiment: Experiment
    results: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Question:
    """Results of a script of experiments: rows of many arms, without their configurations."""

    path: Path
    results: dict[str, Any]


def results_of_runs(
    runs: Sequence[Run], threshold: float | None = None, questions: Sequence[Question] = ()
) -> dict[str, Any]:
    """The contents of a page that compares several runs.

    Args:
        runs: finished ones.
        threshold: the accuracy from which a seed has solved its task. None: that of the runs.
        questions: results that are shown beside them.

    Raises:
        ValueError: the runs have several thresholds, and none is given.
    """
    thresholds = sorted({source.results["threshold"] for source in (*runs, *questions)})
    if threshold is None and len(thresholds) > 1:
        several = " and ".join(f"{value:g}" for value in thresholds)
        raise ValueError(f"expected runs with one threshold of accuracy, or --threshold; {several}")
    rows, curves, by_lag, floors = [], [], [], {}
    for run, task, arm in zip(runs, *_names(runs)):

        def name(row: dict[str, Any], task: str = task, arm: str = arm) -> dict[str, Any]:
            return row | {"task": task, "arm": arm_at_rate(arm, row)}

        rows += map(name, run.results["rows"])
        curves += map(name, run.results["curves"])
        by_lag += map(name, run.results["by_lag"])
        for row in floor_rows(run.experiment):
            floors[task, row["arm"], row["length"]] = row | {"task": task}
    for question in questions:
        named = _named_rows(question, rows)
        rows += named
        by_lag += [row for row in named if row.get("lag") and row.get("train_lag")]
        floors |= {
            (row["task"], BASELINE, row["length"]): _floor_row(row)
            for row in named
            if row.get("floor") is not None
        }
    paths = [str(source.path) for source in (*runs, *questions)]
    return {
        "rows": [*rows, *floors.values()],
        "curves": curves,
        "by_lag": by_lag,
        "threshold": thresholds[0] if threshold is None else threshold,
        "title": _title(len(runs), len(questions)),
        "lead": f"The runs: {', '.join(paths)}.",
        "meta": {"command": shlex.join(["longlag", "report", *paths])},
    }


def _expand(path: Path) -> list[Path]:
    """The run folders and the files of results that a word of the command line stands for."""
    if path.is_file() or not path.is_dir() or (path / CONFIG).exists():
        return [path]
    runs = _runs_below(path)
    if not runs and (path / RESULTS).is_file():
        return [path / RESULTS]
    if not runs:
        raise ValueError(
            f"expected a run folder, a folder that holds some, or results.json of a question; got "
            f"{path}, a folder with none of them"
        )
    finished = [run for run in runs if (run / RESULTS).is_file()]
    unfinished = ", ".join(str(run) for run in runs if run not in finished)
    if not finished:
        raise ValueError(
            f"expected a finished run in {path}; got only unfinished ones: {unfinished}"
        )
    if unfinished:
        console.print(f"left out, unfinished: {unfinished}", highlight=False, soft_wrap=True)
    return finished


def _runs_below(path: Path) -> list[Path]:
    """The run folders in a folder or, if there is none, in the folders that it holds.

    So the trials of a sweep are left out: they lie beside its runs, in a folder of their own.
    """
    inside = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    runs = [folder for folder in inside if (folder / CONFIG).is_file()]
    return runs or [run for folder in inside for run in _runs_below(folder)]


def _read(path: Path) -> Run:
    folder = RunFolder.open(path)
    file = path / RESULTS
    if not file.is_file():
        raise ValueError(
            f"expected a finished run at {path}; got one without results.json. Finish it by: "
            f"longlag compare --resume {path}"
        )
    results = _read_results(file, ("rows", "by_lag", "curves"))
    if not isinstance(results.get("threshold"), float | int):
        raise ValueError(f"expected the results of a run in {file}; got none with a threshold")
    try:
        experiment = Experiment.from_config(folder.config, path)
    except ValueError as error:  # of another version, or of a cell that no longer imports
        raise ValueError(f"cannot read the configuration of {path}: {error}") from error
    return Run(path, experiment, results)


def _read_question(file: Path) -> Question:
    results = _read_results(file, ("rows",))
    missing = [key for key in REQUIRED if any(key not in row for row in results["rows"])]
    if missing:
        raise ValueError(
            f"{file} cannot be compared with runs: expected rows with {', '.join(REQUIRED)}; some "
            f"have no {', '.join(missing)}"
        )
    return Question(file, {"threshold": 0.95} | results)


def _read_results(file: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(results[key], list) for key in keys):
            raise TypeError(f"expected lists of {', '.join(keys)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected the results of a run in {file}; got: {error!r}") from error
    return results


def _named_rows(question: Question, others: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a question, named so that none is taken for one of another source."""
    rows = [dict(row) for row in question.results["rows"]]
    lengths = collections.defaultdict(set)
    for row in (*others, *rows):
        lengths[row["task"]].add(row.get("train_length"))
    for row in rows:
        if len(lengths[row["task"]]) > 1:
            row["task"] = f"{row['task']} (trained at {row.get('train_length')} steps)"
    taken = {(row["task"], row["arm"]) for row in others}
    for row in rows:
        if (row["task"], row["arm"]) in taken:
            row["arm"] = f"{row['arm']} ({question.path})"
    return rows


def _floor_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The floor that a row of a question names, as `floor_rows` has that of a run."""
    costs = dict.fromkeys(("seed", "exact_match", "loss", "parameters", "state_bytes", "seconds"))
    kept = {key: row.get(key) for key in ("task", "length", "train_length", "lag", "train_lag")}
    return kept | costs | {"arm": BASELINE, "accuracy": row["floor"], "steps": 0}


def _title(runs: int, questions: int) -> str:
    """What is on the page, as "2 runs and 1 question"."""
    counts = ((runs, "run"), (questions, "question"))
    return " and ".join(f"{n} {noun}{'s' if n > 1 else ''}" for n, noun in counts if n)


def _names(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The names of task and arm of every run, the same only where they are the same."""
    configs = [run.experiment.config() for run in runs]
    tasks = _tell_apart(
        [run.experiment.task_title for run in runs], [config["task"] for config in configs]
    )
    arms = [run.experiment.arm for run in runs]
    for task in {*tasks}:
        at = [i for i, name in enumerate(tasks) if name == task]
        names = _tell_apart([arms[i] for i in at], [_options(configs[i]) for i in at])
        seeds = collections.Counter(
            (name, seed) for i, name in zip(at, names) for seed in runs[i].experiment.seed_numbers
        )
        # Two runs of one seed are no two seeds.
        twice = {name for (name, _), count in seeds.items() if count > 1}
        for i, name in zip(at, names):
            arms[i] = f"{name} ({runs[i].path})" if name in twice else name
    return tasks, arms


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What two arms of one name may differ in. A cell as wide as its blocks need not say so."""
    width = config["architecture"].get("width")
    cell = (config["cell"] or {}).items()
    own = {f"cell.{name}": value for name, value in cell if (name, value) != ("features", width)}
    return own | config["architecture"] | config["training"]


def _tell_apart(names: Sequence[str], options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, each with the options in which the things of that name differ."""
    longer = []
    for name, mine in zip(names, options):
        namesakes = [theirs for other, theirs in zip(names, options) if other == name]
        keys = dict.fromkeys(key for theirs in namesakes for key in theirs)
        differ = [key for key in keys if any(t.get(key) != mine.get(key) for t in namesakes)]
        entries = ", ".join(f"{key}={mine.get(key)}" for key in differ)
        longer.append(f"{name} ({entries})" if differ else name)
    return longer


def _describe_lags(by_lag: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy at each lag that was tested, of which the table has but two."""
    lags = sorted({point["lag"] for point in by_lag})
    parts = []
    for lag in lags:
        points = [point for point in by_lag if point["lag"] == lag]
        median = format_accuracy(Spread.of(point["accuracy"] for point in points).median)
        flawed = f" ({', '.join(report.flaws(points))})" if report.flaws(points) else ""
        parts.append(f"{lag:,}: {median}{flawed}")
    return f"median accuracy by lag: {', '.join(parts)}"
