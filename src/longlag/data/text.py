"""Texts, byte by byte, each with its usual split.

docs/data.md says where they come from and what their licences ask.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
from pathlib import Path

import numpy as np

from longlag.core.spec import choose
from longlag.data.debian import Package
from longlag.data.package_file import PackageFile
from longlag.data.python_package import Distribution

__all__ = ["ENWIK8", "JARGON", "TEXTS", "Text", "load", "repeats", "witten_bell"]

JARGON = Package(
    name="jargon-text",
    version="4.4.7-4.1",
    size=654_244,
    sha256="17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb",
    licence="public domain",
)
ENWIK8 = Distribution(
    name="minGRU-pytorch",
    version="0.2.1",
    size=36_568_913,
    sha256="fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d",
    licence="CC-BY-SA 3.0 and GFDL",
    file_name="mingru_pytorch-0.2.1.tar.gz",
)
# Where each text lies: its package, and the name of the file in it.
SOURCES: dict[str, tuple[PackageFile, str]] = {
    "jargon": (JARGON, "jargon.txt.gz"),
    "enwik8": (ENWIK8, "enwik8.gz"),
}
TEXTS = tuple(SOURCES)


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A text in three parts that follow each other.

    Attributes:
        train: `[N]` uint8.
        validation: `[M]` uint8.
        test: `[L]` uint8.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@functools.cache
def load(name: str = "jargon", path: str | Path | None = None) -> Text:
    """Reads a text, once per process.

    Args:
        name: "jargon" (the Jargon File 4.4.7, 1.7 MB of English) or "enwik8" (the first 100 MB of
            a dump of the English Wikipedia, XML and all), split 90 / 5 / 5.
        path: the package file or a folder that it was unpacked into; None: the cache, or fetched.

    Raises:
        ValueError: an unknown name, or see `longlag.data.package_file.PackageFile.folder`.
        FileNotFoundError, DiskError: see there.
    """
    choose(name, TEXTS, "text")
    package, file = SOURCES[name]
    root = package.folder(path)
    files = sorted(root.rglob(file))
    if not files:
        raise FileNotFoundError(f"{package.name}: expected {file} in {root}")
    content = np.frombuffer(gzip.decompress(files[0].read_bytes()), np.uint8)
    held = len(content) // 20
    return Text(*np.split(content, [len(content) - 2 * held, len(content) - held]))


def repeats(text: np.ndarray, order: int) -> np.ndarray:
    """How far back each byte's n-gram, the byte at its end, was last seen.

    Args:
        text: `[N]` uint8.
        order: n, from 1 to 8 bytes.

    Returns:
        `[N]` int64, the distance in bytes; 0 where it was not seen before.
    """
    codes = _codes(text, order)
    distances = np.zeros(len(text), np.int64)
    by_code = np.argsort(codes, kind="stable")
    same = codes[by_code][1:] == codes[by_code][:-1]
    distances[order - 1 :][by_code[1:][same]] = np.diff(by_code)[same]
    return distances


def witten_bell(train: np.ndarray, test: np.ndarray, order: int) -> np.ndarray:
    """Bits of each byte of a text under n-gram counts of another: what no network has to be.

        p_n(c | h) = (count(h c) + kinds(h) p_{n-1}(c | h')) / (count(h) + kinds(h))

    kinds(h) is the number of different bytes that follow h, h' is h without its first byte, and
    below p_1 every byte is alike.

    Args:
        train: `[N]` uint8, which is counted.
        test: `[L]` uint8; its first bytes are told by what stands before them in it alone.
        order: n of the longest n-gram, from 1 to 8.

    Returns:
        `[L]` float64.

    Reference: Witten and Bell 1991, "The zero-frequency problem"; interpolated as in Chen and
    Goodman 1998, section 2.5.
    """
    chance = np.full(len(test), 1 / 256)
    for n in range(1, order + 1):
        grams, counts = np.unique(_codes(train, n), return_counts=True)
        contexts, first = np.unique(grams >> np.uint64(8), return_index=True)
        kinds = np.diff([*first, len(grams)])
        totals = np.add.reduceat(counts, first)
        wanted = _codes(test, n)
        # A context not seen in training has no kinds, and leaves the shorter one its word.
        at, known = _find(contexts, wanted >> np.uint64(8))
        of_gram, seen = _find(grams, wanted)
        more = np.where(seen, counts[of_gram], 0)
        mixed = (more + kinds[at] * chance[n - 1 :]) / (totals[at] + kinds[at])
        chance[n - 1 :] = np.where(known, mixed, chance[n - 1 :])
    return -np.log2(chance)


def _codes(text: np.ndarray, n: int) -> np.ndarray:
    """The n-gram that ends at each byte from the n-th on, as a number: `[N - n + 1]` uint64."""
    if not 1 <= n <= 8:
        raise ValueError(f"order: expected 1 to 8 bytes, got {n}")
    codes = np.zeros(len(text) - n + 1, np.uint64)
    for i in range(n):
        codes = codes << np.uint64(8) | text[i : len(text) - n + 1 + i]
    return codes


def _find(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `wanted` is in `known`, which ascends, and whether it is there at all."""
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return at, known[at] == wanted
