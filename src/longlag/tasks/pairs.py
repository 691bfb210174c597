"""What tasks of pairs share: a source is read, and its target is said word by word."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from longlag.data.coders import Coder, padded
from longlag.spec import choose
from longlag.tasks.task import Batch, Floor, Task

__all__ = ["PairTask", "Pairs", "Part"]

Part = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of texts as numbers.

    Attributes:
        sources: N texts.
        targets: what each is to be turned into.
        reader: turns sources into numbers.
        writer: turns targets into numbers.
        rows: which pairs each part has.
        inputs: `[N, S]` int32.
        mask: `[N, S]` bool.
        answers: `[N, L]` int32, with `STOP` at the end and zero beyond it.
        asked: `[N, L]` bool, up to `STOP` and with it.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    reader: Coder
    writer: Coder
    rows: Mapping[str, np.ndarray]
    inputs: np.ndarray
    mask: np.ndarray
    answers: np.ndarray
    asked: np.ndarray

    @classmethod
    def of(
        cls,
        sources: Sequence[str],
        targets: Sequence[str],
        reader: Coder,
        writer: Coder,
        rows: Mapping[str, np.ndarray],
    ) -> Pairs:
        """Encodes pairs, each side as long as its longest text."""
        longest = max(len(reader.encode(text)) for text in sources)
        steps = 1 + max(len(writer.encode(text)) for text in targets)
        inputs, mask = padded(reader, sources, longest)
        answers, asked = padded(writer, targets, steps, stop=True)
        return cls(
            tuple(sources), tuple(targets), reader, writer, rows, inputs, mask, answers, asked
        )


class PairTask(Task):
    """Sequence to sequence on real pairs; subclasses say what `pairs` are.

    Source and target have lengths of their own: `inputs` and `mask` are `[B, S]`, `targets`,
    `weights` and `scored` `[B, L]`, so the model is a `Seq2Seq` (`experiment.EncoderDecoder`).
    Training draws every pair of its part alike. `STOP` ends a target, and stands before it.

    Attributes:
        part: what is drawn from.
    """

    part: Part = "train"

    lag_field = "length"

    def __post_init__(self) -> None:
        choose(self.part, ("train", "validation", "test"), "part")

    @property
    @abc.abstractmethod
    def pairs(self) -> Pairs:
        """The pairs of all parts."""

    @property
    def length(self) -> int:
        """L, steps of the longest target; it is the data's and no dial."""
        return self.pairs.answers.shape[1]

    @property
    def time_steps(self) -> int:
        """L."""
        return self.length

    @property
    def in_features(self) -> int:
        """Numbers that a source is made of."""
        return self.pairs.reader.size

    @property
    def out_features(self) -> int:
        """Numbers that a target is made of."""
        return self.pairs.writer.size

    def evaluated(self, purpose: Literal["validation", "test"]) -> Self:
        """Pairs that are not learned from: some to choose by, others for the test."""
        return dataclasses.replace(self, part=purpose)

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws pairs: inputs `[B, S]` int32, targets `[B, L]` int32."""
        pairs, rows = self.pairs, self.pairs.rows[self.part]
        chosen = jax.random.randint(key, (batch_size,), 0, len(rows), jnp.int32)
        inputs, mask, answers, asked = (
            jnp.asarray(array[rows])[chosen]
            for array in (pairs.inputs, pairs.mask, pairs.answers, pairs.asked)
        )
        return Batch(inputs, answers, asked.astype(jnp.float32), asked, mask)

    def floor(self) -> Floor:
        """The commonest answer at each step of the training part."""
        rows = self.pairs.rows["train"]
        counts = np.stack(
            [
                np.bincount(step[asked], minlength=self.out_features)
                for step, asked in zip(self.pairs.answers[rows].T, self.pairs.asked[rows].T)
            ]
        )
        chances = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        surprise = -np.log(np.where(chances > 0, chances, 1))
        return Floor(
            float((counts * surprise).sum() / counts.sum()),
            float(counts.max(axis=1).sum() / counts.sum()),
            "the commonest at each step",
        )
