"""The tutorials run: every cell of every page, with warnings as errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from longlag.cli import compare
from longlag.runs import Experiment
from tests.helpers.tutorial import ROOT, code_cells, lines_of_code

PAGES = sorted(p for p in (ROOT / "docs" / "tutorials").glob("*.md") if p.stem != "index")
# The cheapest, which `make test` runs.
QUICK = {"write-a-cell"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.stem in QUICK else pytest.mark.deep, id=page.stem)
        for page in PAGES
    ],
)
def test_the_cells_of_a_tutorial_run(page: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.tutorial", page],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["figures"] or len(done.stdout.splitlines()) > 1, "nothing to be seen"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_is_short_and_all_its_code_is_cells(page: Path):
    text = page.read_text(encoding="utf-8")
    assert "file_format: mystnb" in text and "name: python3" in text
    assert 0 < lines_of_code(page) < 100
    assert len(code_cells(page)) == text.count("```{code-cell}")


def test_the_commands_of_the_tutorials_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prepared: list[Experiment] = []
    monkeypatch.chdir(tmp_path)

    def create(experiment: Experiment, *_: object) -> SimpleNamespace:
        prepared.append(experiment)
        return SimpleNamespace(path=tmp_path / "run")

    monkeypatch.setattr(compare, "create", create)
    page = ROOT / "docs" / "tutorials" / "write-a-cell.md"
    file = tmp_path / "path" / "to" / "file.py"
    file.parent.mkdir(parents=True)
    file.write_text(next(c for c in code_cells(page) if "class MGU" in c).partition("\ncell =")[0])
    commands = [
        line.removeprefix("longlag compare ").split()
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("longlag compare ")
    ]
    for argv in commands:
        with compare._prepared(argv):
            pass
    assert len(prepared) == len(commands) == 2
