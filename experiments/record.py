"""Record a finished comparison: its JSON is committed, and the documents' tables come from it.

    python -m experiments.record runs/demo demo
    python -m experiments.record            (makes the tables again from what is committed)

No number in README.md, experiments/README.md or docs/ is typed by hand; a test makes the tables
again.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import tyro

from experiments.committed import RESULTS, TABLES, section
from longlag.catalogue import COLUMNS, catalogue
from longlag.command_line import console, plain_errors
from longlag.disk import replace_file
from longlag.report.table import insert, markdown

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = "docs/cells.md"
# The files with the marker that a table stands at, where it is not experiments/README.md alone.
FILES = {"demo": ("README.md", "experiments/README.md"), "agreement": ("docs/agreement.md",)}
# What results.json holds for the page of the run alone.
LEFT_OUT = ("attention", "by_lag", "confused", "curves", "lead", "question", "title", "trace")


def main(
    run: Annotated[Path | None, tyro.conf.Positional] = None,
    question: Annotated[str, tyro.conf.Positional] = "demo",
) -> int:
    """Copies a run's results to experiments/results, and makes all tables again.

    Args:
        run: a folder with results.json, or nothing: only make the tables.
        question: what the results answer; names the folder and the marker of the table.
    """
    if run is not None:
        if question not in TABLES:
            raise ValueError(f"question: expected one of {sorted(TABLES)}, got {question!r}")
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        kept = {k: v for k, v in results.items() if k not in LEFT_OUT}
        kept["rows"] = [
            {k: v for k, v in row.items() if k != "by_position"} for row in results["rows"]
        ]
        folder = RESULTS / question
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "cpu.json", json.dumps(kept, indent=1) + "\n")
        for plot in sorted((run / "plots").glob("*.png")):
            shutil.copyfile(plot, folder / plot.name)
    for question in TABLES:
        made = table(question)
        for file in files(question):
            path = ROOT / file
            path.write_text(insert(path.read_text(encoding="utf-8"), question, made), "utf-8")
            console.print(f"{question}: table in {file}")
    path = ROOT / CATALOGUE
    made = markdown(COLUMNS, catalogue())
    path.write_text(insert(path.read_text(encoding="utf-8"), "catalogue", made), "utf-8")
    return 0


def files(question: str) -> tuple[str, ...]:
    """The documents that have the table of a question."""
    return FILES.get(question, ("experiments/README.md",))


def table(question: str) -> str:
    """What the documents say of a question, in Markdown."""
    made = section(question)
    if made is None:
        return "Not recorded yet."
    parts = [markdown(made.columns, made.rows), made.found, made.source]
    return "\n\n".join([*parts, *([markdown(*made.further)] if made.further else [])])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.record", description=__doc__))
