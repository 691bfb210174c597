"""Language modelling: the next byte of a text."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import Index, PRNGKey
from longlag.core.batch import Batch
from longlag.core.spec import choose
from longlag.data import text as data
from longlag.tasks.task import Floor, Task

__all__ = ["NextByte"]

BYTES = 256


class NextByte(Task):
    """Next byte: predict the next byte of a text, after every byte.

    Under `Training(carry=True)` each row of a batch reads a stretch of the text of its own from
    one step to the next, so that a model that carries its state has read all that stands before;
    where the text ends it begins anew, with a reset. Else the pieces are drawn from all over it.

        inputs  w h a t   t i m
        targets h a t   t i m e

    Floor: the bytes as often as they are in the training part.

    Attributes:
        text: which (`longlag.data.text.load`).
        length: T, the bytes of a piece.
        part: what is read: "train", "validation" or "test".

    Raises:
        ValueError: an unknown text or part, a length that the smallest part has no room for.
        FileNotFoundError: the data are not there; the message says how to get them.
    """

    text: str = "jargon"
    length: int = 128
    part: Literal["train", "validation", "test"] = "train"

    lag_field = "length"

    def __post_init__(self) -> None:
        choose(self.text, data.TEXTS, "text")
        choose(self.part, ("train", "validation", "test"), "NextByte.part")
        self.require(self.length >= 1, "length >= 1")

    @property
    def time_steps(self) -> int:
        """T."""
        return self.length

    @property
    def in_features(self) -> int:
        """Bytes."""
        return BYTES

    @property
    def out_features(self) -> int:
        """Bytes."""
        return BYTES

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> NextByte:
        """The part of that name."""
        return dataclasses.replace(self, part=purpose)

    @property
    def _bytes(self) -> np.ndarray:
        content = getattr(data.load(self.text), self.part)
        self.require(
            len(content) > self.length, f"a length below the {len(content):,} bytes of the part"
        )
        return content

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws pieces from all over the part: inputs and targets `[B, T]` int32."""
        last = len(self._bytes) - self.length
        return self._pieces(jax.random.randint(key, (batch_size,), 0, last, jnp.int32))

    def at_step(self, key: PRNGKey, step: Index, batch_size: int) -> Batch:
        """The piece of each row's stretch that comes at this step; the key says where they begin.

        A row that begins the text anew is told so by a reset.
        """
        pieces = (len(self._bytes) - 1) // self.length
        apart = jnp.arange(batch_size, dtype=jnp.int32) * pieces // batch_size
        at = (jax.random.randint(key, (), 0, pieces, jnp.int32) + apart + step) % pieces
        batch = self._pieces(at * self.length)
        first = jnp.arange(self.length)[None] == 0
        return batch.replace(resets=(at == 0)[:, None] & first)  # type: ignore[attr-defined]

    def _pieces(self, starts: jax.Array) -> Batch:
        steps = starts[:, None] + jnp.arange(self.length + 1)[None]
        read = jnp.asarray(self._bytes)[steps].astype(jnp.int32)
        everywhere = jnp.ones((len(starts), self.length), bool)
        return Batch(
            inputs=read[:, :-1],
            targets=read[:, 1:],
            weights=everywhere.astype(jnp.float32),
            scored=everywhere,
            mask=None,
        )

    def floor(self) -> Floor:
        """The bytes as often as they are in the training part."""
        loss, accuracy = _frequency_scores(self.text, self.part)
        return Floor(loss, accuracy, "the commonest byte")

    def picture(self) -> str:
        """The text's own example."""
        return "inputs  w h a t   t i m\ntargets h a t   t i m e"


@functools.cache
def _frequency_scores(name: str, part: str) -> tuple[float, float]:
    """Nats per byte and accuracy of the training part's frequencies."""
    text = data.load(name)
    counts = np.bincount(text.train, minlength=BYTES)
    read = getattr(text, part)
    bits = data.witten_bell(text.train, read, order=1)
    return float(bits.mean() * np.log(2)), float(np.mean(read == counts.argmax()))
