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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import agreement, family, intents, questions, reproduce
from longlag import report
from longlag.catalogue import COLUMNS as COLUMNS_OF_CATALOGUE
from longlag.catalogue import catalogue
from longlag.command_line import console, plain_errors
from longlag.disk import replace_file
from longlag.report.table import COLUMNS, insert, lines, markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
CATALOGUE = "docs/cells.md"
# The marker that a table stands at, by file; one question may stand in several.
TABLES = {
    "demo": ("README.md", "experiments/README.md"),
    "intents": ("experiments/README.md",),
    "agreement": ("docs/agreement.md",),
    **{f"family-{question}": ("experiments/README.md",) for question in family.QUESTIONS},
    **{f"reproduce-{name}": ("experiments/README.md",) for name in reproduce.PROTOCOLS},
}


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
        also = ("meta", "roles", "threshold", "probes", "floor", "preset")
        kept = {k: results[k] for k in also if k in results}
        kept["rows"] = [
            {k: v for k, v in row.items() if k != "by_position"} for row in results["rows"]
        ]
        folder = RESULTS / question
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "cpu.json", json.dumps(kept, indent=1) + "\n")
        for plot in sorted((run / "plots").glob("*.png")):
            shutil.copyfile(plot, folder / plot.name)
    for question, files in TABLES.items():
        made = table(question)
        for file in files if made else ():
            path = ROOT / file
            path.write_text(insert(path.read_text(encoding="utf-8"), question, made), "utf-8")
            console.print(f"{question}: table in {file}")
    path = ROOT / CATALOGUE
    made = markdown(COLUMNS_OF_CATALOGUE, catalogue())
    path.write_text(insert(path.read_text(encoding="utf-8"), "catalogue", made), "utf-8")
    return 0


def table(question: str) -> str:
    """The table of a question in Markdown, from its committed JSON; empty if there is none."""
    file = RESULTS / question / "cpu.json"
    if not file.is_file():
        return ""
    results = json.loads(file.read_text(encoding="utf-8"))
    if question == "intents":
        return _section(intents.COLUMNS, intents.lines(results), results, intents.verdict(results))
    if question.startswith("family-"):
        return _section(
            questions.COLUMNS, questions.lines(results), results, questions.verdict(results)
        )
    if question.startswith("reproduce-"):
        name = question.removeprefix("reproduce-")
        found = reproduce.lines(name, results), results, reproduce.verdict(name, results)
        return _section(reproduce.COLUMNS, *found)
    if question == "agreement":
        parts = (markdown(agreement.COLUMNS, agreement.lines(results)), agreement.verdict(results))
        return "\n\n".join([*parts, _source(results["meta"])])
    cells = report.summarise(results["rows"], results["threshold"], results.get("roles", {}))
    text = []
    for heading, group in lines(cells).items():
        task = heading.partition(" · ")[0]
        for line in group:
            near, far = (_spread(*spread[:2]) for spread in (line.accuracy, line.far))
            cost = (line.parameters, line.state, line.time)
            text.append((task, line.arm, near, far, line.outcome, *cost))
    found = "\n".join(report.findings(cells, results.get("roles", {})))
    return _section(("task", *COLUMNS), text, results, found)


def _section(
    columns: Sequence[str], rows: Sequence[Sequence[str]], results: dict[str, Any], found: str
) -> str:
    source = f"{_source(results['meta'])} Median over the seeds, their range in brackets."
    return "\n".join([markdown(columns, rows), "", found, "", source])


def _spread(median: str, spread: str) -> str:
    return f"{median} ({spread})" if spread else median


def _source(meta: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    return (
        f"`{meta['command']}` on {meta['device']}, {meta['wall_seconds']:.0f} s in all; commit "
        f"`{(meta['commit'] or 'none')[:10]}`; {versions}."
    )


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.record", description=__doc__))
