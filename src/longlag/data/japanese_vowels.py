"""Japanese vowels: nine men say /ae/, and the question is WHO speaks, not what is said.

Every utterance says the same two vowels, so this is speaker identification and no speech
recognition. Kudo, Toyama and Shimbo 1999, "Multidimensional curve classification using
passing-through regions"; from the wheel of aeon, docs/data.md says how it comes here.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from longlag.data.python_package import Distribution

__all__ = ["CEPSTRA", "LONGEST", "PACKAGE", "SPEAKERS", "VowelSplits", "VowelUtterances", "load"]

PACKAGE = Distribution(
    name="aeon",
    version="1.6.0",
    size=6_421_000,
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    licence="BSD-3-Clause",
    file_name="aeon-1.6.0-py3-none-any.whl",
)
SPEAKERS = 9
CEPSTRA = 12
LONGEST = 29
# Utterances of each speaker, of the standard split.
TRAIN = (30,) * SPEAKERS
TEST = (31, 35, 88, 44, 29, 24, 40, 50, 29)


@dataclasses.dataclass(frozen=True, eq=False)
class VowelUtterances:
    """Utterances with their speakers, in the order of the file: speaker by speaker.

    Attributes:
        cepstra: `[N, 29, 12]` float32, LPC cepstrum coefficients, zero after the end.
        lengths: `[N]` int32, steps of each utterance, 7 to 29.
        speakers: `[N]` int32, 0 to 8.
    """

    cepstra: np.ndarray
    lengths: np.ndarray
    speakers: np.ndarray

    def __len__(self) -> int:
        return len(self.speakers)

    @property
    def mask(self) -> np.ndarray:
        """`[N, 29]` bool, true at the steps of each utterance."""
        return np.arange(LONGEST) < self.lengths[:, None]

    def __getitem__(self, rows: np.ndarray) -> VowelUtterances:
        """Some of the utterances, by index or by a mask."""
        return VowelUtterances(self.cepstra[rows], self.lengths[rows], self.speakers[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class VowelSplits:
    """The standard split.

    Attributes:
        train: 270 utterances, 30 of each speaker.
        test: 370 utterances, 24 to 88 of each speaker, recorded on other occasions.
    """

    train: VowelUtterances
    test: VowelUtterances


@functools.cache
def load(path: str | Path | None = None) -> VowelSplits:
    """Reads the data set, once per process.

    Args:
        path: the wheel or a folder that it was unpacked into; None: the cache, or pip.

    Raises:
        ValueError, FileNotFoundError, DiskError: see `longlag.data.package_file`.
    """
    root = PACKAGE.folder(path)
    return VowelSplits(_read_split(root, "TRAIN", TRAIN), _read_split(root, "TEST", TEST))


def _read_split(root: Path, name: str, counts: tuple[int, ...]) -> VowelUtterances:
    file = f"JapaneseVowels_{name}.ts"
    paths = sorted(root.rglob(file))
    if not paths:
        raise FileNotFoundError(f"{PACKAGE.name}: expected {file} in {root}")
    utterances = _read(paths[0])
    counted = np.bincount(utterances.speakers, minlength=SPEAKERS).tolist()
    if counted != [*counts]:
        raise ValueError(
            f"{paths[0]}: expected {[*counts]} utterances of the speakers, got {counted}"
        )
    return utterances


def _read(path: Path) -> VowelUtterances:
    """The utterances of a .ts file: `#` and `@` begin its head, then there is one on each line.

    A line has a series of numbers for each coefficient, then the speaker from 1, between colons.
    """
    utterances, speakers = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line[0] in "#@":
            continue
        try:
            *series, speaker = line.split(":")
            steps = np.array([one.split(",") for one in series], np.float32).T
            fits = steps.shape[1] == CEPSTRA and 1 <= len(steps) <= LONGEST
            if not fits or int(speaker) not in range(1, SPEAKERS + 1):
                raise ValueError
        except (ValueError, IndexError):  # not numbers, or not as many of each coefficient
            raise ValueError(
                f"{path}, line {number}: expected {CEPSTRA} series of at most {LONGEST} numbers "
                f"and a speaker from 1 to {SPEAKERS}, between colons; got {line[:60]!r}"
            ) from None
        utterances.append(steps)
        speakers.append(int(speaker) - 1)
    cepstra = np.zeros((len(utterances), LONGEST, CEPSTRA), np.float32)
    for row, steps in zip(cepstra, utterances):
        row[: len(steps)] = steps
    lengths = np.array([len(steps) for steps in utterances], np.int32)
    return VowelUtterances(cepstra, lengths, np.array(speakers, np.int32))
