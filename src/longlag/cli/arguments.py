"""Command lines, made from the dataclasses that they configure."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.markup import escape

from longlag.core.cell import Cell
from longlag.core.spec import choose
from longlag.runs.architectures import Architecture
from longlag.runs.experiment import Experiment
from longlag.runs.metric_logs import LogName
from longlag.runs.registry import cell_class, own_line, task_class
from longlag.system.hosts import joined
from longlag.training.config import Training
from longlag.training.optax_by_name import Options, freeze, optimizers, schedule_names

__all__ = ["call", "join_processes", "parse", "peek", "plain_errors"]

# tyro is imported where a command line is read. Without it, `plain_errors` says what to install.

# How many seconds the processes of a run wait for each other.
WAIT = 300.0

# No argument of a process contains it.
_ABSENT = "\0"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns an error of the user, the disk or a missing package into one message and exit code 2.

    Any other error is one too if a line of the user's own cell or task led to it; that line is
    named.
    """
    try:
        yield
    except Exception as error:
        message, line = str(error), own_line(error)
        if not isinstance(error, (ValueError, OSError, ImportError)):
            if line is None:
                raise
            message = f"{type(error).__name__}: {message}"
        message += f" ({line})" if line else ""
        # A soft wrap leaves line breaks to the terminal, so that a path can be copied.
        text = f"[bold red]error:[/] {escape(message)}"
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)
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
        The experiment, and the parsed `mesh`, `resume`, `out` and `log`, as attributes.

    Raises:
        ValueError: an unknown name, an impossible value.
        SystemExit: `--help` (0) or a malformed command line (2).
    """
    import tyro

    config, given = defaults.config(), peek(argv, ("task", "cell"))
    task_name: str = given.get("task") or config["task"]["name"]
    cell_name: str = given.get("cell") or (config["cell"] or {"name": "none"})["name"]
    task_cls = task_class(task_name)
    task: Any = defaults.task
    if type(task) is not task_cls:
        with _complete(f"task {task_name}", "every dial"):
            task = task_cls()
    cell = None if cell_name == "none" else _cell(cell_name, argv, defaults)

    arg, omit = tyro.conf.arg, tyro.conf.OmitArgPrefixes
    fields: list[Any] = [
        ("task_name", Annotated[str, arg(name="task", help=_TASK_HELP)], task_name),
        ("cell_name", Annotated[str, arg(name="cell", help=_CELL_HELP)], cell_name),
        ("architecture", Annotated[Architecture, omit], defaults.architecture),
        ("training", Annotated[Training, omit], defaults.training),
        (
            "seeds",
            Annotated[int, arg(help="number of seeds, trained side by side")],
            defaults.seeds,
        ),
        (
            "first_seed",
            Annotated[int, arg(help="the first seed. The others are the numbers after it")],
            defaults.first_seed,
        ),
        ("rates", Annotated[tuple[float, ...], arg(help=_RATES_HELP)], defaults.rates),
        ("test_lags", Annotated[tuple[int, ...], arg(help=_LAGS_HELP)], defaults.test_lags),
        ("mesh", Annotated[str, arg(help=_MESH_HELP)], "auto"),
        ("coordinator", Annotated[str | None, arg(help=_COORDINATOR_HELP)], None),
        ("processes", Annotated[int | None, arg(help=_PROCESSES_HELP)], None),
        ("process", Annotated[int | None, arg(help="number of this process, from 0")], None),
        ("wait", Annotated[float, arg(help="seconds to wait for all processes")], WAIT),
        ("resume", Annotated[Path | None, arg(help=_RESUME_HELP)], None),
        ("out", Annotated[Path | None, arg(help=_OUT_HELP)], None),
        (
            "log",
            Annotated[tuple[LogName, ...], arg(help=_LOG_HELP), tyro.conf.UseAppendAction],
            (),
        ),
        ("task", Annotated[task_cls, arg(help=f"Fields of the task {task_name}.")], task),
    ]
    if cell is not None:
        fields.append(
            ("cell", Annotated[type(cell), arg(help=f"Fields of the cell {cell_name}.")], cell)
        )
    specs = [("", Architecture), ("", Training), ("task.", task_cls)]
    _offer_nearest(argv, specs if cell is None else [*specs, ("cell.", type(cell))])
    named = {
        "optimizer": optimizers(),
        "schedule": schedule_names(),
        "log": typing.get_args(LogName),
    }
    for option, text in peek(argv, [*named]).items():
        choose(text, named[option], f"--{option}")
    command = dataclasses.make_dataclass("Command", fields, frozen=True)
    with _options_of_optax():
        read: Any = tyro.cli(command, prog=prog, description=description, args=list(argv))
    experiment = Experiment(
        task=read.task,
        cell=getattr(read, "cell", None),
        architecture=read.architecture,
        training=read.training,
        seeds=read.seeds,
        test_lags=read.test_lags,
        first_seed=read.first_seed,
        rates=read.rates,
    )
    return experiment, read


def peek(argv: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Reads a few options of a command line before all options are known.

    Args:
        argv: the arguments, without the program.
        names: of the options, without dashes in front.

    Returns:
        The text of each option that is given. If one is given twice, the last counts.

    Raises:
        SystemExit: one of them has no value (2).
    """
    import tyro

    fields: list[Any] = [
        (f"option_{i}", Annotated[str, tyro.conf.arg(name=name)], _ABSENT)
        for i, name in enumerate(names)
    ]
    words = [word for word in argv if word not in ("-h", "--help")]
    options, _ = tyro.cli(
        dataclasses.make_dataclass("Options", fields), args=words, return_unknown_args=True
    )
    texts = zip(names, dataclasses.astuple(options))
    return {name: text for name, text in texts if text != _ABSENT}


def join_processes(argv: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """Joins the processes of a run by the options of a command line, before jax starts.

    Args:
        argv: the arguments, without the program.

    Raises:
        ValueError: a number is none; as `joined`.
    """
    options: dict[str, Any] = dict(peek(argv, ("coordinator", "processes", "process", "wait")))
    for name, number in (("processes", int), ("process", int), ("wait", float)):
        with contextlib.suppress(ValueError):  # tyro says what is wrong
            if name in options:
                options[name] = number(options[name])
    return joined(**options)


def call(function: Callable[..., int], argv: Sequence[str], prog: str, description: str) -> int:
    """Calls a function with the arguments that its signature reads from a command line.

    Args:
        function: its arguments are options, or words where they are `tyro.conf.Positional`.
        argv: the arguments, without the program.
        prog: how the program is called, for `--help`.
        description: what `--help` prints first.

    Raises:
        SystemExit: `--help` (0) or a malformed command line (2).
    """
    import tyro

    return tyro.cli(function, prog=prog, description=description, args=list(argv))


def _options_of_optax() -> Any:
    """What reads the keywords of an optimiser and of a schedule: "b1=0.95 nesterov=true"."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def options(info: Any) -> Any:
        if info.type != Options:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="KEYWORD=VALUE",
            instance_from_str=_keywords,
            is_instance=lambda value: isinstance(value, tuple | Mapping),
            str_from_instance=lambda value: [f"{key}={item!r}" for key, item in freeze(value, "")],
        )

    del options  # the registry keeps it
    return registry


def _keywords(words: list[str]) -> tuple[tuple[str, Any], ...]:
    pairs = [word.partition("=") for word in words]
    for key, equals, _ in pairs:
        if not equals:
            raise ValueError(f"expected KEYWORD=VALUE; got {key!r}")
    return tuple((key, _value(text)) for key, _, text in pairs)


def _value(text: str) -> Any:
    """A number, bool, sequence or mapping as JSON or Python writes it; else the text itself."""
    for parse_value in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return parse_value(text)
    return text


def _cell(name: str, argv: Sequence[str], defaults: Experiment) -> Cell:
    """The cell before its own options are read: as wide as the blocks, if it has `features`."""
    cls: Any = cell_class(name)
    default: Any = defaults.cell
    width = defaults.architecture.width
    with contextlib.suppress(ValueError):  # tyro will say what is wrong with the width
        width = int(peek(argv, ["width"]).get("width", width))
    if type(default) is cls and width == defaults.architecture.width:
        return default  # a run that is resumed keeps the features that it was made with
    wide = {"features": width} if any(f.name == "features" for f in dataclasses.fields(cls)) else {}
    with _complete(f"cell {name}", "every field but features"):
        return dataclasses.replace(default, **wide) if type(default) is cls else cls(**wide)


@contextlib.contextmanager
def _complete(what: str, which: str) -> Iterator[None]:
    """Says of a class of the user's own that it cannot be made as it is."""
    try:
        yield
    except TypeError as error:
        kind = what.partition(" ")[0]
        raise ValueError(
            f"{what}: expected a complete {kind} in which {which} has a default; got: {error}"
        ) from error


def _offer_nearest(argv: Sequence[str], specs: Sequence[tuple[str, type]]) -> None:
    """Refuses a wrong choice with the nearest right one, which tyro's own message lacks."""
    choices = {
        prefix + name.replace("_", "-"): [str(value) for value in typing.get_args(hint)]
        for prefix, spec in specs
        for name, hint in typing.get_type_hints(spec).items()
        if typing.get_origin(hint) is typing.Literal
    }
    for option, value in peek(argv, [*choices]).items():
        choose(value, choices[option], f"--{option}")


_TASK_HELP = (
    "memory task: a name from `longlag list`, or path/to/file.py:Class for a task of your own. "
    "The --task.* options set its fields"
)
_CELL_HELP = (
    "recurrence: a name from `longlag list`, path/to/file.py:Class for a cell of your own, or none "
    "(attention only). The --cell.* options set its fields"
)
_RATES_HELP = (
    "learning rates to try, in place of --learning-rate: --rates 1e-3 3e-3. Every seed trains at "
    "every rate, all in one program. The table has a line for each rate"
)
_LAGS_HELP = (
    "lags to test at, besides the training lag. By default 2 and 4 times that lag, if the task "
    "allows them"
)
_MESH_HELP = (
    "devices that share the work: axes such as seeds=2,data=4,time=1, auto (seeds first, then the "
    "batch), or none (one device). A run can be resumed on another mesh"
)
_COORDINATOR_HELP = (
    "HOST:PORT of process 0, if several processes carry out one run. Not needed under Slurm, MPI "
    "and Kubernetes"
)
_PROCESSES_HELP = (
    "number of processes of the run. 1 means this process alone, even under a launcher"
)
_RESUME_HELP = (
    "resume the run in this folder. Its configuration must be the same, except for more --steps"
)
_OUT_HELP = "new run folder. By default runs/TIME-TASK-CELL-ATTENTION"
_LOG_HELP = (
    "also write the metrics to tensorboard (in FOLDER/tensorboard) or to wandb (Weights & Biases, "
    "without a network if WANDB_MODE=offline). Repeat the option for both"
)
