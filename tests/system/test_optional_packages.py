"""A missing package of an extra is named, with the command that installs it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.real_data import captions, intents, speech, spoken_digits, translation
from longlag.cli.arguments import plain_errors
from longlag.cli.commands import COMMANDS
from longlag.system import optional_packages

ROOT = Path(__file__).resolve().parents[2]
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


WITHOUT = """
import importlib.metadata, sys

ABSENT = {"jinja2", "markupsafe", "matplotlib", "safetensors", "tyro"}
there = importlib.metadata.distribution

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def distribution(name):
    if name in ABSENT:
        raise importlib.metadata.PackageNotFoundError(name)
    return there(name)

sys.meta_path.insert(0, Absent())
importlib.metadata.distribution = distribution

import longlag
from longlag.cli import commands

for name in longlag.__all__:
    getattr(longlag, name)
for call in (lambda: longlag.save_safetensors("x", {}), lambda: longlag.load_safetensors("x"),
             lambda: importlib.import_module("longlag.report"),
             lambda: importlib.import_module("experiments")):
    try:
        call()
    except ImportError as error:
        print(error)
commands.main(["--help"])
for name in commands.COMMANDS:
    try:
        commands.main([name])
    except SystemExit as left:
        assert left.code == 2
"""


def test_without_the_extra_experiments_the_library_works_and_a_command_names_it(tmp_path: Path):
    script = tmp_path / "without.py"
    script.write_text(WITHOUT)
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    first, second, third, fourth, *_ = done.stdout.splitlines()
    install = 'pip install "longlag[experiments]"'
    assert first == second == f"safetensors files need more packages: {install}"
    assert third == f"reports need more packages: {install}"
    missing = f"expected these packages too, jinja2, matplotlib, tyro: {install}"
    assert fourth == missing
    assert done.stderr.splitlines() == [f"error: {missing}"] * len(COMMANDS)
