"""Synthetic voices: eSpeak NG, whose library the package espeakng-loader brings.

It makes speech from the resonances of a throat and from no recordings, so its voices are many and
none is anybody's. It is under the GPL, version 3 or later, and is loaded only where it is to speak.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from longlag.system.optional_packages import needed_for

__all__ = ["Voice", "say", "timbres"]

# Of espeak_ng/speak_lib.h.
_SYNCHRONOUS = 2
_RATE, _PITCH = 1, 3
_UTF8 = 1
_NO_VOICE = 3  # the exit code of the process that speaks

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


def say(texts: Sequence[str], voices: Sequence[Voice]) -> tuple[list[list[np.ndarray]], int]:
    """Speaks each text by itself, by every voice.

    A new process speaks: the library goes on where its last sound ended, so that what it says
    depends on all that it said before. The same texts and voices make the same sounds.

    Returns:
        Sounds by voice and text, `[samples]` int16 each, and the samples of a second.

    Raises:
        ImportError: espeakng-loader is not installed.
        ValueError: there is no such voice.
        RuntimeError: the library fails.
    """
    _data()
    request = json.dumps([[*texts], [*voices]]).encode()
    command = (sys.executable, "-m", "longlag.data.espeak")
    done = subprocess.run(command, input=request, capture_output=True)
    if done.returncode:
        message = (done.stderr.decode().strip().splitlines() or ["eSpeak NG ended"])[-1]
        raise (ValueError if done.returncode == _NO_VOICE else RuntimeError)(message)
    with np.load(io.BytesIO(done.stdout)) as arrays:
        ends, samples = np.cumsum(arrays["lengths"]), arrays["samples"]
        rate = int(arrays["rate"])
    sounds = np.split(samples, ends[:-1])
    return [sounds[i : i + len(texts)] for i in range(0, len(sounds), len(texts))], rate


def _speak(texts: Sequence[str], voices: Sequence[Voice]) -> bytes:
    """What `say` asks of its process: an archive of `samples`, `lengths` and `rate`."""
    data = _data()
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0)
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG cannot read its voices in {data}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of breath; without it the time is the seed
    heard: list[np.ndarray] = []

    @_Callback
    def hear(samples: Any, count: int, events: int | None) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(hear)
    sounds = []
    for voice in voices:
        name = voice.accent + (f"+{voice.timbre}" if voice.timbre else "")
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"voice: expected an accent and a timbre of eSpeak NG, got {voice}")
        library.espeak_SetParameter(_RATE, voice.speed, 0)
        library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        for text in texts:
            heard.clear()
            encoded = text.encode()
            if library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None) != 0:
                raise RuntimeError(f"eSpeak NG refused to speak {text!r}")
            sounds.append(np.concatenate([np.zeros(0, np.int16), *heard]))
    archive = io.BytesIO()
    lengths = np.array([len(sound) for sound in sounds])
    np.savez(archive, samples=np.concatenate(sounds), lengths=lengths, rate=rate)
    return archive.getvalue()


def _data() -> Path:
    with needed_for("voices"):
        import espeakng_loader
    return Path(espeakng_loader.get_data_path())


if __name__ == "__main__":
    _texts, _voices = json.load(sys.stdin)
    try:
        sys.stdout.buffer.write(_speak(_texts, [Voice(*voice) for voice in _voices]))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(_NO_VOICE)
