"""Captions: emoji as small pictures, and their names."""

from __future__ import annotations

import functools

from longlag.data.coders import Pieces
from longlag.data.emoji import load, split
from longlag.tasks.pairs import Pairs, PairTask

__all__ = ["Captions", "pairs"]


@functools.cache
def pairs(language: str, pieces: int) -> Pairs:
    """Loads, splits and encodes, once per process; arguments as the fields of `Captions`."""
    emoji = load(language)
    parts = split(emoji)
    writer = Pieces.of((emoji.captions[i] for i in parts.train), pieces)
    rows = {part: getattr(parts, part) for part in ("train", "validation", "test")}
    return Pairs.of_pictures(emoji.sequences, emoji.pictures, emoji.captions, writer, rows)


class Captions(PairTask):
    """Captions: give the name of an emoji from its picture of 32 x 32 pixels.

        inputs  32 rows of 32 pixels: 🙌🏻
        targets raising hands: light skin tone

    What is held out is combinations, of a role and a gender or of both and a tone of skin, whose
    parts are learned in others (`longlag.data.emoji.split`). Pixels are red, green and blue in
    [0, 1].

    Floor: the commonest piece at each step. The floor that matters, the name of the nearest picture
    of training, is scored by `experiments.real_data.captions`.

    Attributes:
        language: of the names, such as en, fr or ja.
        pieces: of words.
        part: what is drawn from.

    Raises:
        ValueError: an impossible dial.
        FileNotFoundError: the data are not there; the message says how to get them.

    Reference: the task of Xu et al. 2015, arXiv 1502.03044; the data, docs/data.md.
    """

    language: str = "en"
    pieces: int = 1000

    inputs_kind = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.pieces >= 512, "pieces >= 512")

    @property
    def pairs(self) -> Pairs:
        """The emoji."""
        return pairs(self.language, self.pieces)

    def picture(self) -> str:
        """One of the pairs."""
        return (
            "inputs  32 rows of 32 pixels: \U0001f64c\U0001f3fb\n"
            "targets raising hands: light skin tone"
        )
