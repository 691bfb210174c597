"""An experiment: task, cell, architecture, training and seeds, as one value that JSON can hold."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from longlag import cells as cells_module
from longlag import tasks as tasks_module
from longlag.attention import Additive, Attention, DotProduct, Multiplicative
from longlag.cell import Cell
from longlag.layer import Layer
from longlag.layers import Bidirectional, Dropout, Norm, Recurrent, Residual, Stack
from longlag.model import Model
from longlag.models import SequenceModel, WholeSequenceModel, build, idle_options
from longlag.seq2seq import Seq2Seq
from longlag.spec import Spec, choose
from longlag.tasks import Task
from longlag.tasks.pairs import PairTask
from longlag.training import Training, check_streaming

__all__ = [
    "Architecture",
    "Captioner",
    "EncoderDecoder",
    "Experiment",
    "Transcriber",
    "cell_class",
    "cell_names",
    "own_files",
    "task_class",
    "task_names",
]


class Architecture(Spec):
    """The model around the cell. An option without effect is refused, see `longlag.models.build`.

    Attributes:
        attention: what reads the past: none, additive, multiplicative, window or full.
        placement: read (the context joins the output), block (the attention is a block's mixer),
            or auto: read for additive and multiplicative attention, block for the others.
        width: of all blocks, and of the cell unless it says otherwise.
        depth: number of blocks; an attention replaces the middle one.
        heads: of window and full attention.
        window: how many positions window attention reads.
        positions: of window and full attention: rotary, alibi, learned or none.
        pattern: middle (one attention) or interleaved (cell and attention in turn).
        convolution: width of a short causal convolution before every mixer; 0 leaves it out.
        mlp: inner width of each block's MLP; 0 leaves it out.
        dropout: rate after every mixer and MLP.
        mixer_parameters: how many parameters each mixer is to have, within 5%: inner widths, the
            cell's features too, are chosen for it; 0: as they come.
    """

    attention: Literal["none", "additive", "multiplicative", "window", "full"] = "none"
    placement: Literal["auto", "read", "block"] = "auto"
    width: int = 64
    depth: int = 2
    heads: int = 4
    window: int = 16
    positions: Literal["rotary", "alibi", "learned", "none"] = "rotary"
    pattern: Literal["middle", "interleaved"] = "middle"
    convolution: int = 0
    mlp: int = 0
    dropout: float = 0.0
    mixer_parameters: int = 0

    def build(self, task: Task, cell: Cell | None) -> SequenceModel:
        """The model for a task."""
        if isinstance(task, PairTask):
            raise ValueError(
                f"task {task_name(type(task))}: expected an encoder and a decoder (EncoderDecoder, "
                "Captioner; `python -m experiments.translation`, `python -m experiments.captions`)"
                ", since source and target are two sequences"
            )
        return build(
            inputs=task.inputs_kind,
            in_features=task.in_features,
            out_features=task.out_features,
            cell=cell,
            **{f.name: getattr(self, f.name) for f in _fields(self)},
        )


class EncoderDecoder(Spec):
    """Sequence to sequence: an encoder of the source, and a decoder that may attend to it.

    Attributes:
        attention: what the decoder reads the source by: none, additive, multiplicative, or full
            (scaled dot products of several heads).
        width: of the embeddings and the attentional state.
        depth: layers of the encoder, and of the decoder.
        heads: of full attention.
        bidirectional: the encoder reads the source from both ends.
        input_feeding: each step of the decoder is told what the last one read.
        dropout: rate after every layer.
    """

    attention: Literal["none", "additive", "multiplicative", "full"] = "none"
    width: int = 128
    depth: int = 1
    heads: int = 4
    bidirectional: bool = True
    input_feeding: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose(self.attention, ("none", "additive", "multiplicative", "full"), "attention")
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name}: expected at least 1, got {getattr(self, name)}")
        if self.attention != "full" and self.heads != EncoderDecoder.heads:
            raise ValueError(
                f"model heads: expected {EncoderDecoder.heads}, since it has no effect with "
                f"attention {self.attention!r}; got {self.heads}"
            )

    def build(self, task: Task, cell: Cell | None) -> Seq2Seq:
        """The model for a task, whose answers are words of the target."""
        if cell is None:
            raise ValueError("model cell: expected a cell for encoder and decoder, got None")
        lost = (Dropout(self.dropout),) if self.dropout else ()
        read = Bidirectional(cell) if self.bidirectional else Recurrent(cell)
        return Seq2Seq(
            inputs=task.inputs_kind,
            in_features=task.in_features,
            out_features=task.out_features,
            width=self.width,
            encoder=(read, *lost) * self.depth,
            decoder=(Recurrent(cell), *lost) * self.depth,
            attention=_over_source(self.attention, self.width, self.heads),
            input_feeding=self.input_feeding,
        )


class Captioner(Spec):
    """A picture said in words: regions by convolutions, and a decoder that may attend to them.

    Attributes:
        attention: what the decoder reads the regions by: none (their mean is all that it is told),
            additive or multiplicative.
        width: of the regions, the embedding and the attentional state.
        dropout: rate after the regions and after the decoder.

    Reference: Xu et al. 2015, "Show, Attend and Tell", arXiv 1502.03044, their soft attention; what
    is not the same there: the decoder reads what was attended to before its state moves on, and its
    first state is made of the mean.
    """

    attention: Literal["none", "additive", "multiplicative"] = "none"
    width: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose(self.attention, ("none", "additive", "multiplicative"), "attention")

    def build(self, task: Task, cell: Cell | None) -> Seq2Seq:
        """The model for a task of pictures, whose answers are words of the target."""
        if cell is None:
            raise ValueError("model cell: expected a cell for the decoder, got None")
        lost = (Dropout(self.dropout),) if self.dropout else ()
        return Seq2Seq(
            inputs="pictures",
            in_features=task.in_features,
            out_features=task.out_features,
            width=self.width,
            encoder=lost,
            decoder=(Recurrent(cell), *lost),
            attention=_over_source(self.attention, self.width),
            summary="mean",
        )


class Transcriber(Spec):
    """What is heard, written down: layers that read it from both ends, an answer at every step.

    For tasks of transcripts: what a step belongs to is often known only when more was heard.

    Attributes:
        attention: "full" puts scaled dot products with the past in the place of the last of the
            layers, whose inputs have been read from both ends; or "none".
        width: of all layers.
        depth: number of layers.
        heads: of the attention.
        dropout: rate after every layer.

    Reference: Graves and Schmidhuber 2005, Graves et al. 2006 (bidirectional LSTM and CTC).
    """

    attention: Literal["none", "full"] = "none"
    width: int = 128
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose(self.attention, ("none", "full"), "attention")
        least = 1 if self.attention == "none" else 2
        if self.depth < least:
            raise ValueError(f"model depth: expected at least {least}, got {self.depth}")
        if self.attention == "none" and self.heads != Transcriber.heads:
            raise ValueError(
                f"model heads: expected {Transcriber.heads}, since it has no effect without "
                f"attention; got {self.heads}"
            )

    def build(self, task: Task, cell: Cell | None) -> WholeSequenceModel:
        """The model for a task. The cell is that of each direction, half as wide as the layers."""
        both = None if cell is None else Bidirectional(cell)
        if both is None or both.out_features(self.width) != self.width:
            raise ValueError(
                f"model cell: expected one of {self.width // 2} outputs, half of width "
                f"{self.width}, for each direction; got {cell}"
            )
        mixers: list[Layer] = [both] * self.depth
        if self.attention == "full":
            mixers[-1] = DotProduct(self.width, heads=self.heads)
        lost = (Dropout(self.dropout),) if self.dropout else ()
        return WholeSequenceModel(
            inputs=task.inputs_kind,
            in_features=task.in_features,
            width=self.width,
            layers=tuple(Residual(Stack((Norm(), mixer, *lost))) for mixer in mixers),
            out_features=task.out_features,
        )


Layers = Architecture | EncoderDecoder | Captioner | Transcriber


def _over_source(attention: str, width: int, heads: int = 1) -> Attention | None:
    """What reads what an encoder left, by its name."""
    return {
        "none": lambda: None,
        "additive": lambda: Additive(width),
        "multiplicative": lambda: Multiplicative(width),
        "full": lambda: DotProduct(width, heads=heads, positions="none"),
    }[attention]()


class Experiment(Spec):
    """One arm on one task.

    Attributes:
        task: the task, at its training lag.
        cell: the recurrence, or None for attention only.
        architecture: the model around it.
        training: how it is trained.
        seeds: how many seeds.
        test_lags: lags to test at besides the training lag; empty means 2 and 4 times that lag,
            where the task allows them.
        first_seed: the seeds are first_seed .. first_seed + seeds - 1; a table takes others than
            those that its learning rates were chosen by.
    """

    task: Task
    cell: Cell | None
    architecture: Layers = Architecture()
    training: Training = Training()
    seeds: int = 3
    test_lags: tuple[int, ...] = ()
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds: expected at least 1, got {self.seeds}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed: expected at least 0, got {self.first_seed}")
        for lag in self.test_lags:
            self.task.at_lag(lag)  # refuses an impossible one
        check_streaming(self.model, self.task, self.training)  # an impossible model is refused

    @property
    def model(self) -> Model:
        """The model."""
        return self.architecture.build(self.task, self.cell)

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def lags(self) -> tuple[int, ...]:
        """The training lag, then the others to test at."""
        lag = self.task.lag
        further = self.test_lags or tuple(
            times * lag for times in (2, 4) if _possible(self.task, times * lag)
        )
        return tuple(dict.fromkeys((lag, *further)))

    @property
    def task_title(self) -> str:
        """A short name of the task, for tables: "copy-memory"."""
        return _kebab(type(self.task).__name__)

    @property
    def arm(self) -> str:
        """A short name of cell and attention, for tables: "LSTM + full"."""
        attention = self.architecture.attention
        if self.cell is None:
            return f"{attention} attention only"
        return type(self.cell).__name__ + ("" if attention == "none" else f" + {attention}")

    def config(self) -> dict[str, Any]:
        """What `config.json` holds; `from_config` makes the experiment again."""
        return {
            "task": _as_config(task_name(type(self.task)), self.task),
            "cell": None
            if self.cell is None
            else _as_config(cell_name(type(self.cell)), self.cell),
            "architecture": _as_config(_architecture_name(self.architecture), self.architecture),
            "training": _as_config(None, self.training),
            "seeds": self.seeds,
            "test_lags": list(self.test_lags),
            "first_seed": self.first_seed,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path | None = None) -> Experiment:
        """The experiment of a `config.json`.

        Args:
            config: from `Experiment.config`.
            folder: the run folder, where a cell of the user's own was put down as `cell.py`, a task
                as `task.py`.

        Raises:
            ValueError: an unknown entry or name.
        """
        for key in config:
            choose(key, [f.name for f in dataclasses.fields(cls)], "entry of config.json")  # type: ignore[arg-type]
        try:
            cell = config["cell"]
            cell = cell and _from_config(cell_class(cell["name"], folder), cell)
            architecture = dict(config["architecture"])
            of_name = architecture_class(architecture.pop("name", None))
            if of_name is Architecture:
                # Runs of earlier versions may name options that had no effect, not refused then.
                for name in idle_options(cell, architecture["attention"]):
                    architecture.pop(name, None)
            return cls(
                task=_from_config(task_class(config["task"]["name"], folder), config["task"]),
                cell=cell,
                architecture=_from_config(of_name, architecture),
                training=_from_config(Training, config["training"]),
                seeds=config["seeds"],
                test_lags=tuple(config["test_lags"]),
                first_seed=config.get("first_seed", 0),  # runs of earlier versions have none
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"config.json: expected an experiment of longlag; {error!r}"
            ) from error


def _possible(task: Task, lag: int) -> bool:
    try:
        task.at_lag(lag)
    except ValueError:
        return False
    return True


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


def own_files(experiment: Experiment) -> dict[str, Path]:
    """The files of the user's own that an experiment is made of: "task" and "cell", if they are."""
    named = {"task": (experiment.task, task_names()), "cell": (experiment.cell, cell_names())}
    found = {}
    for what, (made, known) in named.items():
        if made is not None and type(made) not in known.values():
            source = inspect.getsourcefile(type(made))
            if source is not None:
                found[what] = Path(source)
    return found


def architecture_class(name: str | None) -> type[Layers]:
    """The architecture of a name; None is the one around a single sequence."""
    if name is None:
        return Architecture
    others = {_kebab(cls.__name__): cls for cls in (EncoderDecoder, Captioner, Transcriber)}
    return others[choose(name, others, "architecture")]


def _architecture_name(architecture: Layers) -> str | None:
    return None if type(architecture) is Architecture else _kebab(type(architecture).__name__)


def _class(name: str, what: str, base: type, known: Mapping[str, Any], folder: Path | None) -> Any:
    """The class of a name of the library, or of the user's own file or its copy in a run folder."""
    file, colon, class_name = name.rpartition(":")
    if not colon:
        return known[choose(name, known, what)]
    path = Path(file)
    if folder is not None and (folder / f"{what}.py").is_file():
        path = folder / f"{what}.py"
    module = _module(path.resolve(), what)
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    }
    return found[choose(class_name, found, f"{what} in {path}")]


def _name(cls: type, known: Mapping[str, type]) -> str:
    name = _kebab(cls.__name__)
    return name if known.get(name) is cls else f"{inspect.getfile(cls)}:{cls.__name__}"


def _module(path: Path, what: str) -> ModuleType:
    """Imports a user's file. The same text is imported once, so that its classes stay equal."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what}: cannot read {path}: {error.strerror}") from error
    # Dataclasses, type hints and `inspect` look a class's module up in sys.modules by its name.
    name = f"longlag_user_{hashlib.sha256(bytes(path) + b':' + text).hexdigest()[:16]}"
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
            raise ValueError(f"{what}: {path} fails to import: {error!r}") from error
    return sys.modules[name]


def _classes(module: ModuleType, base: type) -> dict[str, Any]:
    return {
        _kebab(name): value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }


def _kebab(name: str) -> str:
    """Turns "CopyMemory" into "copy-memory", "MinGRU" into "min-gru", "LSTM" into "lstm"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _fields(spec: Spec) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(spec)  # type: ignore[arg-type]


def _as_config(name: str | None, spec: Spec) -> dict[str, Any]:
    values = {f.name: getattr(spec, f.name) for f in _fields(spec)}
    return values if name is None else {"name": name, **values}


def _from_config(cls: Any, config: Mapping[str, Any]) -> Any:
    values = {key: value for key, value in config.items() if key != "name"}
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        choose(key, known, f"entry of {cls.__name__} in config.json")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
