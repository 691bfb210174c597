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
from typing import Any, NamedTuple

from longlag import cells as cells_module
from longlag import tasks as tasks_module
from longlag.core.cell import Cell
from longlag.core.spec import choose
from longlag.tasks import Task

__all__ = [
    "Source",
    "cell_class",
    "cell_name",
    "cell_names",
    "import_source",
    "kebab",
    "own_line",
    "own_sources",
    "task_class",
    "task_name",
    "task_names",
]

USER_MODULE = "longlag_user_"
# The text of each such module, as it was imported: the file may be another by now.
_texts: dict[str, bytes] = {}


def task_names() -> dict[str, type[Task]]:
    """The tasks of the library, by their name on the command line."""
    return _classes(tasks_module, Task)


def cell_names() -> dict[str, type[Cell]]:
    """The cells of the library, by their name on the command line."""
    return _classes(cells_module, Cell)


def task_class(name: str, folder: Path | None = None) -> type[Task]:
    """Finds the task class of a name, or of a user's own file (see `cell_class`; `task.py`)."""
    return _class(name, "task", Task, task_names(), folder)


def cell_class(name: str, folder: Path | None = None) -> type[Cell]:
    """Finds the cell class of a name, or of a user's own file.

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


class Source(NamedTuple):
    """A file of the user's own that a task or a cell comes from.

    Attributes:
        path: of the file, on the machine where it was read.
        text: what it holds.
        own: whether it was imported as a file of its own, and not as a part of a package.
    """

    path: Path
    text: bytes
    own: bool


def own_sources(task: Task, cell: Cell | None) -> dict[str, Source]:
    """The user's own files of a task and a cell, by "task" and "cell". None for the library's."""
    named = {"task": (task, task_names()), "cell": (cell, cell_names())}
    sources = {}
    for what, (made, known) in named.items():
        if made is not None and type(made) not in known.values():
            name = type(made).__module__
            if name in _texts:
                sources[what] = Source(Path(str(sys.modules[name].__file__)), _texts[name], True)
            elif (file := inspect.getsourcefile(type(made))) is not None:
                sources[what] = Source(Path(file), Path(file).read_bytes(), False)
    return sources


def own_line(error: BaseException) -> str | None:
    """Finds the line of a user's own file that led to an error, as `file.py:LINE, in NAME`.

    An error that comes from another process has it as its attribute `own_line`.
    """
    own = {str(m.__file__) for name, m in sys.modules.items() if name.startswith(USER_MODULE)}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
    if frames:
        return f"{frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}"
    return getattr(error, "own_line", None)


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
    try:
        source = Source(path.resolve(), path.read_bytes(), True)
    except OSError as error:
        raise ValueError(f"{what}: cannot read {path.resolve()}: {error.strerror}") from error
    module = import_source(source, what)
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


def import_source(source: Source, what: str) -> ModuleType:
    """Imports a user's file. The same text is imported once, so that its classes stay equal.

    The file need not be on this machine.

    Args:
        source: the file.
        what: "task" or "cell", for the message.

    Raises:
        ValueError: it fails to import; names the line.
    """
    path, text, _ = source
    # Dataclasses, type hints and `inspect` look a class's module up in sys.modules by its name.
    name = f"{USER_MODULE}{hashlib.sha256(bytes(path) + b':' + text).hexdigest()[:16]}"
    if name not in sys.modules:
        module = sys.modules[name] = ModuleType(name)
        module.__file__, _texts[name] = str(path), text
        try:
            # Not by an import, which would leave __pycache__ beside the file.
            exec(compile(text, path, "exec"), vars(module))
        except BaseException as error:
            del sys.modules[name], _texts[name]
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
