"""The run folder: configuration, environment, metrics and checkpoints of one run.

`config.json` is what the user chose, `env.json` what it ran on, `metrics.jsonl` one JSON object per
line, `checkpoints/` what a resume starts from. The folder appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import errno
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from longlag.runs import checkpoint
from longlag.system.atomic_files import replace_file, sync_folder, write_file, writing
from longlag.system.machine import environment

__all__ = ["RunFolder", "lock_file", "run_name"]

CONFIG = "config.json"
ENV = "env.json"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """One run on the disk. Make it by `create`, `create_named` or `open`.

    Attributes:
        path: the folder.
        config: what `config.json` holds.
    """

    path: Path
    config: dict[str, Any]

    @property
    def metrics_file(self) -> Path:
        """The path of `metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, as `checkpoint.restore` takes it."""
        return self.path / "checkpoints"

    @property
    def env(self) -> dict[str, Any]:
        """The contents of `env.json`. Empty if there is no such file."""
        try:
            return json.loads((self.path / ENV).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    @classmethod
    def create(
        cls, path: Path, config: Mapping[str, Any], notes: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Makes a new run folder.

        It is filled aside and renamed, so nobody ever sees half of it.

        Args:
            path: the folder, which must not exist; its parents are made.
            config: what the run was configured with; numpy and jax values are allowed in it.
            notes: what `env.json` holds besides the environment.

        Raises:
            ValueError: the path exists already.
            DiskError: the disk refused.
        """
        aside = path.parent / f".{path.name}.{os.getpid()}.partial"
        plain = _to_plain(config)
        with writing("a new run folder", path):
            _refuse_existing(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.mkdir()
                write_file(aside / CONFIG, json.dumps(plain, indent=2) + "\n")
                env = environment() | dict(notes or {})
                write_file(aside / ENV, json.dumps(env, indent=2) + "\n")
                write_file(aside / "metrics.jsonl", "")
                (aside / "checkpoints").mkdir()
                sync_folder(aside)
                _rename_new(aside, path)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            sync_folder(path.parent)
        return cls(path, plain)

    @classmethod
    def create_named(
        cls,
        root: Path,
        name: str,
        config: Mapping[str, Any],
        notes: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Makes `root/name`, or `name-2`, `name-3` and so on where that exists; see `create`.

        Raises:
            DiskError: the disk refused.
        """
        for count in itertools.count(1):
            path = root / (name if count == 1 else f"{name}-{count}")
            try:
                return cls.create(path, config, notes)
            except _ExistsError:
                continue
        raise AssertionError  # itertools.count never ends

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Opens an existing run folder; changes nothing in it.

        Raises:
            ValueError: there is no such folder (the nearest name is offered), it is not a run
                folder, or its `config.json` cannot be read.
        """
        if not path.is_dir():
            kind = "a file" if path.exists() else "nothing"
            raise ValueError(f"expected a run folder at {path}; got {kind}.{_nearest(path)}")
        file = path / CONFIG
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(
                f"expected a run folder at {path}; got a folder without {CONFIG}"
            ) from error
        except OSError as error:
            raise ValueError(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:  # JSON, or not even text
            raise ValueError(f"expected JSON in {file}; got: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"expected a JSON object in {file}; got {type(config).__name__}")
        return cls(path, config)

    def require_same(
        self, config: Mapping[str, Any], stored: Mapping[str, Any] | None = None
    ) -> None:
        """Checks that a configuration is the one that the run was made with.

        Args:
            config: what was asked for.
            stored: the run's configuration as it is read today, with the options that have come
                since; None: as it was written.

        Raises:
            ValueError: names each entry that differs, with expected and got.
        """
        requested = json.loads(json.dumps(_to_plain(config)))
        expected = self.config if stored is None else json.loads(json.dumps(_to_plain(stored)))
        differences = list(_differences(expected, requested))
        if differences:
            raise ValueError(
                f"{self.path} was made with another configuration:\n  " + "\n  ".join(differences)
            )

    def replace_config(self, config: Mapping[str, Any]) -> RunFolder:
        """Replaces `config.json`. The old one stays until the new one is complete.

        Raises:
            DiskError: the disk refused; the old one is there.
        """
        plain = _to_plain(config)
        with writing("the configuration", self.path / CONFIG):
            replace_file(self.path / CONFIG, json.dumps(plain, indent=2) + "\n")
            sync_folder(self.path)
        return dataclasses.replace(self, config=plain)

    def note_mesh(self, step: int, mesh: Mapping[str, int] | None, processes: int) -> None:
        """Records in `env.json` which devices train from a step on, if they changed.

        Args:
            step: how many steps were taken before.
            mesh: how many devices each axis has; None: one device, which is no mesh.
            processes: how many processes have them.

        Raises:
            DiskError: the disk refused; the old file is there.
        """
        env = self.env
        notes = env.get("meshes", [])
        note = {"mesh": mesh, "processes": processes}
        last = notes[-1] if notes else {"mesh": None, "processes": 1}
        if note.items() <= last.items():
            return
        env["meshes"] = [*notes, {"from_step": step, **note}]
        with writing("the environment", self.path / ENV):
            replace_file(self.path / ENV, json.dumps(env, indent=2) + "\n")

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends one line per mapping to `metrics.jsonl`: all of them or, on an error, none.

        Equal numbers give equal bytes: `step` comes first, the other keys in alphabetical order,
        floats in their shortest exact form. JSON knows no NaN and no infinity: they become null.

        Append the metrics of a step before `save` is called for it: what comes later does not
        survive a resume.

        Raises:
            ValueError: a line has no integer `step`.
            DiskError: the disk refused; the file is as it was before.
        """
        data = b"".join(map(_encode, lines))
        with (
            writing("the metrics", self.metrics_file),
            self.metrics_file.open("ab", buffering=0) as file,
        ):
            start = os.fstat(file.fileno()).st_size
            try:
                written = 0
                while written < len(data):  # a disk that fills up takes a part first
                    written += file.write(data[written:])
            except BaseException:
                file.truncate(start)
                raise

    def save(self, step: int, tree: Any, *, keep: int = 2) -> Path:
        """Saves a checkpoint (`checkpoint.save`), after the disk has every metrics line before it.

        Raises:
            ValueError, DiskError: as `checkpoint.save`.
        """
        with writing("the metrics", self.metrics_file), self.metrics_file.open("rb") as file:
            os.fsync(file.fileno())
        return checkpoint.save(self.checkpoints, step, tree, keep=keep)

    def resume(self, like: Any) -> checkpoint.Restored:
        """Restores the newest intact checkpoint, and cuts `metrics.jsonl` to its step.

        Raises:
            ValueError, CheckpointError: as `checkpoint.restore`; the metrics are as they were.
            DiskError: the disk refused.
        """
        restored = checkpoint.restore(self.checkpoints, like)
        self.truncate(restored.step)
        return restored

    def truncate(self, step: int) -> None:
        """Cuts `metrics.jsonl` at the first line with a step beyond `step`, for a resume there.

        A last line without its end, left by a process that was killed, goes too. `truncate(-1)`
        empties the file. This needs no space on the disk.

        Raises:
            ValueError: a line before the cut is not a metrics line; names it.
            DiskError: the disk refused.
        """
        with writing("the metrics", self.metrics_file), self.metrics_file.open("r+b") as file:
            up_to_step = itertools.takewhile(
                lambda pair: pair[0]["step"] <= step, self._parse(file)
            )
            file.truncate(sum(len(data) for _, data in up_to_step))
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Reads `metrics.jsonl`, without an incomplete last line.

        Raises:
            ValueError: another line is not a metrics line; names it.
            OSError: the file cannot be read.
        """
        with self.metrics_file.open("rb") as file:
            return [line for line, _ in self._parse(file)]

    def _parse(self, file: Iterable[bytes]) -> Iterable[tuple[dict[str, Any], bytes]]:
        for number, data in enumerate(file, 1):
            if not data.endswith(b"\n"):
                return
            try:
                line = json.loads(data)
                if not isinstance(line["step"], int):
                    raise TypeError("step")
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{self.metrics_file}, line {number}: expected a JSON object with a step; got "
                    f"{data[:60]!r}"
                ) from error
            yield line, data


def run_name(*parts: str, when: datetime.datetime | None = None) -> str:
    """Returns a name for a run: the local time, then the parts that tell runs apart.

    Args:
        *parts: the names of task, cell and attention.
        when: the time; now if None.
    """
    when = when or datetime.datetime.now()
    words = (re.sub(r"[^a-z0-9]+", "-", part.lower()) for part in parts)
    return "-".join([when.strftime("%Y%m%d-%H%M%S"), *(word.strip("-") for word in words)])


def lock_file(path: Path) -> Path:
    """The file beside a run folder whose lock a process holds while it writes in the folder.

    Args:
        path: of the folder, which may be still to be made.
    """
    path = path.resolve()  # two processes may name one folder in two ways
    return path.with_name(f".{path.name}.lock")


class _ExistsError(ValueError):
    """A run folder cannot be made where something exists."""


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise _ExistsError(
            f"expected a new run folder; {path} exists already and is left as it is. Choose "
            f"another name, or go on with that run by --resume {path}"
        )


def _rename_new(aside: Path, path: Path) -> None:
    # Between the first look and here another process may have made the folder. A rename fails on
    # one with something in it, and an empty one holds nothing that could be lost.
    _refuse_existing(path)
    try:
        aside.rename(path)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            _refuse_existing(path)
        raise


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [other.name for other in path.parent.iterdir() if (other / CONFIG).is_file()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def _to_plain(value: Any) -> Any:
    """Turns numpy and jax values, tuples and paths into what JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    return str(value) if isinstance(value, Path) else value


def nonfinite_to_none(value: Any) -> Any:
    """Replaces NaN and infinities in mappings and lists by None: JSON knows neither."""
    if isinstance(value, Mapping):
        return {key: nonfinite_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nonfinite_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encode(line: Mapping[str, Any]) -> bytes:
    plain = nonfinite_to_none(_to_plain(line))
    step = plain.pop("step", None)
    if isinstance(step, bool) or not isinstance(step, int):
        raise ValueError(f"expected a metrics line with an integer step; got {dict(line)!r}")
    ordered = {"step": step, **dict(sorted(plain.items()))}
    return (json.dumps(ordered, allow_nan=False) + "\n").encode()


def _differences(expected: Any, requested: Any, name: str = "") -> Iterable[str]:
    if isinstance(expected, dict) and isinstance(requested, dict):
        for key in sorted(expected.keys() | requested.keys()):
            inner = f"{name}.{key}" if name else key
            yield from _differences(expected.get(key, _ABSENT), requested.get(key, _ABSENT), inner)
    elif expected != requested:
        yield f"{name}: expected {_show(expected)}; got {_show(requested)}"


_ABSENT = object()


def _show(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value)
