"""Train one arm on one memory task: a recurrence, an attention, or both.

    longlag compare --task recall --cell lstm --attention full
    longlag compare --task parity --cell gru --seeds 5 --steps 3000
    longlag compare --task copy-memory --task.lag 60 --cell lstm --cell.chrono 80
    longlag compare --task recall --cell path/to/my_cell.py:MyCell
    longlag compare --task path/to/my_task.py:MyTask --cell lstm
    longlag compare --task recall --cell gru --rates 1e-3 3e-3 1e-2
    longlag compare --task recall --seeds 4 --mesh seeds=4,data=2
    longlag compare --resume runs/20261124-101500-recall-lstm-full
    longlag compare --resume runs/20261124-101500-recall-lstm-full --steps 20000

A run ends with a table, and with a page, `report.html`, in its folder. Ctrl-C saves a checkpoint.
`--resume FOLDER` continues from it, and gives exactly the numbers of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from longlag.cells import LSTM
from longlag.cli.arguments import join_processes, parse, peek
from longlag.cli.listing import tables
from longlag.cli.report import results_of_run, show_results
from longlag.models import SequenceModel, mixer_parameters, mixers
from longlag.runs import (
    Architecture,
    Experiment,
    MetricLogs,
    RunFolder,
    carry_out,
    create,
    devices_of,
    extend,
    require_log_packages,
    run_name,
)
from longlag.runs import Progress as Report
from longlag.runs.folder import lock_file
from longlag.runs.lifecycle import LIMITS
from longlag.system.console import cache_compilations, console
from longlag.system.file_lock import held_lock, holder
from longlag.system.hosts import explain_loss, on_first
from longlag.system.interrupt import catch_stop_signals
from longlag.tasks import Recall
from longlag.training.grids import describe_label

__all__ = ["DEFAULT", "main", "sizes", "weight_decay"]

RUNS = Path("runs")
DEFAULT = Experiment(task=Recall(), cell=LSTM(64))


def main(argv: Sequence[str]) -> int:
    """Runs `longlag compare` and returns the exit code."""
    if "--list" in argv:
        console.print(tables())
        return 0
    with join_processes(argv), explain_loss("see what it printed"):
        return _run(argv)


def _run(argv: Sequence[str]) -> int:
    """`main` in one process of a run, which may have several."""
    with _prepared(argv) as (experiment, folder, read):
        cache_compilations()
        for line in (*sizes(experiment), *weight_decay(experiment)):
            console.print(line, highlight=False)
        resume = f"resume it by --resume {folder.path}"
        with (
            explain_loss(resume),
            catch_stop_signals() as stop,
            MetricLogs(folder, read.log) as logs,
        ):
            results = _carry_out_with_progress(experiment, folder, read.mesh, stop, logs)
            if results is not None:
                logs.conclude(results)
        if results is None:
            console.print(f"stopped; {resume}", highlight=False, soft_wrap=True)
            return stop.exit_code or 128 + signal.SIGTERM  # of another process
        on_first(lambda: show_results(results_of_run(experiment, results), folder.path))
    console.print(f"run folder {folder.path}", highlight=False, soft_wrap=True)
    return 0


def sizes(experiment: Experiment) -> list[str]:
    """The number of parameters of each mixer, as lines for the user, if it was requested."""
    architecture, model = experiment.architecture, experiment.model
    if not (isinstance(architecture, Architecture) and architecture.mixer_parameters):
        return []
    assert isinstance(model, SequenceModel)
    return [
        f"{mixer_parameters(mixer, architecture.width):,} parameters: {mixer}"
        for mixer in mixers(model.stack)
    ]


def weight_decay(experiment: Experiment) -> list[str]:
    """The parameters that weight decay shrinks, as lines for the user, if there are any."""
    names = experiment.weight_decay
    if names is None:
        return []
    decays, stays = (", ".join(names[kind]) for kind in ("decays", "stays"))
    return [f"weight decay {experiment.training.weight_decay:g} of {decays}; not of {stays}"]


@contextlib.contextmanager
def _prepared(argv: Sequence[str]) -> Iterator[tuple[Experiment, RunFolder, Any]]:
    """What to run, in which folder, where nobody else writes meanwhile, and the options."""
    resume = peek(argv, ["resume"]).get("resume")
    if resume is None:
        experiment, read = parse(argv, "longlag compare", __doc__ or "", DEFAULT)
        require_log_packages(read.log)
        devices_of(experiment, read.mesh)  # refuses before there is a folder
        cell = "none" if experiment.cell is None else type(experiment.cell).__name__
        name = run_name(experiment.task_title, cell, experiment.architecture.attention)
        folder = on_first(lambda: create(experiment, read.out, RUNS, name))
        with _sole_writer(folder.path):
            yield experiment, folder, read
        return
    path = Path(resume)
    on_first(lambda: RunFolder.open(path))  # refuses before there is a lock
    with _sole_writer(path):
        yield _resumed(argv, path)


@contextlib.contextmanager
def _sole_writer(path: Path) -> Iterator[None]:
    """Holds the lock of a run folder in its block, in process 0.

    Raises:
        ValueError: another process holds it.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            file = lock_file(path)
            if not stack.enter_context(held_lock(file, lambda: True)):
                raise ValueError(
                    f"expected {path} to be free; {holder(file)} is writing there. The folder is "
                    "left as it is"
                )

        on_first(lock)
        yield


def _resumed(argv: Sequence[str], path: Path) -> tuple[Experiment, RunFolder, Any]:
    """The experiment of a run that is to go on, its folder, and the options."""
    folder = on_first(lambda: RunFolder.open(path))
    stored = Experiment.from_config(folder.config, folder.path)
    # The options that are given must be those of the run; those that are not come from it.
    requested, read = parse(argv, "longlag compare", __doc__ or "", stored)
    require_log_packages(read.log)
    if read.out is not None:
        raise ValueError(f"expected --resume or --out; got both, {path} and {read.out}")
    config, made_with = requested.config(), stored.config()
    for what in ("cell", "task"):
        mine, theirs = getattr(requested, what), getattr(stored, what)
        # What is a user's own comes from its copy in the run folder, and keeps the name it had.
        if mine is not None and type(mine) is type(theirs):
            config[what]["name"] = folder.config[what]["name"]
        if theirs is not None:
            made_with[what]["name"] = folder.config[what]["name"]
    # More steps, or a larger budget, are the one difference that a run goes on with.
    more = {limit: getattr(requested.training, limit) for limit in LIMITS}
    training = dataclasses.replace(stored.training, **more)
    made_with["training"] |= more
    folder.require_same(config, made_with)
    experiment = dataclasses.replace(stored, training=training)
    devices_of(experiment, read.mesh)
    return experiment, on_first(lambda: extend(experiment, folder)), read


def _carry_out_with_progress(
    experiment: Experiment, folder: RunFolder, mesh: str, stop: Any, logs: MetricLogs
) -> dict[str, Any] | None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    total = experiment.training.budget or experiment.training.steps
    with Progress(*columns, console=console) as progress:
        bars = {
            name: progress.add_task(name, total=total, state="compiling")
            for name in map(describe_label, experiment.labels)
        }

        def show(report: Report) -> None:
            for line in report.lines:
                state = f"step {line['step']} loss {line['loss']:.4f} acc {line['accuracy']:.3f}"
                state += f" at lag {line['frontier']}" if "frontier" in line else ""
                done = line.get("spent", line["step"])
                progress.update(bars[describe_label(line)], completed=done, state=state)
            for message in report.messages:
                progress.console.print(message, highlight=False)
            logs.add(report)

        return carry_out(experiment, folder, mesh=mesh, stop=stop, on_progress=show)
