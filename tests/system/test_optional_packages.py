"""A missing package of the extra "data" is named, with the command that installs it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from experiments.real_data import captions, intents, speech, spoken_digits, translation
from longlag.cli.arguments import plain_errors
from longlag.system import optional_packages

ABSENT = {"sacrebleu", "scikit-learn"}


@pytest.mark.parametrize(
    ("script", "needed"),
    [
        (intents, {"scikit-learn"}),
        (translation, ABSENT),
        (captions, {"sacrebleu"}),
        (speech, {"scikit-learn"}),
        (spoken_digits, {"scikit-learn"}),
    ],
)
def test_what_only_the_scores_need_is_missed_before_anything_runs(
    script,
    needed: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    there = importlib.metadata.distribution

    def absent(name: str):
        if name in ABSENT:
            raise importlib.metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(SystemExit) as ended, plain_errors():
        script.main(["--preset", "smoke", "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and not [*tmp_path.iterdir()]
    assert {name for name in ABSENT if name in said} == needed
    assert 'pip install "longlag[data]"' in said


def test_an_import_that_fails_says_who_needs_it():
    with (
        pytest.raises(ImportError, match=r'the floors need more packages: pip install "longlag\['),
        optional_packages.needed_for("the floors"),
    ):
        import longlag.no_such_module  # pyright: ignore  # noqa: F401
