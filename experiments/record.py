"""Record a finished comparison: its JSON is committed, and the documents' tables come from it.

    python -m experiments.record runs/demo demo
    python -m experiments.record            (makes the tables again from what is committed)

No number in README.md, experiments/README.md or docs/ is typed by hand; a test makes the tables
again.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import (
    agreement,
    attention_vs_recurrence,
    family,
    intents,
    lag_horizon,
    questions,
    reproduce,
    state_tracking,
)
from longlag import report
from longlag.catalogue import COLUMNS as COLUMNS_OF_CATALOGUE
from longlag.catalogue import catalogue
from longlag.command_line import console, plain_errors
from longlag.disk import replace_file
from longlag.report.table import COLUMNS, insert, lines, markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
CATALOGUE = "docs/cells.md"
FLAGSHIP = "attention-vs-recurrence"
# The files with the marker that a table stands at, where it is not experiments/README.md alone.
FILES = {"demo": ("README.md", "experiments/README.md"), "agreement": ("docs/agreement.md",)}
NONE = "Not recorded yet."
# What results.json holds that is committed, beside the rows.
KEPT = ("meta", "roles", "threshold", "probes", "floor", "preset", "trials", "knock_outs")


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
        kept = {k: results[k] for k in KEPT if k in results}
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
    made = markdown(COLUMNS_OF_CATALOGUE, catalogue())
    path.write_text(insert(path.read_text(encoding="utf-8"), "catalogue", made), "utf-8")
    return 0


def files(question: str) -> tuple[str, ...]:
    """The documents that have the table of a question."""
    return FILES.get(question, ("experiments/README.md",))


def table(question: str) -> str:
    """The table of a question in Markdown, from its committed JSON."""
    if question == FLAGSHIP:
        return _flagship()
    results = _committed(question)
    return NONE if results is None else TABLES[question](results)


def _committed(question: str) -> dict[str, Any] | None:
    file = RESULTS / question / "cpu.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _flagship(_: dict[str, Any] | None = None) -> str:
    """All axes of the flagship in one table."""
    axes = {axis: _committed(f"{FLAGSHIP}-{axis}") for axis in attention_vs_recurrence.AXES}
    there = {axis: results for axis, results in axes.items() if results is not None}
    if not there:
        return NONE
    lines = attention_vs_recurrence.summary(there)
    hours = sum(results["meta"]["core_hours"] for results in there.values())
    return (
        f"{markdown(attention_vs_recurrence.SUMMARY, lines)}\n\nSeeds that did each task, of those "
        f"that tried. {hours:.1f} core-hours in all."
    )


def _axis(axis: str, results: dict[str, Any]) -> str:
    """One axis of the flagship, and what its hybrids do without a part."""
    found = attention_vs_recurrence.verdict(axis, results)
    made = _section(questions.COLUMNS, questions.lines(results), results, found)
    knocked = attention_vs_recurrence.knock_out_lines(results)
    columns = attention_vs_recurrence.KNOCK_OUT_COLUMNS
    return "\n\n".join([made, *([markdown(columns, knocked)] if knocked else [])])


def _question(results: dict[str, Any]) -> str:
    lines = questions.lines(results)
    return _section(questions.COLUMNS, lines, results, questions.verdict(results))


def _protocol(name: str, results: dict[str, Any]) -> str:
    found = reproduce.verdict(name, results)
    return _section(reproduce.COLUMNS, reproduce.lines(name, results), results, found)


def _horizon(results: dict[str, Any]) -> str:
    columns, lines = lag_horizon.columns(results), lag_horizon.lines(results)
    return _section(columns, lines, results, lag_horizon.verdict(results))


def _intents(results: dict[str, Any]) -> str:
    return _section(intents.COLUMNS, intents.lines(results), results, intents.verdict(results))


def _agreement(results: dict[str, Any]) -> str:
    parts = (markdown(agreement.COLUMNS, agreement.lines(results)), agreement.verdict(results))
    return "\n\n".join([*parts, _source(results["meta"])])


def _demo(results: dict[str, Any]) -> str:
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
    used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    table = markdown([columns[i] for i in used], [[row[i] for i in used] for row in rows])
    return "\n".join([table, "", found, "", source])


def _spread(median: str, spread: str) -> str:
    return f"{median} ({spread})" if spread else median


def _source(meta: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    return (
        f"`{meta['command']}` on {meta['device']}, {meta['wall_seconds']:.0f} s in all; commit "
        f"`{(meta['commit'] or 'none')[:10]}`; {versions}."
    )


# How the table of a question is made of its results.
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": _demo,
    "intents": _intents,
    "agreement": _agreement,
    **{f"family-{question}": _question for question in family.QUESTIONS},
    **{f"reproduce-{name}": functools.partial(_protocol, name) for name in reproduce.PROTOCOLS},
    FLAGSHIP: _flagship,
    **{
        f"{FLAGSHIP}-{axis}": functools.partial(_axis, axis)
        for axis in attention_vs_recurrence.AXES
    },
    "selective-copy": _question,
    "lag-horizon": _horizon,
    "recall-capacity": _question,
    **{f"state-tracking-{task}": _question for task in state_tracking.TASKS},
    "attention-kinds": _question,
}


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.record", description=__doc__))
