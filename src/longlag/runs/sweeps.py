"""A sweep: many experiments, each in a process pinned to a core, cut and gone on with at will.

Two processes on a core each do half as much again as one process on two cores, at the sizes of
memory tasks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from longlag.runs.experiment import Experiment
from longlag.runs.lifecycle import carry_out, create, reopen
from longlag.system.allocator import keep_freed_memory
from longlag.system.console import cache_compilations, console
from longlag.system.xla_flags import known_flags

__all__ = ["run_job", "sweep"]

# Two thirds of a short run is compiling. At this level it takes two thirds of the time, and
# programs of width 48 are as fast. A flag of the user's comes later and wins.
QUICK_COMPILING = ("--xla_backend_optimization_level=1",)

Results = dict[str, Any]


def sweep(jobs: Mapping[str, Experiment], folder: Path, workers: int = 0) -> dict[str, Results]:
    """Carries all experiments out, each in a run folder of its name.

    A run that has its results is not repeated, one that was cut goes on from its checkpoint, and
    one that was made with another configuration is an error. Ctrl-C leaves with exit code 130 what
    was saved so far.

    Args:
        jobs: experiments by the name of their run folder, in the order in which they are begun.
        folder: where the run folders are.
        workers: processes, each pinned to one core; 0 means one for each core.

    Returns:
        What `longlag.runs.carry_out` found, by name, in the order of `jobs`.

    Raises:
        ValueError: `workers` is negative.
        ValueError, CheckpointError, DiskError: as `carry_out`; the first failure ends the sweep.
    """
    if workers < 0:
        raise ValueError(f"workers: expected at least 0, got {workers}")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    cores = cores[: workers or len(cores)]
    context = multiprocessing.get_context("spawn")
    no_workers = {*multiprocessing.active_children()}
    news, free = context.Queue(), context.SimpleQueue()
    for core in cores:
        free.put(core)
    begin = (os.getpid(), free, news, known_flags(QUICK_COMPILING))
    with (
        ProcessPoolExecutor(len(cores), context, _pin, begin) as pool,
        _bars(jobs, news) as finish,
    ):
        futures = {name: pool.submit(run_job, name, job, folder) for name, job in jobs.items()}
        try:
            for future in as_completed(futures.values()):
                future.result()  # the first failure ends the sweep
        except (KeyboardInterrupt, Exception) as error:
            # At once: what the workers saved is where the next sweep goes on.
            for worker in {*multiprocessing.active_children()} - no_workers:
                worker.terminate()
            if not isinstance(error, KeyboardInterrupt):
                raise
            console.print("\nstopped; the same command goes on from here")
            sys.exit(130)
        results = {name: future.result() for name, future in futures.items()}
        finish()
    return results


def run_job(name: str, experiment: Experiment, folder: Path) -> Results:
    """Carries one experiment of a sweep out, unless it was, in `folder / name`."""
    path = folder / name
    run = reopen(experiment, path) if path.exists() else create(experiment, path, folder, name)
    file = path / "results.json"
    if file.is_file():
        results = json.loads(file.read_text(encoding="utf-8"))
    else:
        results = carry_out(experiment, run, on_progress=lambda p: _tell(name, p.lines))
    assert results is not None
    _news.put((name, None, results["rows"][0]["accuracy"]))
    return results


_news: Any = queue.SimpleQueue()


def _tell(name: str, lines: list[dict[str, Any]]) -> None:
    if lines:
        best = [line["accuracy"] for line in lines]
        _news.put((name, max(line["step"] for line in lines), sum(best) / len(best)))


def _pin(parent: int, free: Any, news: Any, flags: tuple[str, ...]) -> None:
    global _news
    _news = news
    # Ctrl-C is the parent's to answer. A worker whose parent is gone, however it went, goes too;
    # what it saved so far is where the next sweep goes on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {free.get()})
    os.environ["XLA_FLAGS"] = " ".join((*flags, os.environ.get("XLA_FLAGS", "")))
    keep_freed_memory()
    cache_compilations()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def _bars(jobs: Mapping[str, Experiment], news: Any) -> Iterator[Any]:
    """A bar for everything and one for each job that is under way, moved by the workers' news."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    done = threading.Event()
    with Progress(*columns, console=console) as progress:
        everything = progress.add_task("all", total=len(jobs), state="")
        bars: dict[str, Any] = {}

        def watch() -> None:
            while not done.is_set():
                with contextlib.suppress(queue.Empty, EOFError, BrokenPipeError):
                    name, step, accuracy = news.get(timeout=0.2)
                    budget = jobs[name].training.steps
                    if name not in bars:
                        bars[name] = progress.add_task(name, total=budget, state="")
                    state = f"accuracy {accuracy:.2f}" if accuracy is not None else "diverged"
                    if step is None:
                        progress.update(bars[name], completed=budget, state=state)
                        progress.stop_task(bars[name])
                        progress.advance(everything)
                    else:
                        progress.update(bars[name], completed=step, state=f"step {step}, {state}")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield lambda: time.sleep(0.3)
        finally:
            done.set()
            watcher.join()
