"""Tasks and cells by name, on the command line and in `config.json`: the library's, or your own."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from longlag import cells as cells_module
from longlag import tasks as tasks_module
from longlag.core.cell import Cell
from longlag.core.spec import choose
from longlag.tasks import Task

__all__ = [
    "cell_class",
    "cell_name",
    "cell_names",
    "kebab",
    "own_files",
    "own_line",
    "task_class",
    "task_name",
    "task_names",
]

USER_MODULE = "longlag_user_"


def task_names() -> dict[str, type[Task]]:
    """The tasks by the name that the command line knows them by."""
    return _classes(tasks_module, Task)


def cell_names() -> dict[str, type[Cell]]:
    """The cells of the library by the name that the command line knows them by."""
    return _classes(cells_module, Cell)


def task_class(name: str, folder: Path | None = None) -> type[Task]:
    """The task of a name, or of one's own file; as `cell_class`, the copy being `task.py`."""
    return _class(name, "task", Task, task_names(), folder)


def cell_class(name: str, folder: Path | None = None) -> type[Cell]:
    """The cell of a name, or of one's own file.

    Args:
        name: a name of the library, or `path/to/file.py:Class`.
        folder: a run folder; if it holds `cell.py`, this copy is read in place of the file.

    Raises:
        ValueError: an unknown name, a missing file or class, a file that fails to import.
    """
    return _class(name, "cell", Cell, cell_names(), folder)


def task_name(cls: type[Task]) -> str:
    """The name of a task: of the library, or `file.py:Class`."""
    return _name(cls, task_names())


def cell_name(cls: type[Cell]) -> str:
    """The name of a cell: of the library, or `file.py:Class`."""
    return _name(cls, cell_names())


def own_files(task: Task, cell: Cell | None) -> dict[str, Path]:
    """The user's own files that these come from, by "task" and "cell": none for the library's."""
    named = {"task": (task, task_names()), "cell": (cell, cell_names())}
    files = {}
    for what, (made, known) in named.items():
        if made is not None and type(made) not in known.values():
            source = inspect.getsourcefile(type(made))
            if source is not None:
                files[what] = Path(source)
    return files


def own_line(error: BaseException) -> str | None:
    """Where in a user's own file an error was raised or passed through, `file.py:LINE, in NAME`."""
    own = {str(m.__file__) for name, m in sys.modules.items() if name.startswith(USER_MODULE)}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
    return f"{frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else None


def _class(name: str, what: str, base: type, known: Mapping[str, Any], folder: Path | None) -> Any:
    """The class of a name of the library, or of the user's own file or its copy in a run folder."""
    file, colon, class_name = name.rpartition(":")
    if not colon:
        if name.endswith(".py"):
            raise ValueError(f"{what}: expected a class of the file, {name}:MyClass; got {name}")
        return known[choose(name, known, what)]
    path = Path(file)
    if folder is not None and (folder / f"{what}.py").is_file():
        path = folder / f"{what}.py"
    module = _module(path.resolve(), what)
    classes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    }
    return classes[choose(class_name, classes, f"{what} in {path}")]


def _name(cls: type, known: Mapping[str, type]) -> str:
    name = kebab(cls.__name__)
    return name if known.get(name) is cls else f"{inspect.getfile(cls)}:{cls.__name__}"


def _module(path: Path, what: str) -> ModuleType:
    """Imports a user's file. The same text is imported once, so that its classes stay equal."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what}: cannot read {path}: {error.strerror}") from error
    # Dataclasses, type hints and `inspect` look a class's module up in sys.modules by its name.
    name = f"{USER_MODULE}{hashlib.sha256(bytes(path) + b':' + text).hexdigest()[:16]}"
    if name not in sys.modules:
        module = sys.modules[name] = ModuleType(name)
        module.__file__ = str(path)
        try:
            # Not by an import, which would leave __pycache__ beside the file.
            exec(compile(text, path, "exec"), vars(module))
        except BaseException as error:
            del sys.modules[name]
            if not isinstance(error, Exception):
                raise
            raise ValueError(
                f"{what}: {path} fails to import: {type(error).__name__}: {error}"
                f"{_name_failing_line(error, path)}"
            ) from error
    return sys.modules[name]


def _name_failing_line(error: Exception, path: Path) -> str:
    """The line of a file at which an import failed, in words; a syntax error says it itself."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def _classes(module: ModuleType, base: type) -> dict[str, Any]:
    return {
        kebab(name): value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }


def kebab(name: str) -> str:
    """Turns "CopyMemory" into "copy-memory", "MinGRU" into "min-gru", "LSTM" into "lstm"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
