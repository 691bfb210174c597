"""Text as numbers and back: characters, or pieces of words that byte-pair encoding finds."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from longlag.system.optional_packages import needed_for

__all__ = ["STOP", "UNKNOWN", "Characters", "Coder", "Pieces", "encode_texts"]

STOP, UNKNOWN = 0, 1


class Coder(Protocol):
    """A coder of text as numbers. Every coder has the numbers `STOP` and `UNKNOWN`."""

    @property
    def size(self) -> int:
        """How many numbers there are."""
        ...

    def encode(self, text: str) -> list[int]:
        """The numbers of a text, without `STOP`."""
        ...

    def decode(self, numbers: Sequence[int]) -> str:
        """The text again."""
        ...

    def name_of(self, number: int) -> str:
        """How a number is written in a picture."""
        ...


@dataclasses.dataclass(frozen=True)
class Characters:
    """One number for each character; others are unknown.

    Attributes:
        known: the characters, in order.
    """

    known: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> Characters:
        """The characters of some texts."""
        return cls("".join(sorted(set().union(*texts))))

    @property
    def size(self) -> int:
        """The known characters, `STOP` and `UNKNOWN`."""
        return len(self.known) + 2

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.known, 2)}

    def encode(self, text: str) -> list[int]:
        """A number for each character."""
        return [self._numbers.get(character, UNKNOWN) for character in text]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text again; what is unknown is a �."""
        return "".join(self.name_of(number) for number in numbers)

    def name_of(self, number: int) -> str:
        """The character."""
        return {STOP: "■", UNKNOWN: "�"}.get(number) or self.known[number - 2]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Pieces of words by byte-pair encoding; what no piece covers is spelt in bytes.

    So there is no unknown word, neither in what is read nor in what is said.

    Attributes:
        model: as sentencepiece keeps it.

    Reference: Sennrich, Haddow and Birch 2016, arXiv 1508.07909; Kudo and Richardson 2018,
    arXiv 1808.06226.
    """

    model: bytes

    @classmethod
    def of(cls, texts: Iterable[str], size: int) -> Pieces:
        """The most frequent pieces of some texts; the same texts give the same ones.

        Args:
            texts: to learn from: those of training alone.
            size: numbers in all, of which 256 are bytes.

        Raises:
            ImportError: sentencepiece is not installed.
            ValueError: more pieces than the texts have, or fewer than their characters.
        """
        made = io.BytesIO()
        try:
            _library().SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=made,
                vocab_size=size,
                model_type="bpe",
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                eos_id=STOP,
                unk_id=UNKNOWN,
                bos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(f"expected texts that give {size} pieces; {error}") from error
        return cls(made.getvalue())

    @functools.cached_property
    def _processor(self) -> Any:
        return _library().SentencePieceProcessor(model_proto=self.model)

    @property
    def size(self) -> int:
        """Pieces, bytes, `STOP` and `UNKNOWN`."""
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """A number for each piece."""
        return self._processor.encode(text)

    def decode(self, numbers: Sequence[int]) -> str:
        """The text again."""
        return self._processor.decode([int(number) for number in numbers])

    def name_of(self, number: int) -> str:
        """The piece; a word begins with a ▁."""
        return "■" if number == STOP else self._processor.id_to_piece(int(number))


def encode_texts(
    coder: Coder, texts: Sequence[str], length: int, stop: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Texts as an array.

    Args:
        coder: how.
        texts: N of them.
        length: T, at least that of the longest.
        stop: end each by `STOP`.

    Returns:
        Numbers `[N, T]` int32, zero at padding, and mask `[N, T]` bool.

    Raises:
        ValueError: a text is longer.
    """
    numbers = np.zeros((len(texts), length), np.int32)
    mask = np.zeros((len(texts), length), bool)
    for row, text in enumerate(texts):
        encoded = coder.encode(text) + [STOP] * stop
        if len(encoded) > length:
            raise ValueError(
                f"expected a text of at most {length} pieces, got {len(encoded)}: {text!r}"
            )
        numbers[row, : len(encoded)] = encoded
        mask[row, : len(encoded)] = True
    return numbers, mask


def _library() -> Any:
    with needed_for("pieces of words"):
        import sentencepiece
    return sentencepiece
