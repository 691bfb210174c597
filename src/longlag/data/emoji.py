"""Emoji: small pictures with the names that people gave them, from two Debian packages.

docs/data.md says how they come here, under which licences, and what is left out.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from longlag.core.spec import choose
from longlag.data.debian import Package
from longlag.data.splits import Splits, share
from longlag.system.optional_packages import needed_for

__all__ = [
    "FONT",
    "NAMES",
    "SIDE",
    "Composition",
    "Emoji",
    "decompose",
    "load",
    "pictures",
    "reduce_picture",
    "split",
    "strip_selectors",
]

FONT = Package(
    name="fonts-noto-color-emoji",
    version="2.042-0+deb12u1",
    size=9_893_872,
    sha256="a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
    licence="OFL-1.1 and Apache-2.0",
)
NAMES = Package(
    name="unicode-cldr-core",
    version="41-0.1",
    size=16_938_208,
    sha256="35d30d5d3bee4d8244e95236259c4c2a0db06e21bad696515751fcfeee4d0260",
    licence="Unicode-DFS-2016",
)
SIDE = 32
# Of the combinations; by a checksum of each, so that a part is the same everywhere.
TEST, VALIDATION = 0.10, 0.05
# Names that a language must have: a variety, such as en_GB, has those alone that differ.
LEAST = 3000

TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
PERSON, MAN, WOMAN, BOY, GIRL = "\U0001f9d1", "\U0001f468", "\U0001f469", "\U0001f466", "\U0001f467"
JOINER, SELECTOR = "\u200d", "\ufe0f"
SIGNS = {"\u2642": MAN, "\u2640": WOMAN}


class Composition(NamedTuple):
    """What an emoji is made of.

    Attributes:
        role: what is left of it, such as a fire engine beside a person.
        gender: `MAN` or `WOMAN`, `PERSON`, or "" where it names none.
        tones: of skin, none or one or two.
    """

    role: str
    gender: str
    tones: str


@dataclasses.dataclass(frozen=True, eq=False)
class Emoji:
    """N emoji, no two of them with the same picture.

    Attributes:
        sequences: the characters of each, without variation selectors.
        captions: their names.
        pictures: `[N, 32, 32, 3]` uint8, on white.
        made: what each is made of.
    """

    sequences: tuple[str, ...]
    captions: tuple[str, ...]
    pictures: np.ndarray
    made: tuple[Composition, ...]


@functools.cache
def load(
    language: str = "en", font: str | Path | None = None, names: str | Path | None = None
) -> Emoji:
    """Reads the pictures and their names, once per process.

    Args:
        language: of the names, such as en, fr or ja.
        font: the package file, or a folder that it was unpacked into; None: the cache, or apt.
        names: likewise.

    Raises:
        ImportError: fontTools is not installed.
        ValueError: a language that names few emoji or none, a damaged file, or what
            `Package.folder` refuses.
        FileNotFoundError, DiskError: see `longlag.data.debian.Package.folder`.
    """
    captions, drawn = _captions(language, names), pictures(font)
    both = [sequence for sequence in captions if sequence in drawn]
    # A picture of two names, such as the flag of Norway and of its islands, has no right caption.
    times = collections.Counter(drawn[sequence].tobytes() for sequence in both)
    kept = [sequence for sequence in both if times[drawn[sequence].tobytes()] == 1]
    return Emoji(
        sequences=tuple(kept),
        captions=tuple(captions[sequence] for sequence in kept),
        pictures=np.stack([drawn[sequence] for sequence in kept]),
        made=tuple(decompose(sequence) for sequence in kept),
    )


def decompose(sequence: str) -> Composition:
    """Takes an emoji apart: a role, a gender if it is a person's, tones of skin.

    Args:
        sequence: its characters, without variation selectors.
    """
    if sequence in TONES:  # by itself it is a patch of that colour
        return Composition(sequence, "", "")
    tones = "".join(c for c in sequence if c in TONES)
    base = "".join(c for c in sequence if c not in TONES)
    if base[-2:-1] == JOINER and base[-1] in SIGNS:
        return Composition(base[:-2], SIGNS[base[-1]], tones)
    # Of couples and families, who they are is the role.
    alone = not {*base[1:]} & {MAN, WOMAN, PERSON, BOY, GIRL}
    if base[0] in (MAN, WOMAN, PERSON) and base[1:2] == JOINER and alone:
        return Composition(base[1:], base[0], tones)
    return Composition(base, "", tones)


def split(emoji: Emoji) -> Splits:
    """Splits that share no combination: what is held out is new, but its parts are learned.

    Of the roles that several genders have, a tenth of the pairs of role and gender is for the test,
    in every tone; of what is then left with a tone a tenth of the tones. A twentieth of each is for
    validation, by the same rule.
    """
    genders = collections.defaultdict(set)
    for role, gender, _ in emoji.made:
        genders[role].add(gender)
    names = []
    for role, gender, tones in emoji.made:
        name = _split_of(role, gender) if len(genders[role]) > 1 else "train"
        if name == "train" and tones:
            name = _split_of(role, gender, tones)
        names.append(name)
    split_of = np.array(names)
    return Splits(*(np.flatnonzero(split_of == name) for name in ("train", "validation", "test")))


def _split_of(*combination: str) -> str:
    of_combination = share("\0".join(combination))
    if of_combination < TEST:
        return "test"
    return "validation" if of_combination >= 1 - VALIDATION else "train"


@functools.cache
def pictures(font: str | Path | None = None) -> dict[str, np.ndarray]:
    """All pictures of the font, by the characters of their emoji without variation selectors.

    Returns:
        `[32, 32, 3]` uint8 each; arguments and errors are those of `load`.
    """
    with needed_for("emoji"):
        from fontTools.ttLib import TTFont, TTLibError
    folder = FONT.folder(font)
    files = sorted(folder.rglob("NotoColorEmoji.ttf"))
    if not files:
        raise FileNotFoundError(f"{FONT.name}: expected NotoColorEmoji.ttf in {folder}")
    try:
        opened = TTFont(io.BytesIO(files[0].read_bytes()), lazy=True)
        glyphs, bitmaps = _glyphs(opened), opened["CBDT"].strikeData[0]
    except (TTLibError, KeyError) as error:
        raise ValueError(f"{files[0]}: expected a font with bitmaps; {error}") from error
    drawn = {
        name: reduce_picture(bitmaps[name].imageData) for name in {*glyphs.values()} & {*bitmaps}
    }
    return {sequence: drawn[name] for sequence, name in glyphs.items() if name in drawn}


def _glyphs(font: Any) -> dict[str, str]:
    """The glyph of every character, and of every sequence of them that is drawn as one."""
    names = {chr(code): name for code, name in font.getBestCmap().items()}
    characters = {name: character for character, name in names.items()}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable if lookup.LookupType == 4 else ():  # ligatures
            for first, ligatures in table.ligatures.items():
                for ligature in ligatures:
                    parts = (first, *ligature.Component)
                    if all(name in characters for name in parts):
                        names[strip_selectors("".join(characters[name] for name in parts))] = (
                            ligature.LigGlyph
                        )
    return names


def strip_selectors(sequence: str) -> str:
    """An emoji without the characters that only ask for a picture in place of a letter."""
    return sequence.replace(SELECTOR, "")


def reduce_picture(png: bytes) -> np.ndarray:
    """A picture, made 32 x 32 by the mean over boxes, on white: `[32, 32, 3]` uint8.

    Raises:
        ValueError: it is none.
    """
    with needed_for("emoji"):
        from PIL import Image, UnidentifiedImageError

    try:
        # Colours are weighted by how opaque they are, or what is hidden would show at the edges.
        picture = Image.open(io.BytesIO(png)).convert("RGBA").convert("RGBa")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"expected a picture, such as a PNG file; {error}") from error
    picture = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
    return picture[..., :3] + (255 - picture[..., 3:])


def _captions(language: str, names: str | Path | None) -> dict[str, str]:
    """The name of every emoji, by its characters without variation selectors."""
    folder = NAMES.folder(names)
    # Names that people gave, and names that are put together from them.
    files = [
        sorted(folder.rglob(f"{name}/*.xml")) for name in ("annotations", "annotationsDerived")
    ]
    both = set.intersection(*({file.stem for file in of_kind} for of_kind in files))
    if not both:
        raise FileNotFoundError(f"{NAMES.name}: expected annotations in {folder}")
    choose(language, sorted(both), "language")
    captions = {}
    for file in (file for of_kind in files for file in of_kind if file.stem == language):
        try:
            entries = ElementTree.parse(file).iter("annotation")
        except ElementTree.ParseError as error:
            raise ValueError(f"{file}: expected XML; {error}") from error
        for entry in entries:
            # Speech's one name, beside words to search by. Arrows stand for another language's.
            if entry.get("type") == "tts" and entry.text and "\u2191" not in entry.text:
                captions[strip_selectors(entry.get("cp", ""))] = entry.text
    if len(captions) < LEAST:
        raise ValueError(
            "language: expected one that names most emoji, such as en, fr or ja; "
            f"{language!r} names {len(captions):,} itself, and takes the others from another"
        )
    return captions
