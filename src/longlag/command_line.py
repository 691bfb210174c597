"""The command line of the experiments, made from the dataclasses that they configure."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.markup import escape

from longlag.experiment import (
    Architecture,
    Experiment,
    cell_class,
    task_class,
)
from longlag.spec import choose
from longlag.training import Training

__all__ = ["CACHE", "cache_compilations", "console", "parse", "plain_errors"]

console = Console()

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "longlag" / "compilations"


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    JAX_COMPILATION_CACHE_DIR, if it is set, names another folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns an error of the user's, or of the disk, into one message and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)


def parse(
    argv: Sequence[str], prog: str, description: str, defaults: Experiment
) -> tuple[Experiment, Any]:
    """Reads an experiment from a command line.

    The names of task and cell are looked at first, since which options there are depends on them;
    tyro then reads all the rest from the fields of task, cell, `Architecture` and `Training`.

    Args:
        argv: the arguments, without the program.
        prog: how the program is called, for `--help`.
        description: what `--help` says first.
        defaults: what is run without arguments.

    Returns:
        The experiment, and the parsed `resume` and `out`, as attributes.

    Raises:
        ValueError: an unknown name, an impossible value.
        SystemExit: `--help` (0) or a malformed command line (2).
    """
    given = defaults.config()
    task_name = _peek(argv, "task", given["task"]["name"])
    cell_name = _peek(argv, "cell", given["cell"]["name"] if given["cell"] else "none")
    task_cls = task_class(task_name)
    cell_cls = None if cell_name == "none" else cell_class(cell_name)
    task = defaults.task if type(defaults.task) is task_cls else task_cls()
    cell = defaults.cell if type(defaults.cell) is cell_cls else None
    width = _peek(argv, "width", str(defaults.architecture.width))
    if cell is None and cell_cls is not None and width.isdecimal():
        cell = cell_cls(features=int(width))  # type: ignore[call-arg]
    elif cell is not None and width.isdecimal():
        cell = dataclasses.replace(cell, features=int(width))  # type: ignore[type-var, call-arg]

    arg, omit = tyro.conf.arg, tyro.conf.OmitArgPrefixes
    fields: list[Any] = [
        ("task_name", Annotated[str, arg(name="task", help=_TASK_HELP)], task_name),
        ("cell_name", Annotated[str, arg(name="cell", help=_CELL_HELP)], cell_name),
        ("architecture", Annotated[Architecture, omit], defaults.architecture),
        ("training", Annotated[Training, omit], defaults.training),
        ("seeds", Annotated[int, arg(help="how many seeds, side by side")], defaults.seeds),
        ("test_lags", Annotated[tuple[int, ...], arg(help=_LAGS_HELP)], defaults.test_lags),
        ("resume", Annotated[Path | None, arg(help=_RESUME_HELP)], None),
        ("out", Annotated[Path | None, arg(help=_OUT_HELP)], None),
        ("task", Annotated[task_cls, arg(help=f"Dials of the task {task_name}.")], task),
    ]
    if cell is not None:
        fields.append(
            ("cell", Annotated[type(cell), arg(help=f"Fields of the cell {cell_name}.")], cell)
        )
    for prefix, spec in (("", Architecture), ("", Training), ("task.", task_cls)):
        _offer_nearest(argv, prefix, spec)
    if cell is not None:
        _offer_nearest(argv, "cell.", type(cell))
    command = dataclasses.make_dataclass("Command", fields, frozen=True)
    read: Any = tyro.cli(command, prog=prog, description=description, args=list(argv))
    experiment = Experiment(
        task=read.task,
        cell=getattr(read, "cell", None),
        architecture=read.architecture,
        training=read.training,
        seeds=read.seeds,
        test_lags=read.test_lags,
    )
    return experiment, read


def _offer_nearest(argv: Sequence[str], prefix: str, spec: type) -> None:
    """Refuses a wrong choice with the nearest right one, which tyro's own message lacks."""
    for name, hint in typing.get_type_hints(spec).items():
        if typing.get_origin(hint) is typing.Literal:
            option = prefix + name.replace("_", "-")
            options = [str(value) for value in typing.get_args(hint)]
            choose(_peek(argv, option, options[0]), options, f"--{option}")


def _peek(argv: Sequence[str], name: str, default: str) -> str:
    """The value of one option, before the options are known."""
    for i, word in enumerate(argv):
        if word == f"--{name}" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return default


_TASK_HELP = "which memory task; --list names them all; its dials are the --task.* options"
_CELL_HELP = (
    "which recurrence: a name from --list, path/to/file.py:Class for a cell of your own, or none "
    "(attention only); its fields are the --cell.* options"
)
_LAGS_HELP = (
    "lags to test at besides the training lag; none given: 2 and 4 times that lag, where the task "
    "allows them"
)
_RESUME_HELP = "go on with the run in this folder; it must have the same configuration"
_OUT_HELP = "the run folder to make (default: runs/TIME-TASK-CELL-ATTENTION)"
