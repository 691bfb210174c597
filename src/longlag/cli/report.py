"""Make the page of one run anew, or one page that compares several runs.

    longlag report runs/20261124-101500-recall-lstm-full
    longlag report runs/20261124-* --out runs/comparison

One run: prints its table and writes FOLDER/report.html, as `longlag compare` does at its end.
Several: their rows in one table and one page. Runs of one configuration and different seeds are one
arm. Arms or tasks of the same name are told apart by the options in which they differ. Seconds.
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
from longlag.report.summary import Spread
from longlag.runs import Experiment, RunFolder, floor_rows
from longlag.system.atomic_files import writing
from longlag.system.console import console

__all__ = ["main", "results_of_run", "results_of_runs", "show_results", "write_report"]

COMPARISON = Path("runs/comparison")


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return call(write_report, argv, "longlag report", __doc__ or "")


def write_report(
    folders: tyro.conf.Positional[tuple[Path, ...]],
    out: Path | None = None,
    threshold: float | None = None,
) -> int:
    """Writes the page.

    Args:
        folders: one run folder or several.
        out: the folder of the page. By default that of the run, or runs/comparison for several.
        threshold: the accuracy from which a seed has solved its task, in place of that of the runs.
    """
    runs = [_read(path) for path in dict.fromkeys(folders)]
    if not runs:
        raise ValueError("expected a run folder, or several; got none")
    if len(runs) == 1:
        results, out = results_of_run(runs[0].experiment, runs[0].results), out or runs[0].path
    else:
        results, out = results_of_runs(runs, threshold), out or COMPARISON
        if (out / "config.json").exists():
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
    """What the page of one run shows: its results, the floors of its task, and a title."""
    rows = [*results["rows"], *floor_rows(experiment)]
    return {**results, "rows": rows, "title": f"{experiment.arm} on {experiment.task_title}"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, as it stands in its folder."""

    path: Path
    experiment: Experiment
    results: dict[str, Any]


def results_of_runs(runs: Sequence[Run], threshold: float | None = None) -> dict[str, Any]:
    """What the page of several runs shows.

    Args:
        runs: at least two.
        threshold: the accuracy from which a seed has solved its task. None: that of the runs.

    Raises:
        ValueError: the runs have several thresholds, and none is given.
    """
    thresholds = sorted({run.results["threshold"] for run in runs})
    if threshold is None and len(thresholds) > 1:
        several = " and ".join(f"{value:g}" for value in thresholds)
        raise ValueError(f"expected runs with one threshold of accuracy, or --threshold; {several}")
    rows, curves, by_lag, floors = [], [], [], {}
    for run, task, arm in zip(runs, *_names(runs)):
        own = {"task": task, "arm": arm}
        rows += [row | own for row in run.results["rows"]]
        curves += [curve | own for curve in run.results["curves"]]
        by_lag += [point | own for point in run.results["by_lag"]]
        for row in floor_rows(run.experiment):
            floors[task, row["arm"], row["length"]] = row | {"task": task}
    paths = [str(run.path) for run in runs]
    return {
        "rows": [*rows, *floors.values()],
        "curves": curves,
        "by_lag": by_lag,
        "threshold": thresholds[0] if threshold is None else threshold,
        "title": f"{len(runs)} runs",
        "lead": f"The runs: {', '.join(paths)}.",
        "meta": {"command": shlex.join(["longlag", "report", *paths])},
    }


def _read(path: Path) -> Run:
    folder = RunFolder.open(path)
    file = path / "results.json"
    if not file.is_file():
        raise ValueError(
            f"expected a finished run at {path}; got one without results.json. Finish it by: "
            f"longlag compare --resume {path}"
        )
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        _ = results["rows"], results["by_lag"], results["curves"], results["threshold"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected the results of a run in {file}; got: {error!r}") from error
    return Run(path, Experiment.from_config(folder.config, path), results)


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
