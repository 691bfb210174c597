"""What tasks of pairs share: a source is read, and its target is said word by word."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.core.spec import choose
from longlag.data.coders import Coder, encode_texts
from longlag.tasks.task import Floor, Task

__all__ = ["PairTask", "Pairs", "SplitName"]

SplitName = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs as numbers: a text, or a picture, and the text that it is to be turned into.

    Attributes:
        sources: N texts, or names of pictures.
        targets: what each is to be turned into.
        reader: turns sources into numbers; None if they are pictures.
        writer: turns targets into numbers.
        rows: which pairs each split has.
        inputs: `[N, S]` int32, or of pictures `[N, S, D]` uint8.
        mask: `[N, S]` bool, or of pictures None.
        answers: `[N, L]` int32, with `STOP` at the end and zero beyond it.
        answer_mask: `[N, L]` bool, up to `STOP` and with it.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    reader: Coder | None
    writer: Coder
    rows: Mapping[str, np.ndarray]
    inputs: np.ndarray
    mask: np.ndarray | None
    answers: np.ndarray
    answer_mask: np.ndarray

    @classmethod
    def of(
        cls,
        sources: Sequence[str],
        targets: Sequence[str],
        reader: Coder,
        writer: Coder,
        rows: Mapping[str, np.ndarray],
    ) -> Pairs:
        """Encodes pairs of texts, each side as long as its longest."""
        longest = max(len(reader.encode(text)) for text in sources)
        inputs, mask = encode_texts(reader, sources, longest)
        return cls(
            tuple(sources),
            tuple(targets),
            reader,
            writer,
            rows,
            inputs,
            mask,
            *_encode_answers(writer, targets),
        )

    @classmethod
    def of_pictures(
        cls,
        names: Sequence[str],
        pictures: np.ndarray,
        targets: Sequence[str],
        writer: Coder,
        rows: Mapping[str, np.ndarray],
    ) -> Pairs:
        """Pictures `[N, H, W, C]` uint8, read row by row, and what each is to be turned into."""
        inputs = pictures.reshape(*pictures.shape[:2], -1)
        return cls(
            tuple(names),
            tuple(targets),
            None,
            writer,
            rows,
            inputs,
            None,
            *_encode_answers(writer, targets),
        )


def _encode_answers(writer: Coder, targets: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Answers and their mask, as long as the longest."""
    steps = 1 + max(len(writer.encode(text)) for text in targets)
    return encode_texts(writer, targets, steps, stop=True)


class PairTask(Task):
    """Sequence to sequence on real pairs; subclasses say what `pairs` are.

    Source and target have lengths of their own: `inputs` and `mask` are `[B, S]`, `targets`,
    `weights` and `scored` `[B, L]`, so the model is a `Seq2Seq` (`experiment.EncoderDecoder`). A
    picture's `inputs` are `[B, S, D]`, the numbers of its rows, without a mask
    (`experiment.Captioner`).
    Training draws every pair of its part alike. `STOP` ends a target, and stands before it.

    Attributes:
        part: what is drawn from.
    """

    part: SplitName = "train"

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
        """Numbers that a source is made of, or D."""
        reader = self.pairs.reader
        return self.pairs.inputs.shape[-1] if reader is None else reader.size

    @property
    def out_features(self) -> int:
        """Numbers that a target is made of."""
        return self.pairs.writer.size

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> Self:
        """Pairs that are not learned from: some to choose by, others for the test."""
        return dataclasses.replace(self, part=purpose)

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws pairs: inputs `[B, S]` int32 or `[B, S, D]` float32, targets `[B, L]` int32."""
        pairs, rows = self.pairs, self.pairs.rows[self.part]
        chosen = jax.random.randint(key, (batch_size,), 0, len(rows), jnp.int32)
        inputs, mask, answers, scored = (
            None if array is None else jnp.asarray(array[rows])[chosen]
            for array in (pairs.inputs, pairs.mask, pairs.answers, pairs.answer_mask)
        )
        assert inputs is not None and answers is not None and scored is not None
        inputs = self.to_model_inputs(inputs)
        return Batch(inputs, answers, scored.astype(jnp.float32), scored, mask)

    def to_model_inputs(self, inputs: Any) -> Any:
        """Some of the pairs' inputs as a model is given them: of a picture's bytes parts of one."""
        return inputs if self.inputs_kind == "tokens" else inputs.astype(jnp.float32) / 255

    def floor(self) -> Floor:
        """The commonest answer at each step of the training part."""
        rows = self.pairs.rows["train"]
        counts = np.stack(
            [
                np.bincount(step[scored], minlength=self.out_features)
                for step, scored in zip(self.pairs.answers[rows].T, self.pairs.answer_mask[rows].T)
            ]
        )
        chances = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        surprise = -np.log(np.where(chances > 0, chances, 1))
        return Floor(
            float((counts * surprise).sum() / counts.sum()),
            float(counts.max(axis=1).sum() / counts.sum()),
            "the commonest at each step",
        )
