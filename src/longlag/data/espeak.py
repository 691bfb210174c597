"""Synthetic voices: eSpeak NG, whose library the package espeakng-loader brings.

It makes speech from the resonances of a throat and from no recordings, so its voices are many and
none is anybody's. It is under the GPL, version 3 or later, and is loaded only where it is to speak.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from longlag.extras import needed_for

__all__ = ["Voice", "say", "timbres"]

# Of espeak_ng/speak_lib.h.
_SYNCHRONOUS = 2
_RATE, _PITCH = 1, 3
_UTF8 = 1

# What the library calls has to live as long as it.
_CALLED: list[Any] = []
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Voice(NamedTuple):
    """Who speaks, and how.

    Attributes:
        accent: a language or an accent of it by the name eSpeak gives it, such as fr-be.
        timbre: one of `timbres()`; "" is the accent's own.
        speed: words a minute, 80 to 450.
        pitch: 0 to 99.
    """

    accent: str
    timbre: str = ""
    speed: int = 175
    pitch: int = 50


def timbres() -> tuple[str, ...]:
    """The names of all timbres, in alphabetical order.

    Raises:
        ImportError: espeakng-loader is not installed.
    """
    return tuple(sorted(os.listdir(_data() / "voices" / "!v")))


def say(texts: Sequence[str], voice: Voice) -> tuple[list[np.ndarray], int]:
    """Speaks each text by itself. One thread of a process at a time.

    Returns:
        Sounds, `[samples]` float32 in [-1, 1] each, and the samples of a second.

    Raises:
        ImportError: espeakng-loader is not installed.
        ValueError: there is no such voice.
    """
    library, rate, heard = _library()
    name = voice.accent + (f"+{voice.timbre}" if voice.timbre else "")
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise ValueError(f"voice: expected an accent and a timbre of eSpeak NG, got {voice}")
    library.espeak_SetParameter(_RATE, voice.speed, 0)
    library.espeak_SetParameter(_PITCH, voice.pitch, 0)
    sounds = []
    for text in texts:
        heard.clear()
        said = text.encode()
        if library.espeak_Synth(said, len(said) + 1, 0, 0, 0, _UTF8, None, None) != 0:
            raise RuntimeError(f"eSpeak NG refused to speak {text!r}")
        samples = np.concatenate([np.zeros(0, np.int16), *heard])
        sounds.append(samples.astype(np.float32) / 2**15)
    return sounds, rate


def _data() -> Path:
    with needed_for("voices"):
        import espeakng_loader
    return Path(espeakng_loader.get_data_path())


@functools.cache
def _library() -> tuple[Any, int, list[np.ndarray]]:
    """The library, its samples of a second, and where it puts what it speaks."""
    data = _data()
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0)
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG cannot read its voices in {data}")
    heard: list[np.ndarray] = []

    @_Callback
    def hear(samples, count, events):
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(hear)
    _CALLED.append(hear)
    return library, rate, heard
