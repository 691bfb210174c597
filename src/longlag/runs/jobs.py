"""The job of a worker in a sweep, in a process of this machine or of any other.

A worker takes `pickle.loads` and bytes, which every Python has. So a worker without longlag says so
as the error of a job, where one that cannot read the message itself would stay silent.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import pickle
import platform
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from longlag.core.spec import Spec
from longlag.runs.checkpoint import CheckpointError
from longlag.runs.experiment import Experiment
from longlag.runs.folder import lock_file
from longlag.runs.lifecycle import carry_out, create, reopen
from longlag.runs.metric_logs import LogName, MetricLogs
from longlag.runs.registry import (
    Source,
    cell_class,
    import_source,
    own_line,
    own_sources,
    task_class,
)
from longlag.system.allocator import keep_freed_memory
from longlag.system.atomic_files import DiskError
from longlag.system.console import cache_compilations
from longlag.system.devices import may_have_accelerators
from longlag.system.file_lock import held_lock
from longlag.system.interrupt import Interruption
from longlag.system.local_pool import QUICK_COMPILING
from longlag.system.machine import PACKAGES, version
from longlag.system.xla_flags import prepend_flags

__all__ = ["Call", "Job", "Outcome", "Results", "require_versions", "run_job", "versions"]

Results = dict[str, Any]
# The results, or None if the sweep was over before them; and the error in their place.
Outcome = tuple[Results | None, Exception | None]


class Call(NamedTuple):
    """A function call as bytes: `pickle.loads` executes it and returns its result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments

    def __bytes__(self) -> bytes:
        return pickle.dumps(self)


@dataclasses.dataclass(frozen=True)
class Job:
    """One experiment of a sweep, as it is sent to a worker.

    Attributes:
        name: of the run folder.
        folder: where the run folders are, absolute.
        mark: a file that is there as long as the sweep.
        versions: of the process that made it.
        sources: the user's own files by "task" and "cell".
        experiment: pickled, to be read once the sources are imported.
        logs: where its metrics go besides, see `MetricLogs`.
    """

    name: str
    folder: Path
    mark: Path
    versions: dict[str, str | None]
    sources: dict[str, Source]
    experiment: bytes
    logs: tuple[LogName, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        experiment: Experiment,
        folder: Path,
        mark: Path,
        logs: tuple[LogName, ...] = (),
    ) -> Job:
        """Packs an experiment, with the text of the user's own task and cell."""
        task = _importable(experiment.task, task_class)
        cell = experiment.cell and _importable(experiment.cell, cell_class)
        experiment = dataclasses.replace(experiment, task=task, cell=cell)
        sources = {what: s for what, s in own_sources(task, cell).items() if s.own}
        paths, pickled = (folder.absolute(), mark.absolute()), pickle.dumps(experiment)
        return cls(name, *paths, versions(), sources, pickled, logs)

    def __bytes__(self) -> bytes:
        return bytes(Call(_work, (self,)))


def run_job(
    name: str,
    experiment: Experiment,
    folder: Path,
    stop: Interruption | None = None,
    logs: tuple[LogName, ...] = (),
) -> Results | None:
    """Runs one experiment of a sweep in `folder / name`, unless its results are there.

    As long as another process writes there, it waits.

    Args:
        name: of the run folder.
        experiment: what to run.
        folder: where the run folder is, or will be.
        stop: looked at after every dispatch; once true, the run is saved and left.
        logs: where its metrics go besides, see `MetricLogs`.

    Returns:
        The results (`longlag.runs.results`), or None if it was stopped before its end.

    Raises:
        ValueError, CheckpointError, DiskError: as `create`, `reopen` and `carry_out`.
    """
    path = folder / name
    with held_lock(lock_file(path), lambda: bool(stop)) as held:
        if not held:
            return None
        run = reopen(experiment, path) if path.exists() else create(experiment, path, folder, name)
        file = path / "results.json"
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        with MetricLogs(run, logs) as metric_logs:
            results = carry_out(experiment, run, stop=stop, on_progress=metric_logs.add)
            if results is not None:
                metric_logs.conclude(results)
        return results


@functools.cache
def versions() -> dict[str, str | None]:
    """The versions of Python and of packages that every worker must have."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python} | {name: version(name) for name in PACKAGES}


def require_versions(expected: dict[str, str | None]) -> None:
    """Checks that a process has the versions that another one has.

    Args:
        expected: the `versions` of that process.

    Raises:
        ValueError: names each version that differs.
    """
    here = versions()
    differences = [
        f"{name}: expected {expected.get(name) or 'none'}, got {here[name] or 'none'}"
        for name in here
        if expected.get(name) != here[name]
    ]
    if differences:
        raise ValueError(
            f"a worker on {platform.node()} has other versions: {'; '.join(differences)}"
        )


class _SweepIsOver(Interruption):
    """True once the mark of the sweep is gone."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __bool__(self) -> bool:
        return not self.mark.exists()


def _work(job: Job) -> Outcome:
    """Does a job. An error is returned, so that one which is raised is the executor's."""
    try:
        require_versions(job.versions)
        _prepare()
        for what, source in job.sources.items():
            import_source(source, what)
        try:
            experiment = pickle.loads(job.experiment)
        except ImportError as error:
            raise ImportError(
                f"a worker on {platform.node()} cannot import what {job.name} is made of: {error}"
            ) from error
        stop = _SweepIsOver(job.mark)
        return run_job(job.name, experiment, job.folder, stop, job.logs), None
    except Exception as error:
        return None, _plain(error)


@functools.cache
def _prepare() -> None:
    """Makes ready a process that some executor has started, once, before jax starts."""
    keep_freed_memory()
    cache_compilations()
    flags = os.environ.get("XLA_FLAGS", "")
    if not may_have_accelerators() and not all(flag in flags for flag in QUICK_COMPILING):
        prepend_flags(QUICK_COMPILING)


def _plain(error: Exception) -> Exception:
    """An error that any process can read, with the line of the user's own file that led to it."""
    line = own_line(error)
    kinds = (CheckpointError, DiskError, ValueError, OSError, ImportError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), None)
    plain: Exception
    if kind is not None:
        plain = kind(str(error))
    elif line is not None:
        plain = ValueError(f"{type(error).__name__}: {error}")
    else:
        plain = RuntimeError("".join(traceback.format_exception(error)))
    plain.own_line = line  # type: ignore[attr-defined]
    return plain


def _importable(spec: Any, of_name: Callable[[str], type[Spec]]) -> Any:
    """The same, of a class that a worker can import: one of the script being run is not."""
    if type(spec).__module__ != "__main__":
        return spec
    cls: Any = of_name(f"{inspect.getfile(type(spec))}:{type(spec).__name__}")
    return cls(**{field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)})
