"""Sweeps: many experiments, on the cores of this machine or of others.

Cut at will, it goes on where it was: what counts is in the run folders. A worker that is lost
loses what it did since the last checkpoint.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from pathlib import Path

from longlag.runs.cluster import connect
from longlag.runs.experiment import Experiment
from longlag.runs.jobs import Job, Outcome, Results
from longlag.runs.metric_logs import LogName, require_log_packages
from longlag.runs.progress_bars import Bars
from longlag.system.console import console
from longlag.system.file_lock import held_lock
from longlag.system.local_pool import LocalPool, places

__all__ = ["Workers", "sweep"]

# A number of processes here, the address of a scheduler, or what the user has made.
Workers = int | str | Executor

LOOK_SECONDS = 0.3
# As many as Dask allows by default.
DEATHS = 3


def sweep(
    jobs: Mapping[str, Experiment],
    folder: Path,
    workers: Workers = 0,
    logs: tuple[LogName, ...] = (),
) -> dict[str, Results]:
    """Runs many experiments, each in a run folder of its name.

    A run that has its results is not repeated, one that was cut goes on from its checkpoint, and
    one that was made with another configuration is an error. Ctrl-C leaves with exit code 130 what
    was saved so far. A run that loses its worker begins again from its checkpoint.

    Args:
        jobs: experiments by the name of their run folder, in the order in which they are begun.
        folder: where the run folders are. All workers see it under this path.
        workers: how many processes of this machine, each with a core or an accelerator of its own;
            0 means one for each. Or the address of a scheduler of Dask, such as `tcp://host:8786`.
            Or any `concurrent.futures.Executor`, which stays open.
        logs: where the metrics of the runs go besides, see `longlag.runs.MetricLogs`.

    Returns:
        What `longlag.runs.carry_out` found, by name, in the order of `jobs`.

    Raises:
        ValueError: `workers` is negative, or no address; a worker has other versions of Python or
            of a package.
        ConnectionError: no scheduler answers.
        ImportError: a worker cannot import longlag, or what an experiment is made of; the package
            of a log is missing.
        ChildProcessError: a run lost four workers, or the executor failed.
        ValueError, CheckpointError, DiskError: as `carry_out`; the first failure ends the sweep.
    """
    require_log_packages(logs)
    try:
        with _executor(workers) as executor, _mark(folder) as mark, Bars(jobs, folder) as bars:
            calls = {
                name: bytes(Job.of(name, job, folder, mark, logs)) for name, job in jobs.items()
            }
            return _carry_out_all(calls, executor, bars)
    except KeyboardInterrupt:
        console.print("\nstopped; repeat the command to resume")
        sys.exit(130)


def _carry_out_all(
    calls: Mapping[str, bytes], executor: Executor, bars: Bars
) -> dict[str, Results]:
    results: dict[str, Results] = {}
    deaths: Counter[str] = Counter()
    pending: dict[Future[Outcome], str] = {}
    try:
        for name, call in calls.items():
            pending[executor.submit(pickle.loads, call)] = name
        while pending:
            for future in wait(pending, LOOK_SECONDS, FIRST_COMPLETED).done:
                name = pending.pop(future)
                outcome = _outcome(future, name)
                if outcome is not None:
                    results[name] = outcome
                    bars.finish(name, outcome)
                    continue
                deaths[name] += 1
                if deaths[name] > DEATHS:
                    raise ChildProcessError(
                        f"run {name}: {deaths[name]} workers died of it, perhaps for want of "
                        "memory. Repeat the command to resume from what it saved"
                    )
                pending[executor.submit(pickle.loads, calls[name])] = name
            bars.look()
    except BrokenExecutor as error:
        raise ChildProcessError(
            f"the executor is broken: {error} Repeat the command to resume"
        ) from error
    finally:
        for future in pending:
            future.cancel()
    return {name: results[name] for name in calls}


def _outcome(future: Future[Outcome], name: str) -> Results | None:
    """The results of a run, or None if its worker died."""
    try:
        results, error = future.result()
    except BrokenExecutor:
        return None
    except ImportError as error:
        raise ImportError(f"a worker has no longlag: {error}") from error
    except Exception as error:  # as the executor has it
        raise ChildProcessError(f"run {name}: {type(error).__name__}: {error}") from error
    if error is not None:
        raise error
    return results


@contextlib.contextmanager
def _executor(workers: Workers) -> Iterator[Executor]:
    if isinstance(workers, Executor):
        yield workers
    elif isinstance(workers, str):
        with connect(workers) as executor:
            yield executor
    else:
        with LocalPool(places(workers)) as pool:
            try:
                yield pool
            except BaseException:
                # At once: what the workers saved is where the next sweep goes on.
                pool.terminate()
                raise


@contextlib.contextmanager
def _mark(folder: Path) -> Iterator[Path]:
    """A file that is there as long as the sweep. A worker whose sweep is over saves and leaves."""
    for left in folder.glob(".sweep-*"):
        with held_lock(left, lambda: True):
            pass  # it was left by a process that was killed: the lock is free, and removed here
    mark = folder / f".sweep-{uuid.uuid4().hex}"
    with held_lock(mark):
        yield mark
