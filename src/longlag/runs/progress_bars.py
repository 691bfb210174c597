"""Progress bars of a sweep, read from its run folders.

Whatever starts the workers, and wherever they are, the run folders are what they share.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from longlag.runs.experiment import Experiment
from longlag.system.console import console

__all__ = ["Bars", "News", "newest"]

# Enough for the lines of one step: of 200 seeds.
TAIL_BYTES = 2**16


class News(NamedTuple):
    """The progress of a run.

    Attributes:
        step: of the newest lines of its metrics.
        done: the same, or the mean of the operations spent where these are the budget.
        accuracy: their mean, over the seeds that trained; None if none is finite.
    """

    step: int
    done: float
    accuracy: float | None


def newest(metrics: Path) -> News | None:
    """Reads the last lines of a `metrics.jsonl`, while another process may write more.

    Args:
        metrics: the file; None comes out if there is none, or nothing is in it.
    """
    try:
        with metrics.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
    except OSError:
        return None
    complete = tail.split(b"\n")[1 if size > TAIL_BYTES else 0 : -1]
    if not complete:
        return None
    lines = map(json.loads, reversed(complete))
    first = next(lines)
    of_step = itertools.takewhile(lambda line: line["step"] == first["step"], lines)
    newest_lines = [first, *of_step]
    done = [line.get("spent", line["step"]) for line in newest_lines]
    accuracies = [line["accuracy"] for line in newest_lines]
    finite = [accuracy for accuracy in accuracies if accuracy is not None]
    accuracy = sum(finite) / len(finite) if finite else None
    return News(first["step"], sum(done) / len(done), accuracy)


class Bars:
    """A progress bar for the whole sweep, and one for each job that is running.

    Args:
        jobs: experiments by the name of their run folder.
        folder: where the run folders are.
    """

    def __init__(self, jobs: Mapping[str, Experiment], folder: Path) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._everything = self._progress.add_task("all", total=len(jobs), state="")
        self._budgets = {
            name: job.training.budget or job.training.steps for name, job in jobs.items()
        }
        self._files = {name: folder / name / "metrics.jsonl" for name in jobs}
        self._sizes: dict[str, int] = {}
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        # What lies in the folders from before is no news.
        self._sizes = {name: _size(file) for name, file in self._files.items()}
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self) -> None:
        """Updates the bars of the jobs that have not ended."""
        for name, file in self._files.items():
            size = _size(file)
            if size != self._sizes[name] and (news := newest(file)):
                self._sizes[name] = size
                state = f"step {news.step}, {_words(news.accuracy)}"
                self._progress.update(self._bar(name), completed=news.done, state=state)

    def finish(self, name: str, results: Mapping[str, Any]) -> None:
        """Marks a job as ended."""
        del self._files[name]
        bar, state = self._bar(name), _words(results["rows"][0]["accuracy"])
        self._progress.update(bar, completed=self._budgets[name], state=state)
        self._progress.stop_task(bar)
        self._progress.advance(self._everything)

    def _bar(self, name: str) -> TaskID:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=self._budgets[name], state="")
        return self._bars[name]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _words(accuracy: float | None) -> str:
    return "diverged" if accuracy is None else f"accuracy {accuracy:.2f}"
