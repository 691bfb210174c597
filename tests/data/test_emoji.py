"""Pictures and names: the real packages, the parts that share no combination, what is refused."""

from __future__ import annotations

import io
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longlag.data import emoji
from longlag.data.emoji import MAN, PERSON, WOMAN, Emoji, decompose, load, reduce_picture, split


@pytest.fixture(scope="module")
def found() -> Emoji:
    return load()


def names(sequence: str) -> list[str]:
    return [unicodedata.name(character) for character in sequence]


def test_the_real_packages_have_what_is_said_of_them(found: Emoji):
    assert found.pictures.shape == (3613, 32, 32, 3) and found.pictures.dtype == np.uint8
    captions = dict(zip(found.sequences, found.captions, strict=True))
    assert captions["\U0001f64c\U0001f3fb"] == "raising hands: light skin tone"
    assert captions["\U0001f469\u200d\U0001f692"] == "woman firefighter"
    assert len({*captions.values()}) == len(captions)
    for flag in ("NO", "SJ", "FR", "AU"):  # each has the picture of another
        assert "".join(chr(ord(c) - 65 + 0x1F1E6) for c in flag) not in captions
    assert "".join(chr(ord(c) - 65 + 0x1F1E6) for c in "SE") in captions
    assert len({picture.tobytes() for picture in found.pictures}) == 3613
    # By another way: a red heart, most of which is red, on white.
    heart = found.pictures[found.sequences.index("\u2764")].astype(int)
    assert (heart[0, 0] == 255).all() and heart[14, 16, 0] > 2 * heart[14, 16, 1:].max()
    french = dict(zip(load("fr").sequences, load("fr").captions, strict=True))
    assert [*french] == [*captions] and french["\U0001f32e"] == captions["\U0001f32e"] == "taco"
    assert french["\U0001f3fb"] == "peau claire"


def test_an_emoji_is_made_of_a_role_a_gender_and_tones(found: Emoji):
    fire = "\u200d\U0001f692"
    assert decompose("\U0001f469\U0001f3fd" + fire) == (fire, WOMAN, "\U0001f3fd")
    assert decompose(PERSON + fire) == (fire, PERSON, "")
    assert decompose("\U0001f647\U0001f3ff\u200d\u2642") == ("\U0001f647", MAN, "\U0001f3ff")
    assert decompose("\U0001f647") == ("\U0001f647", "", "")
    couple = "\U0001f468\U0001f3fb\u200d\u2764\u200d\U0001f468\U0001f3ff"
    assert decompose(couple) == (
        "\U0001f468\u200d\u2764\u200d\U0001f468",
        "",
        "\U0001f3fb\U0001f3ff",
    )
    assert decompose("\U0001f3fd") == ("\U0001f3fd", "", "")
    for sequence, (role, gender, tones) in zip(found.sequences, found.made, strict=True):
        toned = sum("FITZPATRICK" in name for name in names(sequence))
        assert len(tones) == (0 if len(sequence) == 1 else toned)
        said = {MAN: "MALE SIGN", WOMAN: "FEMALE SIGN"}.get(gender)
        assert said is None or said in names(sequence)[-1] or sequence[0] == gender
        assert role and not {*role} & {*tones}


def test_what_is_held_out_is_new_and_its_parts_are_not(found: Emoji):
    parts = split(found)
    sizes = [len(part) for part in (parts.train, parts.validation, parts.test)]
    assert sizes == [3195, 135, 283]
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything) == [*range(3613)]
    learned = [found.made[i] for i in parts.train]
    words = {word for i in parts.train for word in found.captions[i].split()}
    for part in (parts.validation, parts.test):
        for i in part:
            role, gender, tones = found.made[i]
            assert (role, gender, tones) not in learned
            assert any(m.role == role and m[1:] != (gender, tones) for m in learned)
            assert any(m.gender == gender and m.role != role for m in learned)
            assert any(m.tones == tones and m.role != role for m in learned)
            assert words >= {*found.captions[i].split()}
    # A gender of a role is held out in all its tones, by one part.
    of_pair = {}
    for name, part in (
        ("train", parts.train),
        ("validation", parts.validation),
        ("test", parts.test),
    ):
        for i in part:
            of_pair.setdefault(found.made[i][:2], set()).add(name)
    whole = {pair for pair, where in of_pair.items() if "train" not in where}
    assert len(whole) == 35 and all(len(of_pair[pair]) == 1 for pair in whole)
    seen = {found.pictures[i].tobytes() for i in parts.train}
    assert not any(found.pictures[i].tobytes() in seen for i in (*parts.validation, *parts.test))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def test_a_picture_is_the_mean_of_boxes_on_white():
    large = np.random.default_rng(0).integers(0, 256, (64, 96, 4), np.uint8)
    opaque = large[..., 3:] / 255
    on_white = large[..., :3] * opaque + 255 * (1 - opaque)
    expected = on_white.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3))
    assert np.abs(reduce_picture(png(large)) - expected).max() < 2
    # What is hidden does not shine through.
    large[..., 3] = 0
    assert (reduce_picture(png(large)) == 255).all()
    with pytest.raises(ValueError, match="expected a picture, such as a PNG file"):
        reduce_picture(b"no picture")
    with pytest.raises(ValueError, match="expected a picture, such as a PNG file"):
        reduce_picture(png(large)[:400])


def test_what_is_not_there_or_damaged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"unknown language: .*; got 'frr'.* mean 'fr'"):
        load("frr")
    with pytest.raises(ValueError, match=r"expected one that names most emoji.*'en_GB' names 121"):
        load("en_GB")
    with pytest.raises(FileNotFoundError, match=r"unicode-cldr-core: expected annotations in"):
        load("en", None, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected NotoColorEmoji\.ttf in"):
        emoji.pictures(tmp_path)
    (tmp_path / "NotoColorEmoji.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match=r"NotoColorEmoji\.ttf: expected a font with bitmaps"):
        emoji.pictures.__wrapped__(tmp_path)
    for folder in ("annotations", "annotationsDerived"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "xx.xml").write_text("<ldml><annotation cp='")
    with pytest.raises(ValueError, match=r"xx\.xml: expected XML"):
        load("xx", None, tmp_path)
    truncated = tmp_path / emoji.NAMES.file
    truncated.write_bytes(b"!<arch>\n")
    with pytest.raises(
        ValueError, match=r"unicode-cldr-core: expected version 41-0\.1, 16,938,208"
    ):
        load("en", None, truncated)
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", None)
    with pytest.raises(ImportError, match=r"longlag\[data\]"):
        emoji.pictures.__wrapped__(tmp_path)
