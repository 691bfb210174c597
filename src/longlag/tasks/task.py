"""What a memory task is: a frozen specification that draws batches and knows its floor."""

from __future__ import annotations

import abc
import dataclasses
from typing import Literal, Self

import flax.struct
import jax
import jax.numpy as jnp

from longlag.spec import Spec

__all__ = ["Batch", "Floor", "Task", "pad"]


@flax.struct.dataclass
class Batch:
    """One batch of sequences, all of them padded to the same length T.

    Attributes:
        inputs: tokens `[B, T]` int32, or real features `[B, T, D]` float32.
        targets: classes `[B, T]` int32, or real values `[B, T, K]` float32. Where the weight is
            zero the target is zero and means nothing.
        weights: `[B, T]` float32, what each position counts in the loss; zero where nothing is
            asked.
        mask: `[B, T]` bool, true at real positions, false at padding.
        resets: `[B, T]` bool or None: true where a new sequence begins and the state is forgotten.
    """

    inputs: jax.Array
    targets: jax.Array
    weights: jax.Array
    mask: jax.Array
    resets: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Floor:
    """What a predictor without memory reaches on the scored positions.

    Attributes:
        loss: its mean loss over the scored positions, in nats (classes) or squared units (values).
        accuracy: its expected accuracy over the scored positions.
        note: who this predictor is, in a few words, for the table.
    """

    loss: float
    accuracy: float
    note: str


class Task(Spec, abc.ABC):
    """A memory task: hyperparameters as fields, data as a pure function of a key.

    Fields are the dials; `__post_init__` refuses impossible ones with a `ValueError` that names
    what was expected and what came. `sample` is pure and jittable, so training draws its data
    inside the compiled step.

    Class attributes:
        targets_kind: "classes" (softmax cross-entropy) or "values" (squared error).
        tolerance: for "values", an answer within this distance of the target counts as right.
        lag_field: the name of the field that makes the task longer; `at_lag` replaces it.
    """

    targets_kind = "classes"
    tolerance = 0.0
    lag_field = ""

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """T, the length in steps of every sequence that `sample` draws, padding included."""

    @property
    @abc.abstractmethod
    def in_features(self) -> int:
        """Number of token classes, or of real features per step."""

    @property
    @abc.abstractmethod
    def out_features(self) -> int:
        """Number of answer classes, or of real values per step."""

    @property
    def inputs_kind(self) -> Literal["tokens", "features"]:
        """Whether `Batch.inputs` holds tokens (int32) or real features (float32)."""
        return "tokens"

    @abc.abstractmethod
    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws a batch; the same key gives the same batch on every machine.

        Args:
            key: a typed key from `jax.random.key`.
            batch_size: B, a Python integer.
        """

    @abc.abstractmethod
    def floor(self) -> Floor:
        """Loss and accuracy of the best predictor that remembers nothing."""

    @abc.abstractmethod
    def picture(self) -> str:
        """One small example drawn in text, inputs above targets."""

    def at_lag(self, lag: int) -> Self:
        """The same task with its lag dial (the field named by `lag_field`) set to `lag`."""
        return dataclasses.replace(self, **{self.lag_field: lag})

    @property
    def lag(self) -> int:
        """The present value of the lag dial."""
        return getattr(self, self.lag_field)


def pad(batch: Batch, length: int) -> Batch:
    """Pads a batch at its end with masked, unscored steps: one compiled shape for all lengths.

    Args:
        batch: sequences of T steps.
        length: the new T, not smaller than the old one.
    """
    extra = length - batch.mask.shape[1]
    if extra < 0:
        raise ValueError(f"pad: expected length >= {batch.mask.shape[1]}, got {length}")
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2)), batch)
