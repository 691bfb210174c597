"""What a memory task is: a frozen specification that draws batches and knows its floor."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import Index, PRNGKey
from longlag.core.batch import Batch
from longlag.core.spec import Spec

__all__ = ["Floor", "Task", "draw_distinct", "pad", "sketch"]


@dataclasses.dataclass(frozen=True)
class Floor:
    """What the best fixed answer reaches: it knows where it is asked and has read nothing.

    Attributes:
        loss: its expected loss, weighted as in `Batch.weights`, in nats (classes) or squared units
            (values).
        accuracy: its expected accuracy over the scored positions.
        note: who this predictor is, in a few words, for the table.
    """

    loss: float
    accuracy: float
    note: str

    @classmethod
    def of_chances(cls, chances: np.ndarray, note: str) -> Floor:
        """The floor where answers are not alike: their entropy, and the likeliest one.

        Args:
            chances: `[cases, answers]`, how likely each answer is, in cases that a fixed answer can
                tell apart (such as lengths) and that are alike themselves.
            note: who this predictor is.
        """
        surprise = -np.log(np.where(chances > 0, chances, 1))
        loss = (chances * surprise).sum(axis=1).mean()
        return cls(float(loss), float(chances.max(axis=1).mean()), note)


class Task(Spec, abc.ABC):
    """A memory task: hyperparameters as fields, data as a pure function of a key.

    Fields are the dials; `__post_init__` refuses impossible ones through `require`. `sample` is
    pure and jittable, so training draws its data inside the compiled step.

    Class attributes:
        inputs_kind: "tokens" (`Batch.inputs` int32) or "features" (float32).
        targets_kind: "classes" (softmax cross-entropy), "values" (squared error), or "transcripts":
            classes in order, but not at the steps where they occur (connectionist temporal
            classification, class 0 is its blank). `targets`, `weights` and `scored` are then
            `[B, L]`, L classes at most, those of a sequence first; an answer is `[B, T, K]` still.
            An empty transcript is one blank with a weight. A sequence without a weight is not
            asked.
        tolerance: for "values", an answer within this distance of the target counts as right.
        lag_field: the name of the field that makes the task longer, which `at_lag` replaces; or of
            the property that says how long data are.
    """

    inputs_kind: ClassVar[Literal["tokens", "features"]] = "tokens"
    targets_kind: ClassVar[Literal["classes", "values", "transcripts"]] = "classes"
    tolerance: ClassVar[float] = 0.0
    lag_field: ClassVar[str] = ""

    @property
    @abc.abstractmethod
    def time_steps(self) -> int:
        """T, the length in steps of every sequence that `sample` draws, padding included."""

    @property
    @abc.abstractmethod
    def in_features(self) -> int:
        """Number of token classes, or of real features per step."""

    @property
    @abc.abstractmethod
    def out_features(self) -> int:
        """Number of answer classes, or of real values per step."""

    @abc.abstractmethod
    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws a batch; the same key gives the same batch on every machine.

        Evaluation sets are frozen by checksum, so a task takes its choices from random bits by
        exact arithmetic: a logarithm differs in its last bit from one machine to the next.

        Args:
            key: a typed key from `jax.random.key`.
            batch_size: B, a Python integer.
        """

    def at_step(self, key: PRNGKey, step: Index, batch_size: int) -> Batch:
        """The batch of a training step, `sample` of a key of its own.

        A task whose batches go on from one another (`Training.carry`) draws them here.

        Args:
            key: of the seed, the same at all steps.
            step: int32 `[]`.
            batch_size: B, a Python integer.
        """
        return self.sample(jax.random.fold_in(key, step), batch_size)

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> Self:
        """The task that an evaluation set is drawn from: of data with parts, another part.

        Args:
            purpose: "validation" is looked at while training, "test" once at the end.
        """
        del purpose
        return self

    @abc.abstractmethod
    def floor(self) -> Floor:
        """Loss and accuracy of the best fixed answer; a table prints them as a row."""

    @property
    def weighted_steps(self) -> int | None:
        """How many steps of a sequence have a weight, if all have as many, whatever the lag.

        The answers of a model are then computed at these alone.
        """
        return None

    def floors(self) -> tuple[Floor, ...]:
        """All rows that a table prints: the floor, then any that solve a part of the task."""
        return (self.floor(),)

    @abc.abstractmethod
    def picture(self) -> str:
        """One small example of this kind of task, sampled and drawn in text by `sketch`."""

    def at_lag(self, lag: int) -> Self:
        """The same task with its lag dial (the field named by `lag_field`) set to `lag`.

        Data whose length is their own have a property of that name, and no other lag.
        """
        if self.lag_field in {field.name for field in dataclasses.fields(self)}:
            return dataclasses.replace(self, **{self.lag_field: lag})
        self.require(lag == self.lag, f"lag = {self.lag}, the data's own")
        return self

    @property
    def lag(self) -> int:
        """The present value of the lag dial."""
        if not hasattr(self, self.lag_field):
            dials = ", ".join(field.name for field in dataclasses.fields(self))
            raise ValueError(
                f"{type(self).__name__}.lag_field: expected the name of the dial that makes the "
                f"task longer, one of {dials}; got {self.lag_field!r}"
            )
        return getattr(self, self.lag_field)

    def require(self, condition: bool, expected: str) -> None:
        """Raises `ValueError`, naming what was expected and this task, unless `condition` holds."""
        if not condition:
            raise ValueError(f"expected {expected}, got {self}")


def pad(batch: Batch, length: int) -> Batch:
    """Pads a batch at its end with masked, unscored steps: one compiled shape for all lengths.

    What is as long as the inputs is padded; transcripts are not.

    Args:
        batch: sequences of T steps.
        length: the new T, not smaller than the old one.
    """
    B, T = batch.inputs.shape[:2]
    extra = length - T
    if extra < 0:
        raise ValueError(f"pad: expected length >= {T}, got {length}")
    if batch.mask is None:
        batch = batch.replace(mask=jnp.ones((B, T), bool))  # type: ignore[attr-defined]

    def pad_leaf(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2)) if x.shape[1] == T else x

    return jax.tree.map(pad_leaf, batch)


def draw_distinct(key: jax.Array, batch_size: int, size: int, count: int) -> jax.Array:
    """Draws `count` different numbers from `0..size-1` in each row, every ordered choice alike.

    Returns:
        `[batch_size, count]` int32.
    """
    # Uniform floats are the same on every machine, and only for float32 is XLA's top-k fast on CPU
    # (20 times the speed of 32-bit integers). Ties, one in 2^23 pairs, go to the smaller number.
    return jax.lax.top_k(jax.random.uniform(key, (batch_size, size), jnp.float32), count)[1]


def sketch(
    task: Task,
    seed: int,
    names: Mapping[int, str] | None = None,
    answers: Mapping[int, str] | None = None,
) -> str:
    """Draws one sequence of a task in text: inputs above targets, one column per step.

    A dot among the targets is a step where nothing is asked, a dash a step of padding.

    Args:
        task: small, so that a sequence fits on a line.
        seed: which sequence.
        names: how to write a token; those not named are written as numbers.
        answers: how to write an answer; as a token if it is None.
    """
    batch = _draw_one(task, jax.random.key(seed))
    weighted = np.asarray(batch.weights[0]) > 0
    mask = np.ones_like(weighted) if batch.mask is None else np.asarray(batch.mask[0])

    def write(value: float, named: Mapping[int, str] | None) -> str:
        return (named or {}).get(int(value), f"{round(float(value), 2):g}")

    lines: list[tuple[str, list[str]]] = []
    for label, array, shown, named in (
        ("inputs", batch.inputs, mask, names),
        ("targets", batch.targets, weighted, names if answers is None else answers),
    ):
        for i, row in enumerate(np.asarray(array[0]).reshape(len(mask), -1).T):
            steps = zip(row, shown, mask)
            cells = [write(v, named) if s else "." if m else "-" for v, s, m in steps]
            lines.append((label if i == 0 else "", cells))
    width = max(len(cell) for _, cells in lines for cell in cells)
    return "\n".join(f"{label:<7} " + " ".join(c.rjust(width) for c in row) for label, row in lines)


@functools.partial(jax.jit, static_argnums=0)
def _draw_one(task: Task, key: jax.Array) -> Batch:
    """One sequence, in a program that equal tasks share."""
    return task.sample(key, 1)
