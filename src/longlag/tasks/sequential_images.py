"""Sequential images: a picture read row by row or pixel by pixel, and named at its end."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.core.spec import choose
from longlag.data import fashion_mnist
from longlag.tasks.task import Floor, Task

__all__ = ["SequentialImages"]


class SequentialImages(Task):
    """Fashion-MNIST as a sequence: classify a picture after 28 rows or 784 pixels.

    Pixels are in [0, 1]. The class is asked at the last step alone. Read by rows:

        inputs  28 steps of 28 pixels
        targets . . . . . . . . . . . . . . . . . . . . . . . . . . . ankle boot

    Floor: every class alike, ln 10 in loss and 1/10 in accuracy; there are as many of each.

    Attributes:
        order: "rows" or "pixels" (row by row).
        permutation: 0, or the seed of one fixed order of the steps, the same for all pictures.
            Numbers differ from one permutation to another, so the seed belongs to the protocol.
        part: what is drawn from: "train", or "test", the standard test part.

    Raises:
        ValueError: an unknown order or part, a negative permutation.
        FileNotFoundError: the data are not there; the message says how to get them.

    Reference: Le, Jaitly and Hinton 2015, arXiv 1504.00941, on MNIST; the pictures: Xiao, Rasul and
    Vollgraf 2017, arXiv 1708.07747.
    """

    order: Literal["rows", "pixels"] = "rows"
    permutation: int = 0
    part: Literal["train", "test"] = "train"

    inputs_kind = "features"
    lag_field = "length"

    def __post_init__(self) -> None:
        choose(self.order, ("rows", "pixels"), "SequentialImages.order")
        choose(self.part, ("train", "test"), "SequentialImages.part")
        self.require(self.permutation >= 0, "permutation >= 0")

    @property
    def length(self) -> int:
        """T: 28 or 784; it is the picture's and no dial."""
        return 28 if self.order == "rows" else 784

    @property
    def time_steps(self) -> int:
        """T."""
        return self.length

    @property
    def in_features(self) -> int:
        """A row of 28 pixels, or one pixel."""
        return 28 if self.order == "rows" else 1

    @property
    def out_features(self) -> int:
        """The classes."""
        return len(fashion_mnist.CLASSES)

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> SequentialImages:
        """The standard test part at the end."""
        return self if purpose == "validation" else dataclasses.replace(self, part="test")

    @property
    def weighted_steps(self) -> int:
        """The last step."""
        return 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs `[B, T, 28 or 1]` float32 and targets `[B, T]` int32."""
        images = fashion_mnist.load()
        pictures, labels = (
            (images.train, images.train_labels)
            if self.part == "train"
            else (images.test, images.test_labels)
        )
        chosen = jax.random.randint(key, (batch_size,), 0, len(labels), jnp.int32)
        steps = jnp.asarray(pictures)[chosen].reshape(batch_size, self.length, self.in_features)
        if self.permutation:
            steps = steps[:, _permutation(self.permutation, self.length)]
        last = jnp.broadcast_to(jnp.arange(self.length) == self.length - 1, steps.shape[:2])
        return Batch(
            inputs=steps.astype(jnp.float32) / 255,
            targets=jnp.where(last, jnp.asarray(labels)[chosen][:, None], 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every class alike."""
        return Floor(math.log(self.out_features), 1 / self.out_features, "any class")

    def picture(self) -> str:
        """Rows, and what is asked."""
        dots = " ".join("." * (self.length - 1)) if self.order == "rows" else ". ... ."
        read = "28 steps of 28 pixels" if self.order == "rows" else "784 steps of one pixel"
        return f"inputs  {read}\ntargets {dots} ankle boot"


@functools.cache
def _permutation(seed: int, length: int) -> np.ndarray:
    """An order of the steps; numpy's legacy generator gives the same in every version."""
    return np.random.RandomState(seed).permutation(length)
