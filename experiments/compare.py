"""Train one arm on one memory task: a recurrence, an attention, or both.

    python -m experiments.compare --task recall --cell lstm --attention full
    python -m experiments.compare --task parity --cell gru --seeds 5 --steps 3000
    python -m experiments.compare --task copy-memory --task.lag 60 --cell lstm --cell.chrono 80
    python -m experiments.compare --task recall --cell path/to/my_cell.py:MyCell
    python -m experiments.compare --task path/to/my_task.py:MyTask --cell lstm
    python -m experiments.compare --resume runs/20261124-101500-recall-lstm-full
    python -m experiments.compare --resume runs/20261124-101500-recall-lstm-full --steps 20000

A run ends with a table and a page, `report.html`, in its folder; Ctrl-C saves it, --resume goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from longlag import LSTM, report
from longlag.cli.arguments import parse, plain_errors
from longlag.cli.listing import COLUMNS, WIDTH, catalogue
from longlag.models import SequenceModel, mixer_parameters, mixers
from longlag.report.statements import score
from longlag.report.summary import Spread
from longlag.runs import (
    Architecture,
    Experiment,
    RunFolder,
    carry_out,
    create,
    extend,
    floor_rows,
    run_name,
    task_names,
)
from longlag.runs import Progress as Report
from longlag.system.console import cache_compilations, console
from longlag.system.interrupt import stop_requested
from longlag.tasks import Recall

RUNS = Path("runs")
DEFAULT = Experiment(task=Recall(), cell=LSTM(64))


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    if "--list" in argv:
        console.print(listing())
        return 0
    experiment, folder = _prepare(argv)
    cache_compilations()
    for line in (*sizes(experiment), *weight_decay(experiment)):
        console.print(line, highlight=False)
    with stop_requested() as stop:
        found = _with_progress(experiment, folder, stop)
    if found is None:
        console.print(f"stopped; go on by --resume {folder.path}", highlight=False, soft_wrap=True)
        return stop.exit_code
    found["rows"] += floor_rows(experiment)
    console.print(report.table(report.summarise(found["rows"], found["threshold"])))
    console.print(at_every_lag(found["by_lag"]), highlight=False)
    page = report.write(
        folder.path, found | {"title": f"{experiment.arm} on {experiment.task_title}"}
    )
    where = f"run folder {folder.path}\nreport     {page}"
    console.print(where, highlight=False, soft_wrap=True)
    return 0


def at_every_lag(by_lag: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy at each lag that was tested, of which the table has but two."""
    lags = sorted({point["lag"] for point in by_lag})
    said = []
    for lag in lags:
        here = [point for point in by_lag if point["lag"] == lag]
        median = score(Spread.of(point["accuracy"] for point in here).median)
        flawed = f" ({', '.join(report.flaws(here))})" if report.flaws(here) else ""
        said.append(f"{lag:,}: {median}{flawed}")
    return f"median accuracy by lag: {', '.join(said)}"


def sizes(experiment: Experiment) -> list[str]:
    """What the mixers came to, if their number of parameters was asked for."""
    architecture, model = experiment.architecture, experiment.model
    if not (isinstance(architecture, Architecture) and architecture.mixer_parameters):
        return []
    assert isinstance(model, SequenceModel)
    return [
        f"{mixer_parameters(mixer, architecture.width):,} parameters: {mixer}"
        for mixer in mixers(model.stack)
    ]


def weight_decay(experiment: Experiment) -> list[str]:
    """Which parameters the optimiser shrinks, if it shrinks any."""
    names = experiment.weight_decay
    if names is None:
        return []
    decays, stays = (", ".join(names[kind]) for kind in ("decays", "stays"))
    return [f"weight decay {experiment.training.weight_decay:g} of {decays}; not of {stays}"]


def listing() -> Group:
    """Tasks, then cells and attentions with what they cost, a line each."""
    tasks = Table(title="tasks", title_justify="left")
    tasks.add_column("task", no_wrap=True)
    tasks.add_column("what it is")
    for name, cls in task_names().items():
        tasks.add_row(name, (cls.__doc__ or "").strip().splitlines()[0])
    title = f"cells and attentions, from {WIDTH} to {WIDTH} features"
    costs = Table(title=title, title_justify="left")
    for column in COLUMNS:
        costs.add_column(column, no_wrap=column != "reference")
    for _, rows in itertools.groupby(catalogue(), key=lambda row: row[1]):
        for row in rows:
            costs.add_row(*row)
        costs.add_section()
    return Group(tasks, costs)


def _prepare(argv: Sequence[str]) -> tuple[Experiment, RunFolder]:
    resume = _value(argv, "--resume")
    if resume is None:
        experiment, read = parse(argv, "python -m experiments.compare", __doc__ or "", DEFAULT)
        cell = "none" if experiment.cell is None else type(experiment.cell).__name__
        name = run_name(experiment.task_title, cell, experiment.architecture.attention)
        return experiment, create(experiment, read.out, RUNS, name)
    folder = RunFolder.open(Path(resume))
    stored = Experiment.from_config(folder.config, folder.path)
    # The options that are given must be those of the run; those that are not come from it.
    asked, read = parse(argv, "python -m experiments.compare", __doc__ or "", stored)
    if read.out is not None:
        raise ValueError(f"expected --resume or --out; got both, {resume} and {read.out}")
    config, made_with = asked.config(), stored.config()
    for what in ("cell", "task"):
        mine, theirs = getattr(asked, what), getattr(stored, what)
        # What is a user's own comes from its copy in the run folder, and keeps the name it had.
        if mine is not None and type(mine) is type(theirs):
            config[what]["name"] = folder.config[what]["name"]
        if theirs is not None:
            made_with[what]["name"] = folder.config[what]["name"]
    # More steps are the one difference that a run goes on with.
    training = dataclasses.replace(stored.training, steps=asked.training.steps)
    made_with["training"]["steps"] = training.steps
    folder.require_same(config, made_with)
    experiment = dataclasses.replace(stored, training=training)
    return experiment, extend(experiment, folder)


def _value(argv: Sequence[str], option: str) -> str | None:
    for word, after in zip(argv, [*argv[1:], None]):
        if word == option:
            return after
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return None


def _with_progress(experiment: Experiment, folder: RunFolder, stop: Any) -> dict[str, Any] | None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    steps = experiment.training.steps
    with Progress(*columns, console=console) as progress:
        bars = {
            seed: progress.add_task(f"seed {seed}", total=steps, state="compiling")
            for seed in experiment.seed_numbers
        }

        def show(report: Report) -> None:
            for line in report.lines:
                state = f"step {line['step']} loss {line['loss']:.4f} acc {line['accuracy']:.3f}"
                progress.update(bars[line["seed"]], completed=line["step"], state=state)
            for message in report.messages:
                progress.console.print(message, highlight=False)

        return carry_out(experiment, folder, stop=stop, on_progress=show)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
