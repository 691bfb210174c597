"""An experiment: task, cell, architecture, training and seeds, as one value that JSON can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longlag.core.cell import Cell
from longlag.core.spec import Spec, choose
from longlag.core.weight_decay import describe
from longlag.models.building import idle_options
from longlag.models.model import Model
from longlag.runs.architectures import (
    AnyArchitecture,
    Architecture,
    architecture_class,
    architecture_name,
)
from longlag.runs.registry import cell_class, cell_name, kebab, task_class, task_name
from longlag.tasks import Task
from longlag.training.config import Training
from longlag.training.curriculum import lags_of, step_operations
from longlag.training.grids import check_rates, label_states
from longlag.training.optax_by_name import takes_weight_decay
from longlag.training.step import check_streaming

__all__ = ["Experiment"]

# How far beyond the lag that a curriculum came to.
TIMES = (2, 4, 16)


class Experiment(Spec):
    """One arm on one task.

    Attributes:
        task: the task, at its training lag.
        cell: the recurrence, or None for attention only.
        architecture: the model around it.
        training: how it is trained.
        seeds: how many seeds.
        test_lags: lags to test at besides the training lag; empty means 2 and 4 times that lag,
            where the task allows them. With a curriculum, empty means 1, 2, 4 and 16 times the
            longest lag that a seed solved.
        first_seed: the seeds are first_seed .. first_seed + seeds - 1; a table takes others than
            those that its learning rates were chosen by.
        rates: a grid of learning rates, in place of `training.learning_rate`. Every seed trains at
            every rate, all in one program. Empty: no grid.
    """

    task: Task
    cell: Cell | None
    architecture: AnyArchitecture = Architecture()
    training: Training = Training()
    seeds: int = 3
    test_lags: tuple[int, ...] = ()
    first_seed: int = 0
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds: expected at least 1, got {self.seeds}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed: expected at least 0, got {self.first_seed}")
        check_rates(self.rates, self.training)
        for lag in (self.task.lag, *self.test_lags):
            try:
                self.task.at_lag(lag)
            except ValueError as error:
                raise ValueError(f"lag {lag}: {error}") from error
        model = self.model  # an impossible one is refused
        check_streaming(model, self.task, self.training)
        for lag in lags_of(self.task, self.training):
            try:
                self.task.at_lag(lag)
            except ValueError as error:
                raise ValueError(f"curriculum: lag {lag}: {error}") from error
        if self.training.budget:
            step_operations(model, self.task, self.training)

    @property
    def model(self) -> Model:
        """The model."""
        return self.architecture.build(self.task, self.cell)

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def labels(self) -> list[dict[str, Any]]:
        """The `seed` of each trained state and, with a grid, its `rate`; the rates outermost."""
        return label_states(self.seed_numbers, self.rates)

    @property
    def lags(self) -> tuple[int, ...]:
        """The training lag, then the others to test at."""
        return self._tested_lags(self.task.lag, (2, 4))

    def lags_beyond(self, lag: int) -> tuple[int, ...]:
        """The lags to test a seed at whose curriculum came to `lag`."""
        return self._tested_lags(lag, TIMES)

    def _tested_lags(self, lag: int, multiples: tuple[int, ...]) -> tuple[int, ...]:
        further = self.test_lags or tuple(
            times * lag for times in multiples if _is_possible(self.task, times * lag)
        )
        return tuple(dict.fromkeys((lag, *further)))

    @property
    def task_title(self) -> str:
        """A short name of the task, for tables: "copy-memory"."""
        return kebab(type(self.task).__name__)

    @property
    def arm(self) -> str:
        """A short name of cell and attention, for tables: "LSTM + full"."""
        attention = self.architecture.attention
        if self.cell is None:
            return f"{attention} attention only"
        return type(self.cell).__name__ + ("" if attention == "none" else f" + {attention}")

    @property
    def weight_decay(self) -> dict[str, list[str]] | None:
        """Which parameters decay, and which stay (`longlag.core.weight_decay.describe`).

        None if the optimiser has no weight decay.
        """
        if not (takes_weight_decay(self.training.optimizer) and self.training.weight_decay):
            return None
        return describe(self.model)

    def config(self) -> dict[str, Any]:
        """What `config.json` holds; `from_config` makes the experiment again."""
        return {
            "task": _as_config(task_name(type(self.task)), self.task),
            "cell": None
            if self.cell is None
            else _as_config(cell_name(type(self.cell)), self.cell),
            "architecture": _as_config(architecture_name(self.architecture), self.architecture),
            "training": _as_config(None, self.training),
            "seeds": self.seeds,
            "test_lags": list(self.test_lags),
            "first_seed": self.first_seed,
            # Without a grid it is left out, so run folders stay as they were.
            **({"rates": list(self.rates)} if self.rates else {}),
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
                test_lags=config["test_lags"],
                first_seed=config.get("first_seed", 0),  # runs of earlier versions have none
                rates=config.get("rates", ()),
            )
        except ValueError as error:
            raise ValueError(f"config.json: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"config.json: expected an experiment of longlag; {error!r}"
            ) from error


def _is_possible(task: Task, lag: int) -> bool:
    try:
        task.at_lag(lag)
    except ValueError:
        return False
    return True


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
