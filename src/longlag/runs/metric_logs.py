"""Metrics of a run in TensorBoard and in Weights & Biases, beside its `metrics.jsonl`.

A log repeats what the run folder holds. So a process that starts or resumes a run begins its logs
with every line of `metrics.jsonl`, and no point is there twice. An online run of Weights & Biases
is the exception: its server has the earlier points, and they are left out.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from longlag.runs.folder import RunFolder
from longlag.runs.lifecycle import Progress
from longlag.system.console import console
from longlag.system.hosts import is_first
from longlag.system.optional_packages import check

__all__ = ["LogName", "MetricLogs", "require_log_packages"]

LogName = Literal["tensorboard", "wandb"]
# The distribution that each log needs. The extra of longlag has the name of the log.
PACKAGES: dict[LogName, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}
SCORES = ("accuracy", "exact_match", "loss")

Scalars = Mapping[str, float]


def require_log_packages(names: Iterable[LogName]) -> None:
    """Checks, before anything is trained, that the package of each log is installed.

    Raises:
        ValueError: a name is unknown.
        ImportError: a package is missing; says what to install.
    """
    for name in names:
        if name not in PACKAGES:
            raise ValueError(f"log: expected one of {', '.join(get_args(LogName))}; got {name!r}")
        check(PACKAGES[name], extra=name)


class MetricLogs:
    """The logs of one run, open inside a `with` block.

    Process 0 alone writes them. A log that fails is closed with one message, and the training
    continues without it.

    Args:
        folder: the run. `tensorboard/` and `wandb/` are made in it.
        names: which logs; none: nothing is written.
    """

    def __init__(self, folder: RunFolder, names: Sequence[LogName] = ()) -> None:
        self._folder = folder
        self._names = tuple(dict.fromkeys(names)) if is_first() else ()
        self._logs: dict[str, _Log] = {}
        self._has_begun = False

    def __enter__(self) -> MetricLogs:
        for name in self._names:
            with self._attempt(name):
                self._logs[name] = _KINDS[name](self._folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name, log in [*self._logs.items()]:
            with self._attempt(name):
                log.close(failed=kind is not None)

    def add(self, progress: Progress) -> None:
        """Logs the metrics of a dispatch, the first time with those of all dispatches before.

        Pass it every `Progress` of `carry_out`.
        """
        if not self._logs:
            return
        # Only now: before the first dispatch `carry_out` cuts the metrics to the checkpoint.
        lines = progress.lines if self._has_begun else self._folder.metrics()
        self._has_begun = True
        for step, values in _by_step(lines):
            self._for_each(lambda log, step=step, values=values: log.add(step, values))
        self._for_each(lambda log: log.flush())

    def conclude(self, results: Mapping[str, Any]) -> None:
        """Logs the results of a finished run: every test score, by lag and seed.

        Args:
            results: what `carry_out` returned.
        """
        step, scores = _test_scores(results)
        self._for_each(lambda log: log.conclude(step, scores))

    def _for_each(self, call: Callable[[_Log], None]) -> None:
        for name, log in [*self._logs.items()]:
            with self._attempt(name):
                call(log)

    @contextlib.contextmanager
    def _attempt(self, name: str) -> Iterator[None]:
        try:
            yield
        # Whatever goes wrong in a package of others is no reason to lose a training.
        except Exception as error:
            if log := self._logs.pop(name, None):
                with contextlib.suppress(Exception):
                    log.close(failed=True)
            console.print(
                f"log {name}: stopped after an error, and the training continues without it "
                f"({type(error).__name__}: {error})",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


class _Log(Protocol):
    """Where scalars go. Steps come in order, each once."""

    def add(self, step: int, values: Scalars) -> None: ...

    def flush(self) -> None: ...

    def conclude(self, step: int, scores: Scalars) -> None: ...

    def close(self, failed: bool) -> None: ...


class _TensorBoard:
    """One event file, written anew by each process that trains the run."""

    def __init__(self, folder: RunFolder) -> None:
        # `SummaryWriter` writes in a thread. On a full disk the thread ends, and the next call
        # waits for it for ever. This is what it writes by.
        from tensorboardX import summary
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import RecordWriter

        # Modules that protobuf makes, of which type checkers see nothing.
        events: Any = event_pb2
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        path = folder.path / "tensorboard"
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        path.mkdir()
        # TensorBoard finds files by this name.
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._writer = RecordWriter(str(path / name))
        self._write(0, file_version="brain.Event:2")
        # A TensorBoard that shows the file before this one drops its points.
        self._write(0, session_log=events.SessionLog(status=events.SessionLog.START))
        config = "```json\n" + json.dumps(folder.config, indent=1) + "\n```"
        self._write(0, summary=summary.text("config", config))

    def add(self, step: int, values: Scalars) -> None:
        # `tensorboardX.summary.scalar` prints a warning for every NaN.
        scalars = [self._summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        self._write(step, summary=self._summary(value=scalars))

    def flush(self) -> None:
        self._writer.flush()

    def conclude(self, step: int, scores: Scalars) -> None:
        self.add(step, scores)
        self.flush()

    def close(self, failed: bool) -> None:
        del failed
        self._writer.close()

    def _write(self, step: int, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **fields)
        self._writer.write(event.SerializeToString())


class _WeightsAndBiases:
    """One run of Weights & Biases with the same id for as long as the run folder exists.

    Its project, mode and server are those of the environment (`WANDB_PROJECT`, `WANDB_MODE`, ...).
    """

    def __init__(self, folder: RunFolder) -> None:
        import wandb

        path = folder.path / "wandb"
        path.mkdir(exist_ok=True)
        name = _stored_id(path / "run-id")
        for earlier in path.glob(f"offline-run-*-{name}"):
            shutil.rmtree(earlier, ignore_errors=True)  # its service may still write debug logs
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "longlag"),
            dir=str(folder.path),
            id=name,
            name=os.environ.get("WANDB_NAME", folder.path.resolve().name),
            resume="allow",
            config=folder.config,
            allow_val_change=True,  # a run may be resumed with more steps
            settings=wandb.Settings(console="off"),  # the bars stay whole
        )

    def add(self, step: int, values: Scalars) -> None:
        if step >= self._run.starting_step:  # the server has those before
            self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Nothing: another process writes."""

    def conclude(self, step: int, scores: Scalars) -> None:
        del step
        self._run.summary.update(dict(scores))

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


_KINDS: dict[LogName, Callable[[RunFolder], _Log]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}


def _stored_id(file: Path) -> str:
    if not file.is_file():
        file.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _by_step(lines: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, Scalars]]:
    """The metrics of all seeds at each step, named "accuracy/seed_0" (`_name_state`)."""
    steps: dict[int, dict[str, float]] = {}
    for line in lines:
        values = steps.setdefault(line["step"], {})
        for key, value in line.items():
            if key not in ("step", "seed", "rate"):
                values[f"{key}/{_name_state(line)}"] = _number(value)
    return steps.items()


def _name_state(line: Mapping[str, Any]) -> str:
    """The name "seed_0" or, of a grid of learning rates, "rate_0.001/seed_0"."""
    rate = f"rate_{line['rate']:g}/" if "rate" in line else ""
    return f"{rate}seed_{line['seed']}"


def _test_scores(results: Mapping[str, Any]) -> tuple[int, Scalars]:
    """The last step of any seed, and the scores, named "test_accuracy/lag_60/seed_0"."""
    scores = {
        f"test_{key}/lag_{row['lag']}/{_name_state(row)}": _number(row[key])
        for row in results["rows"]
        for key in SCORES
    }
    return max(row["steps"] for row in results["rows"]), scores


def _number(value: float | None) -> float:
    """A float: JSON has None where it is not finite."""
    return math.nan if value is None else float(value)
