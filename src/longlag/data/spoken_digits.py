"""Spoken digits in five languages: learned from synthetic voices, to be heard from a human one.

The voices are made by eSpeak NG (`longlag.data.espeak`); the human recordings, one voice a
language, are the prompts of the Asterisk telephone exchange, from Debian. Everything goes through
the codec of a telephone. docs/data.md says how they come here, and under which licences.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longlag.data import espeak
from longlag.data.debian import Package
from longlag.data.package_file import cache, check_writable, explain_write_errors
from longlag.system.optional_packages import needed_for

__all__ = [
    "ACCENTS",
    "FEATURES",
    "HUMAN",
    "LANGUAGES",
    "LONGEST",
    "SILENCE",
    "DigitRecordings",
    "DigitSplits",
    "features",
    "human_recordings",
    "load",
    "synthesise",
]

LANGUAGES = ("en", "es", "fr", "it", "ru")
_FILES = {  # size and SHA-256
    "en": (2_417_168, "ddc33205a56aebf54c73a0fb95c3a0d8131087878d74857a4e54bcab2b0d72ae"),
    "es": (3_004_752, "533b4c29e232cae99f89a6933b5fc0af5341514e513924df401c683e222614b7"),
    "fr": (2_466_860, "97bd8bebb7ef775046802a5a466d8f89916f54f437e158a1ec537cef814d44fd"),
    "it": (2_311_332, "fb6d6ce94502894714f00240c372a291bcaa4cd3e05fdf278780a4dd9edfabab"),
    "ru": (2_415_624, "19770f5c211e8c3a1dc8eefd703382570da7edf00c52db069ebc2a64d5dda4bd"),
}
HUMAN = {
    language: Package(
        name=f"asterisk-core-sounds-{language}-gsm",
        version="1.6.1-1",
        size=size,
        sha256=sha256,
        licence="CC-BY-3.0" if language in ("it", "ru") else "CC-BY-SA-3.0",
    )
    for language, (size, sha256) in _FILES.items()
}
ACCENTS = {
    "en": ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029"),
    "es": ("es", "es-419"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "it": ("it",),
    "ru": ("ru", "ru-lv"),
}
# Of the timbres those that sound like a throat: no robots, no demon, nobody who whispers. The last
# three drawl.
_LEFT_OUT = ("robo", "demonic", "whisper", "tweaky", "fast", "announcer", "alicia", "andy", "marco")
# Words a minute. A human who reads prompts is slower than eSpeak's usual 175.
_SPEED = (100, 200)
_PITCH = (20, 80)
OF_EACH = 2  # voices of each language and timbre

TELEPHONE = 8000  # samples a second
BANDS = 32
STACKED = 3  # frames of 10 ms, side by side in a step
FEATURES = BANDS * STACKED
LONGEST = 43  # steps of a recording, 1.29 s
SILENCE = float(np.log(1e-6))  # of a band: what is softer is the codec's own noise


@dataclasses.dataclass(frozen=True, eq=False)
class DigitRecordings:
    """Voices, each of which says the ten digits of one language.

    Attributes:
        features: `[V, 10, 43, 96]` float16, the logarithms of 32 mel bands in three frames of
            10 ms a step; silence after the end.
        lengths: `[V, 10]` int32, steps of each recording.
        languages: `[V]` int32, of `LANGUAGES`.
    """

    features: np.ndarray
    lengths: np.ndarray
    languages: np.ndarray

    def __len__(self) -> int:
        return len(self.languages)


@dataclasses.dataclass(frozen=True, eq=False)
class DigitSplits:
    """The splits.

    Attributes:
        train: synthetic voices.
        validation: synthetic voices of other timbres.
        test: the human voice of each language.
    """

    train: DigitRecordings
    validation: DigitRecordings
    test: DigitRecordings


@functools.cache
def load() -> DigitSplits:
    """Makes the synthetic voices speak, or finds in the cache what they said; reads the human ones.

    Once per process. Other versions of the packages that make the sounds make other data.

    Raises:
        ImportError: a package of the extra "data" is missing.
        ValueError, FileNotFoundError, DiskError: see `longlag.data.package_file`.
    """
    timbres = [t for t in espeak.timbres() if not any(no in t.lower() for no in _LEFT_OUT)]
    # Names of one speaker's several timbres follow each other, and so stay in one part.
    held = {t for t in timbres if timbres.index(t) % 20 >= 17}
    return DigitSplits(
        train=synthesise([timbre for timbre in timbres if timbre not in held], OF_EACH),
        validation=synthesise([timbre for timbre in timbres if timbre in held], OF_EACH),
        test=_pack_recordings([human_recordings(language) for language in LANGUAGES], LANGUAGES),
    )


def synthesise(timbres: Iterable[str], voices: int) -> DigitRecordings:
    """What some timbres say, in all languages, at a speed and a pitch drawn for each voice.

    Args:
        timbres: of `espeak.timbres()`.
        voices: of each language and timbre.
    """
    drawn = np.random.default_rng(0)
    chosen = [
        (
            language,
            espeak.Voice(
                accent=str(drawn.choice(ACCENTS[language])),
                timbre=timbre,
                speed=int(drawn.integers(*_SPEED, endpoint=True)),
                pitch=int(drawn.integers(*_PITCH, endpoint=True)),
            ),
        )
        for timbre in timbres
        for language in LANGUAGES
        for _ in range(voices)
    ]
    return _load_or_make(tuple(chosen))


def _load_or_make(voices: tuple[tuple[str, espeak.Voice], ...]) -> DigitRecordings:
    """What voices say, with the language of each: from the cache, or made and put there."""
    makers = ("espeakng-loader", "kaldi-native-fbank", "soundfile", "scipy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in makers]
    made_by = Path(__file__).read_bytes() + Path(espeak.__file__).read_bytes()
    known = hashlib.sha256(repr((voices, versions)).encode() + made_by).hexdigest()
    there = cache() / f"spoken-digits-{known[:12]}.npz"
    if there.is_file():
        with np.load(there) as arrays:
            return DigitRecordings(**arrays)
    check_writable(there)
    recordings = _record_voices([voice for _, voice in voices])
    packed = _pack_recordings(recordings, [language for language, _ in voices])
    with explain_write_errors(there):
        number, aside = tempfile.mkstemp(prefix=f".{there.name}-", dir=there.parent)
        try:
            with os.fdopen(number, "wb") as file:
                np.savez(file, **dataclasses.asdict(packed))
            Path(aside).rename(there)
        finally:
            Path(aside).unlink(missing_ok=True)
    return packed


def _record_voices(voices: Sequence[espeak.Voice]) -> list[list[np.ndarray]]:
    """The features of the ten digits of each voice."""
    from scipy.signal import resample_poly

    of_voices, rate = espeak.say([str(digit) for digit in range(10)], voices)
    common = int(np.gcd(rate, TELEPHONE))
    up, down = TELEPHONE // common, rate // common
    return [
        [
            features(
                _pass_through_telephone(resample_poly(sound.astype(np.float32) / 2**15, up, down))
            )
            for sound in sounds
        ]
        for sounds in of_voices
    ]


def human_recordings(language: str, path: str | Path | None = None) -> list[np.ndarray]:
    """The features of the ten digits as a human says them.

    Args:
        language: of `LANGUAGES`.
        path: the package file, or a folder that it was unpacked into; None: the cache, or apt.

    Raises:
        ImportError, ValueError, FileNotFoundError, DiskError: as `load`.
    """
    package = HUMAN[language]
    folder = package.folder(path)
    recordings = []
    for digit in range(10):
        files = sorted(folder.rglob(f"sounds/*/digits/{digit}.gsm"))
        if not files:
            raise FileNotFoundError(f"{package.name}: expected digits/{digit}.gsm in {folder}")
        recordings.append(features(_decode_gsm(files[0].read_bytes())))
    return recordings


def _pack_recordings(
    recordings: list[list[np.ndarray]], languages: Iterable[str]
) -> DigitRecordings:
    """Recordings of the ten digits by each voice, one after another in time no more."""
    lengths = np.array([[len(one) for one in of_voice] for of_voice in recordings], np.int32)
    if lengths.max() > LONGEST:
        raise ValueError(f"expected at most {LONGEST} steps of a digit, got {lengths.max()}")
    filled = np.full((*lengths.shape, LONGEST, FEATURES), SILENCE, np.float16)
    for row, of_voice in zip(filled, recordings):
        for steps, one in zip(row, of_voice):
            steps[: len(one)] = one
    return DigitRecordings(
        filled, lengths, np.array([LANGUAGES.index(name) for name in languages], np.int32)
    )


def features(sound: np.ndarray) -> np.ndarray:
    """Computes log mel features of a sound: 32 bands, three frames of 10 ms a step.

    Args:
        sound: `[samples]` float32, 8,000 a second, in [-1, 1].

    Returns:
        `[steps, 96]` float32.
    """
    fbank = _packages()[1]
    options = fbank.FbankOptions()
    options.frame_opts.samp_freq = TELEPHONE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = BANDS
    made = fbank.OnlineFbank(options)
    made.accept_waveform(TELEPHONE, sound.tolist())
    made.input_finished()
    frames = np.stack([made.get_frame(i) for i in range(made.num_frames_ready)])
    whole = len(frames) - len(frames) % STACKED
    return np.maximum(frames[:whole], SILENCE).reshape(-1, FEATURES).astype(np.float32)


_GSM = {"format": "RAW", "subtype": "GSM610"}


def _pass_through_telephone(sound: np.ndarray) -> np.ndarray:
    """A sound as GSM 06.10, the full-rate codec of 1990s mobile telephones, leaves it."""
    soundfile, _ = _packages()
    coded = io.BytesIO()
    loudest = max(float(np.abs(sound).max(initial=0.0)), 1e-3)
    soundfile.write(coded, 0.7 * sound / loudest, TELEPHONE, **_GSM)
    return _decode_gsm(coded.getvalue())


def _decode_gsm(coded: bytes) -> np.ndarray:
    soundfile, _ = _packages()
    sound, _ = soundfile.read(
        io.BytesIO(coded), samplerate=TELEPHONE, channels=1, dtype="float32", **_GSM
    )
    return sound


def _packages() -> tuple[Any, Any]:
    with needed_for("sounds"):
        import kaldi_native_fbank
        import soundfile
    return soundfile, kaldi_native_fbank
