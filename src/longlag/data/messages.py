"""Messages of programs with human translations, from gettext catalogues of Debian packages.

docs/data.md says how they come here, under which licences, and what is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import gettext
import re
import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from longlag.core.spec import choose
from longlag.data.debian import Package
from longlag.data.splits import Splits, share

__all__ = ["SOURCES", "Messages", "Source", "load", "split", "tidy"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A package with catalogues.

    Attributes:
        package: which.
        accelerators: an underscore in its messages marks the key of a menu entry and is no letter.
            In a compiler's messages it belongs to a name.
    """

    package: Package
    accelerators: bool


SOURCES = (
    Source(
        Package(
            name="gcc-12-locales",
            version="12.2.0-14+deb12u1",
            size=1_759_384,
            sha256="a701516b5e34086f478b0a329dfd9dd8e1695e8bac5917a6b162a87719abe28f",
            licence="GPL-3+",
        ),
        accelerators=False,
    ),
    Source(
        Package(
            name="gimp-data",
            version="2.10.34-1+deb12u10",
            size=14_214_540,
            sha256="89007a69d4ef2b0440e5419e75d4112cfd1c49e97db38220d210b9f86322be7c",
            licence="GPL-3+",
        ),
        accelerators=True,
    ),
    Source(
        Package(
            name="evolution-common",
            version="3.46.4-2+deb12u1",
            size=8_545_480,
            sha256="52e3a67ba3f2815fa864f600f5e3c2afd6ebc0b3487b50525df75006d4172b46",
            licence="LGPL-2 or LGPL-3",
        ),
        accelerators=True,
    ),
)
WORDS = range(3, 16)
# Of the strings; by a checksum of each, so that a part is the same everywhere.
TEST, VALIDATION = 0.10, 0.05
_NO_TEXT = re.compile(r"[%{<\n]")
_LIKE = {"’": "'", "‘": "'", "ʼ": "'"}


@dataclasses.dataclass(frozen=True, eq=False)
class Messages:
    """Pairs, every source once.

    Attributes:
        sources: in English, of 3 to 15 words.
        targets: the translation of each.
        keys: of each source its words alone, in lower case: sources of one key are one string.
        packages: `[N]` int32, the first package that each source is in.
        names: of the packages.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    keys: tuple[str, ...]
    packages: np.ndarray
    names: tuple[str, ...]


@functools.cache
def load(
    language: str = "fr", sources: tuple[Source, ...] = SOURCES, given: tuple[str | Path, ...] = ()
) -> Messages:
    """Reads and cleans the catalogues, once per process.

    Args:
        language: of the translation, such as fr, de or es.
        sources: the packages.
        given: their files, or folders that they were unpacked into, where there is no apt; empty:
            the cache, or apt. A file is unpacked into the cache and found there the next time.

    Raises:
        ValueError: a language that a package does not have, a damaged catalogue, another number of
            paths than of packages, or what `Package.folder` refuses.
        FileNotFoundError, DiskError: see `longlag.data.debian.Package.folder`.
    """
    if given and len(given) != len(sources):
        raise ValueError(f"given: expected {len(sources)} paths, one a package; got {len(given)}")
    translations: dict[str, tuple[str, int]] = {}  # English -> the other, the package
    for i, source in enumerate(sources):
        folder = source.package.folder(given[i] if given else None)
        files = sorted(folder.rglob("locale/*/LC_MESSAGES/*.mo"))
        if not files:
            raise FileNotFoundError(f"{source.package.name}: expected catalogues in {folder}")
        choose(language, sorted({f.parents[1].name for f in files}), "language")
        for file in files:
            if file.parents[1].name == language:
                for pair in _read(file):
                    english, other = (tidy(text, source.accelerators) for text in pair)
                    if _is_clean(english, other):
                        translations.setdefault(english, (other, i))
    return Messages(
        sources=tuple(translations),
        targets=tuple(other for other, _ in translations.values()),
        keys=tuple(" ".join(re.findall(r"\w+", text.casefold())) for text in translations),
        packages=np.array([i for _, i in translations.values()], np.int32),
        names=tuple(source.package.name for source in sources),
    )


def split(messages: Messages, by: Literal["string", "package"] = "string") -> Splits:
    """Splits that share no string, whatever its case and punctuation.

    Args:
        messages: the pairs.
        by: "string": a tenth of the strings is the test. "package": the last package is the test,
            but for strings that the others have too. A twentieth of what is left to learn from is
            for validation.
    """
    choose(by, ("string", "package"), "split")
    shares = np.array([share(key) for key in messages.keys])
    if by == "string":
        test, rest = shares < TEST, shares >= TEST
    else:
        last = messages.packages == len(messages.names) - 1
        known = {key for key, held in zip(messages.keys, last) if not held}
        test, rest = last & np.array([key not in known for key in messages.keys], bool), ~last
    validation = rest & (shares >= 1 - VALIDATION)
    return Splits(*(np.flatnonzero(part) for part in (rest & ~validation, validation, test)))


def tidy(text: str, accelerators: bool = False) -> str:
    """Text in one form: NFKC, straight apostrophes, single spaces; accelerators are taken out."""
    text = unicodedata.normalize("NFKC", text.replace("\n", "{"))
    if accelerators:
        text = re.sub(r"_(_?)", r"\1", text)
        text = re.sub(r"(?<!\w)&(?=\w)", "", text)
    return " ".join(text.translate(str.maketrans(_LIKE)).split())


def _is_clean(english: str, other: str) -> bool:
    marked = _NO_TEXT.search(english) or _NO_TEXT.search(other)
    return bool(other) and not marked and len(english.split()) in WORDS


def _read(file: Path) -> Iterator[tuple[str, str]]:
    """The pairs of a catalogue; of plural forms the singular."""
    try:
        with file.open("rb") as content:
            # gettext looks messages up and does not list them; what it has read is here.
            catalogue = vars(gettext.GNUTranslations(content))["_catalog"]
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected a gettext catalogue; {error}") from error
    for key, text in catalogue.items():
        message, form = key if isinstance(key, tuple) else (key, 0)
        if form == 0:
            yield message.rpartition("\x04")[2], text
