"""The tutorials run: every cell of every page, with warnings as errors."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from longlag.cli import compare
from longlag.runs import Experiment
from longlag.training import MeshSizes
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


def commands(page: Path) -> list[str]:
    """The commands of a page that train one arm."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("longlag compare ")]


def definitions(page: Path) -> str:
    """What a reader puts into a file: the imports and the classes of the cells with a class."""
    trees = [ast.parse(cell) for cell in code_cells(page)]
    kinds = (ast.Import, ast.ImportFrom, ast.ClassDef)
    nodes = [node for tree in trees for node in tree.body if isinstance(node, kinds)]
    return ast.unparse(ast.Module(nodes, []))


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem) for page in PAGES if commands(page)]
)
def test_the_commands_of_a_tutorial_are_understood(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prepared: list[Experiment] = []
    monkeypatch.chdir(tmp_path)

    def create(experiment: Experiment, *_: object) -> SimpleNamespace:
        prepared.append(experiment)
        return SimpleNamespace(path=tmp_path / "run")

    monkeypatch.setattr(compare, "create", create)
    # The devices of a mesh are those of the reader, so its sizes are read and no more.
    monkeypatch.setattr(
        compare, "devices_of", lambda _, mesh: mesh == "auto" or MeshSizes.parse(mesh)
    )
    file = tmp_path / "path" / "to" / "file.py"
    file.parent.mkdir(parents=True)
    file.write_text(definitions(page))
    for command in commands(page):
        with compare._prepared(command.removeprefix("longlag compare ").split()):
            pass
    assert len(prepared) == len(commands(page))


def test_pages_with_commands_are_known():
    assert {"write-a-cell", "a-task-of-your-own"} <= {page.stem for page in PAGES if commands(page)}
