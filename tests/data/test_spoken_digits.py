"""Voices that are made, and human ones: who is in which part, and that a sound is told right."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from longlag.data import espeak, spoken_digits
from longlag.data.espeak import timbres  # itself, whatever a fixture puts in its place
from longlag.data.spoken_digits import SILENCE, features
from longlag.system.atomic_files import DiskError


def test_parts_have_every_language_and_no_timbre_is_in_two(few_voices):
    train, validation, test = few_voices.train, few_voices.validation, few_voices.test
    for part, of_each in ((train, 17), (validation, 1), (test, 1)):
        assert np.bincount(part.languages).tolist() == [of_each] * 5
        assert part.features.shape == (5 * of_each, 10, 43, 96) and part.lengths.min() >= 4
        ends = np.arange(43) >= part.lengths[..., None]
        assert (part.features[ends] == np.float16(SILENCE)).all()
        # Every recording is loud somewhere.
        assert (part.features.max(axis=(2, 3)) > -2).all()
    flat = [{row.tobytes() for row in part.features} for part in (train, validation)]
    assert len(flat[0]) == 85 and not flat[0] & flat[1]


def test_a_voice_speaks_as_asked():
    voices = [espeak.Voice("en-us", "f2", speed) for speed in (100, 200)]
    ((slow, slower), (quick, _)), rate = espeak.say(["seven", "seven seven"], voices)
    assert rate == 22050 and 0.1 < np.abs(slow / 2**15).max() <= 1 and slow.dtype == np.int16
    assert len(quick) < 0.8 * len(slow) < len(slow) < 0.8 * len(slower)
    with pytest.raises(ValueError, match=r"expected an accent and a timbre.*'xx-none'"):
        espeak.say(["seven"], [espeak.Voice("xx-none")])
    assert {"f1", "m7", "whisper"} <= {*timbres()}


def test_what_a_voice_says_depends_on_nothing_said_before():
    voice = espeak.Voice("en-us", "f2")  # breathes at random
    ((first, second),), _ = espeak.say(["4", "4"], [voice])
    assert not np.array_equal(first, second), "within a process the library goes on where it ended"
    ((again,),), _ = espeak.say(["4"], [voice])
    np.testing.assert_array_equal(again, first)


def test_a_tone_is_in_its_band():
    """The oracle: the centres of 32 triangles, evenly spaced in mels from 20 to 4,000 Hz."""
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    centres = np.linspace(mel(20), mel(4000), 34)[1:-1]
    for hertz in (300, 1000, 2500):
        sound = 0.5 * np.sin(2 * np.pi * hertz * np.arange(4800) / 8000)
        told = features(sound.astype(np.float32)).reshape(20, 3, 32)
        assert (
            told.argmax(axis=-1)[2:-2].tolist()
            == [[np.abs(centres - mel(hertz)).argmin()] * 3] * 16
        )
    # Twice as loud is four times the power.
    louder = features(2 * sound.astype(np.float32)).reshape(20, 3, 32)
    np.testing.assert_allclose((louder - told).max(axis=-1), np.log(4), atol=0.02)
    assert (features(np.zeros(800, np.float32)) == np.float32(SILENCE)).all()


def test_the_telephone_keeps_the_loudest_and_loses_the_rest():
    time = np.arange(8000) / 8000
    sound = (0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    heard = spoken_digits._pass_through_telephone(sound)
    assert abs(len(heard) - 8000) < 160 and 0.6 < np.abs(heard).max() < 0.8
    spectrum = np.abs(np.fft.rfft(heard[:8000]))
    assert spectrum.argmax() == pytest.approx(440, abs=2)


def test_what_was_made_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LONGLAG_DATA", str(tmp_path))
    monkeypatch.setattr(spoken_digits, "LANGUAGES", ("it",))
    made = spoken_digits.synthesise(["f1"], 1)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("spoken-digits-") and len(made) == 1

    def silent(*_):
        raise AssertionError("it was there")

    monkeypatch.setattr(espeak, "say", silent)
    found = spoken_digits.synthesise(["f1"], 1)
    np.testing.assert_array_equal(found.features, made.features)
    # What ends while it is written leaves nothing.
    monkeypatch.undo()
    monkeypatch.setenv("LONGLAG_DATA", str(tmp_path / "other"))
    monkeypatch.setattr(spoken_digits, "LANGUAGES", ("it",))
    monkeypatch.setattr(np, "savez", lambda file, **_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(DiskError, match=r"cannot write the data to .*full"):
        spoken_digits.synthesise(["f1"], 1)
    assert not [*(tmp_path / "other").iterdir()]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError, match=r"expected digits/0\.gsm in"):
        spoken_digits.human_recordings("it", tmp_path)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r'pip install "longlag\[data\]"'):
        spoken_digits.human_recordings("it")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r'pip install "longlag\[data\]"'):
        timbres()


def test_human_recordings_are_those_of_the_package():
    # The sizes of the files: 33 bytes are 20 ms, three frames of 10 ms a step.
    for language, package in spoken_digits.HUMAN.items():
        for digit, told in enumerate(spoken_digits.human_recordings(language)):
            (file,) = package.folder().rglob(f"sounds/*/digits/{digit}.gsm")
            assert len(told) == file.stat().st_size // 33 * 2 // 3
