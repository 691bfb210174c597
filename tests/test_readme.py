"""What the documents say is run: their code, the cell of the README, the tables."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from experiments.harness import gallery
from experiments.harness.discovery import recorded_questions
from longlag.cli import compare
from longlag.cli.listing import catalogue
from longlag.runs import Experiment, cell_class
from longlag.testing.cells import check_cell

ROOT = Path(__file__).resolve().parent.parent
# Notebooks have a test of their own, and so has the page of the backward (test_step_scan.py).
ELSEWHERE = ("docs/tutorials/", "docs/design/backward.md")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if not page.relative_to(ROOT).as_posix().startswith(ELSEWHERE)
    ),
]
IMPORTS = "import jax\nimport jax.numpy as jnp\nimport longlag as ll\n"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(document: Path) -> list[str]:
    """The Python of a document, each block with its line numbers there."""
    text = document.read_text(encoding="utf-8")
    return ["\n" * text[: m.start(1)].count("\n") + m[1] for m in FENCE.finditer(text)]


def block_with(document: str, cell: str) -> str:
    return next(b for b in blocks(ROOT / document) if f"class {cell}(" in b).lstrip("\n")


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if "```python" in document.read_text(encoding="utf-8")],
    ids=lambda path: path.name,
)
def test_the_code_of_a_document_runs(document: Path):
    found = blocks(document)
    assert len(found) == document.read_text(encoding="utf-8").count("```python")
    names: dict[str, object] = {"__name__": document.stem}
    for block in found:  # each builds on those before
        exec(compile(block, document, "exec"), names)


def test_every_document_that_has_code_is_known():
    assert {path.name for path in DOCUMENTS if blocks(path)} >= {
        "README.md",
        "CONTRIBUTING.md",
        "data.md",
        "kernels.md",
        "masks-and-resets.md",
    }


@pytest.mark.parametrize(
    ("document", "cell", "most"),
    [
        ("README.md", "MGU", 8),
        ("CONTRIBUTING.md", "Leaky", 10),
        ("CONTRIBUTING.md", "Fading", 10),
    ],
)
def test_a_cell_is_a_few_lines(document: str, cell: str, most: int):
    source = block_with(document, cell)
    (found,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == cell)
    first = found.body[1] if ast.get_docstring(found) is not None else found.body[0]
    body = source.splitlines()[first.lineno - 1 : found.end_lineno]
    written = [line for line in body if line.strip()]
    assert len(written) <= most, "\n".join(written)
    assert all(len(line) <= 100 for line in source.splitlines())
    assert ";" not in source


@pytest.mark.parametrize(
    ("document", "name", "features"),
    [("README.md", "MGU", 3), ("CONTRIBUTING.md", "Leaky", 3), ("CONTRIBUTING.md", "Fading", 4)],
)
def test_the_cells_of_the_documents_keep_the_contract(
    tmp_path: Path, document: str, name: str, features: int
):
    file = tmp_path / "file.py"
    file.write_text(IMPORTS + block_with(document, name))
    check_cell(cell_class(f"{file}:{name}")(features))


def test_the_question_of_the_contributing_guide_can_be_put():
    names: dict[str, Any] = {"__name__": "my_question"}
    exec(next(b for b in blocks(ROOT / "CONTRIBUTING.md") if "my-question" in b), names)
    asked = names["question"]("cpu")
    assert asked.title.endswith("?") and len(asked.arms) == 3
    for job in asked.arms.values():
        assert jax.eval_shape(job.model.init, jax.random.key(0))


def test_the_cell_of_the_readme_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("file.py").write_text(IMPORTS + block_with("README.md", "MGU"))
    small = "--steps 10 --dispatch 5 --batch-size 8 --eval-size 16 --seeds 1 --width 8 --depth 1"
    argv = f"--cell file.py:MGU --task parity --task.max-length 8 --test-lags 12 {small}"
    assert compare.main([*argv.split(), "--out", "run"]) == 0
    rows = json.loads(Path("run/results.json").read_text())["rows"]
    assert [(row["arm"], row["steps"], row["lag"]) for row in rows] == [
        ("MGU", 10, 8),
        ("MGU", 10, 12),
    ]
    near, far = (f"{row['accuracy']:.2f}".removeprefix("0") for row in rows)
    assert f"median accuracy by lag: 8: {near}, 12: {far}\n" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.py", "run"]


RESULTS = [f"docs/results/{path.name}" for path in (ROOT / "docs" / "results").glob("*.md")]


@pytest.mark.parametrize("document", ["README.md", "experiments/README.md", *sorted(RESULTS)])
def test_the_commands_of_a_document_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
):
    """Every `longlag compare` that a reader might copy, up to the run itself."""
    monkeypatch.chdir(tmp_path)
    prepared: list[Experiment] = []

    def create(experiment: Experiment, *_: Any) -> Any:
        prepared.append(experiment)
        return SimpleNamespace(path=tmp_path / "run")

    monkeypatch.setattr(compare, "create", create)
    mgu = tmp_path / "path" / "to" / "file.py"
    mgu.parent.mkdir(parents=True)
    mgu.write_text(IMPORTS + block_with("README.md", "MGU"))
    text = (ROOT / document).read_text(encoding="utf-8")
    commands = re.findall(r"longlag compare([^`\n]*)", text)
    runs = [line.split() for line in commands if "--resume" not in line]
    for argv in runs:
        with compare._prepared(argv):
            pass
    assert len(prepared) == len(runs)
    assert document != "README.md" or len(runs) >= 3
    # A recorded table names the command as it was when it was recorded.
    prose = re.sub(r"<!-- ([\w -]+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    names = {"/".join(module.split(".")) for module in re.findall(r"python -m ([\w.]+)", prose)}
    assert all((ROOT / f"{name}.py").is_file() for name in names), names


def test_every_generated_part_is_that_of_the_committed_results():
    for file, text in gallery.documents().items():
        committed = (ROOT / file).read_text(encoding="utf-8")
        assert committed == text, f"{file}: run python -m experiments.harness.gallery"
    assert all(all(row) for row in catalogue()), "a cell without a reference"


def test_every_page_of_results_has_an_answer_a_figure_a_method_and_limits():
    pages = sorted((ROOT / gallery.PAGES).glob("*.md"))
    assert len(pages) > 25
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert gallery.page_of(text).answer, path
        images = re.findall(r"!\[.+\]\((.+)\)", text)
        assert images and all((path.parent / image).is_file() for image in images), path
        # The answer, the figure, then the table.
        assert text.index("<!-- ") < text.index("![") < text.index("\n| "), path
        links = re.findall(r"(?<!!)\[[^\]]+\]\((?!http)([^)#]+)", text)
        assert all((path.parent / link).is_file() for link in links), (path, links)
    index = (ROOT / gallery.INDEX).read_text(encoding="utf-8")
    assert len(index.splitlines()) <= 100
    assert all(f"(../docs/results/{path.name})" in index for path in pages)


def test_every_figure_draws_the_committed_results():
    for name, question in recorded_questions().items():
        results = question.results()
        plot = question.plot(results) if results and question.page_name else None
        if plot is not None:
            assert gallery.committed_checksum(name) == gallery.figure_checksum(plot), name
