"""Translation: what programs say in English, in another language."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from longlag.core.spec import choose
from longlag.data.coders import Pieces
from longlag.data.messages import load, split
from longlag.tasks.pairs import Pairs, PairTask

__all__ = ["Translation", "pairs"]


@functools.cache
def pairs(language: str, by: Literal["string", "package"], pieces: int, longest: int) -> Pairs:
    """Loads, splits and encodes, once per process; arguments as the fields of `Translation`."""
    messages = load(language)
    parts = split(messages, by)
    # Pieces are those of what is learned from: the test may have others, which bytes spell.
    sides = (messages.sources, messages.targets)
    reader, writer = (Pieces.of((side[i] for i in parts.train), pieces) for side in sides)
    short = [
        len(reader.encode(source)) <= longest and len(writer.encode(target)) <= longest
        for source, target in zip(*sides)
    ]
    sources, targets, rows = [], [], {}
    for part in ("train", "validation", "test"):
        kept = [i for i in getattr(parts, part) if short[i]]
        rows[part] = np.arange(len(sources), len(sources) + len(kept))
        sources += [messages.sources[i] for i in kept]
        targets += [messages.targets[i] for i in kept]
    return Pairs.of(sources, targets, reader, writer, rows)


class Translation(PairTask):
    """Translation: translate messages of programs from English, in pieces of words.

        inputs  Convert the image to grayscale
        targets Convertit l'image en niveaux de gris

    Floor: the commonest piece at each step. The floors that matter, the source as it stands and the
    translation of the nearest source of training, are scored by the experiment
    `translation`.

    Attributes:
        language: to translate into, such as fr, de or es.
        split: what is held out: "string", a tenth of the strings, or "package", a whole package.
        pieces: of words, in each of the two vocabularies.
        longest: pairs with more pieces on a side are left out.
        part: what is drawn from.

    Raises:
        ValueError: an impossible dial.
        FileNotFoundError: the data are not there; the message says how to get them.

    Reference: the task of Bahdanau, Cho and Bengio 2015, arXiv 1409.0473; the data, docs/data.md.
    """

    language: str = "fr"
    split: Literal["string", "package"] = "string"
    pieces: int = 2000
    longest: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.split, ("string", "package"), "Translation.split")
        self.require(self.pieces >= 512, "pieces >= 512")
        self.require(self.longest >= 1, "longest >= 1")

    @property
    def pairs(self) -> Pairs:
        """The messages."""
        return pairs(self.language, self.split, self.pieces, self.longest)

    def picture(self) -> str:
        """One of the pairs."""
        return (
            "inputs  Convert the image to grayscale\ntargets Convertit l'image en niveaux de gris"
        )
