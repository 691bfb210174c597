"""The real utterances, from the wheel of aeon: the standard split, as its authors describe it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from longlag.data import japanese_vowels
from longlag.data.japanese_vowels import PACKAGE, load


def test_the_utterances_are_those_of_the_package():
    utterances = load()
    for part, count in ((utterances.train, 270), (utterances.test, 370)):
        assert part.cepstra.shape == (count, 29, 12) and part.cepstra.dtype == np.float32
        assert part.mask.sum() == part.lengths.sum() and part.lengths.min() == 7
        assert not part.cepstra[~part.mask].any() and part.cepstra[part.mask].any(axis=1).all()
        assert (np.diff(part.speakers) >= 0).all()
    assert np.bincount(utterances.train.speakers).tolist() == [30] * 9
    assert utterances.test.lengths.max() == 29
    digest = hashlib.sha256(utterances.test.cepstra.tobytes()).hexdigest()
    assert digest[:12] == "b873a38a2421"


def test_the_file_is_read_right():
    """The oracle: the last coefficient of the third test utterance, cut out of the text by hand."""
    (file,) = PACKAGE.folder().rglob("JapaneseVowels_TEST.ts")
    line = file.read_text().partition("@data\n")[2].split("\n")[2]
    numbers = [float(word) for word in line.split(":")[11].split(",")]
    part = load().test
    assert part.lengths[2] == len(numbers) and part.speakers[2] == int(line[-1]) - 1
    np.testing.assert_array_equal(part.cepstra[2, : len(numbers), 11], np.float32(numbers))


GOOD = ":".join(["0.5,1.5"] * 12)
BAD = {
    "eleven coefficients": ":".join(["0.5"] * 11) + ":1",
    "coefficients of two lengths": f"0.5:{GOOD[8:]}:1",
    "words": GOOD.replace("1.5", "x") + ":1",
    "no numbers": ":" * 12 + "1",
    "a tenth speaker": f"{GOOD}:10",
    "no speaker": GOOD,
    "thirty steps": ":".join([",".join(["1"] * 30)] * 12) + ":1",
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_a_damaged_line_is_named(tmp_path: Path, line: str):
    file = tmp_path / "JapaneseVowels_TRAIN.ts"
    file.write_text(f"# made up\n@data\n{GOOD}:9\n")
    assert japanese_vowels._read(file).cepstra[0, :3, 0].tolist() == [0.5, 1.5, 0.0]
    file.write_text(f"# made up\n@data\n{GOOD}:9\n{line}\n")
    with pytest.raises(ValueError, match="line 4: expected 12 series of at most 29 numbers"):
        load(str(tmp_path))


def test_a_folder_without_the_utterances_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"expected JapaneseVowels_TRAIN\.ts"):
        load(tmp_path)
    (tmp_path / "JapaneseVowels_TRAIN.ts").write_text(f"@data\n{GOOD}:9\n")
    with pytest.raises(ValueError, match=r"expected \[30, .*got \[0, .* 1\]"):
        load(tmp_path / ".")
