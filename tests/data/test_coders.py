"""Text as numbers and back, and nothing that cannot be said."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from longlag.data.coders import STOP, UNKNOWN, Characters, Pieces, encode_texts

TEXTS = ["the small cat sat", "the smaller cat sits", "a cat, the smallest of all", "so it was"] * 5


def test_characters_go_there_and_back():
    coder = Characters.of(["abc", "cd e"])
    assert coder.known == " abcde" and coder.size == 8
    assert coder.decode(coder.encode("a bed")) == "a bed"
    assert coder.encode("xa") == [UNKNOWN, 3] and coder.decode([UNKNOWN, 3]) == "�a"
    assert STOP not in coder.encode("a bed") and coder.name_of(STOP) == "■"


def test_pieces_say_everything_and_are_the_same_again():
    coder = Pieces.of(TEXTS, 300)
    assert coder == Pieces.of(iter(TEXTS), 300) and coder.size == 300
    for text in (*TEXTS, "un œil 日本 & more"):
        numbers = coder.encode(text)
        assert coder.decode(numbers) == text and not {STOP, UNKNOWN} & {*numbers}
    assert len(coder.encode("the cat")) <= 3 and coder.name_of(coder.encode("the")[0]) == "▁the"
    assert coder.name_of(STOP) == "■"
    with pytest.raises(ValueError, match="expected texts that give 2000 pieces"):
        Pieces.of(TEXTS, 2000)


def test_texts_are_padded_and_stopped():
    coder = Characters("ab")
    numbers, mask = encode_texts(coder, ["ab", "a"], 3, stop=True)
    np.testing.assert_array_equal(numbers, [[2, 3, STOP], [2, STOP, 0]])
    np.testing.assert_array_equal(mask, [[True, True, True], [True, True, False]])
    with pytest.raises(ValueError, match="at most 1 pieces, got 2: 'ab'"):
        encode_texts(coder, ["ab"], 1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"longlag\[data\]"):
        Pieces.of(TEXTS, 300)
