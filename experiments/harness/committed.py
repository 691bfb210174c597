"""What is committed of every question, as a table with what was found and where it comes from.

`experiments.harness.record` writes these into the documents. `experiments.harness.report` puts
them on one page.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.harness import costs, tables
from experiments.memory import (
    attention_vs_recurrence,
    family,
    lag_horizon,
    length_generalisation,
    state_tracking,
)
from experiments.published import protocols, reproduce
from experiments.real_data import captions, intents, language, speech, spoken_digits, translation
from longlag import report
from longlag.report.rows import COLUMNS, lines
from tests.peers import agreement

__all__ = ["FLAGSHIP", "RESULTS", "TABLES", "Section", "committed", "section"]

RESULTS = Path(__file__).resolve().parents[1] / "results"
FLAGSHIP = "attention-vs-recurrence"
MEDIANS = "Median over the seeds, their range in brackets."

Results = dict[str, Any]


class Section(NamedTuple):
    """What is said of a question.

    Attributes:
        columns: of its table.
        rows: of its table.
        found: the sentences under it.
        source: command, device, time and versions.
        further: another table, columns first.
        about: what that table is about, as the end of a heading.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    found: str
    source: str
    further: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    about: str = ""


def committed(question: str) -> Results | None:
    """The committed results of a question; None if there are none."""
    file = RESULTS / question / "cpu.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def section(question: str) -> Section | None:
    """What is said of a question; None before there is anything to say."""
    if question == FLAGSHIP:
        return _flagship()
    results = committed(question)
    return None if results is None else TABLES[question](results)


def _flagship(_: Results | None = None) -> Section | None:
    """All axes of the flagship in one table."""
    axes = {axis: committed(f"{FLAGSHIP}-{axis}") for axis in attention_vs_recurrence.AXES}
    there = {axis: results for axis, results in axes.items() if results is not None}
    if not there:
        return None
    hours = sum(results["meta"]["core_hours"] for results in there.values())
    columns, rows = _used(attention_vs_recurrence.SUMMARY, attention_vs_recurrence.summary(there))
    return Section(
        columns,
        rows,
        "Seeds that did each task, of those that tried.",
        f"{hours:.1f} core-hours in all; the source of each column stands under its own table.",
    )


def _axis(axis: str, results: Results) -> Section:
    """One axis of the flagship, and what its hybrids do without a part."""
    found = attention_vs_recurrence.verdict(axis, results)
    knocked = attention_vs_recurrence.knock_out_lines(results)
    table = tables.lines(results, attention_vs_recurrence.AXES[axis].beyond)
    made = _made(tables.COLUMNS, table, results, found)
    further = (attention_vs_recurrence.KNOCK_OUT_COLUMNS, knocked) if knocked else None
    return made._replace(further=further, about="What is left without a part")


def _question(results: Results) -> Section:
    """Arms, then what a token costs each where that was measured."""
    found = f"{tables.verdict(results)} {costs.note(results)}".strip()
    made = _made(tables.COLUMNS, tables.lines(results), results, found)
    measured = costs.lines(results)
    return made._replace(
        further=(costs.COLUMNS, measured) if measured else None, about="What a token costs"
    )


def _protocol(name: str, results: Results) -> Section:
    found = reproduce.verdict(name, results)
    return _made(reproduce.COLUMNS, reproduce.lines(name, results), results, found)


def _as(script: Any, results: Results, note: str = MEDIANS) -> Section:
    """The table as a script's own `columns` (or `COLUMNS`), `lines` and `verdict` have it."""
    columns = script.columns(results) if hasattr(script, "columns") else script.COLUMNS
    return _made(columns, script.lines(results), results, script.verdict(results), note)


def _translation(results: Results) -> Section:
    """Arms and floors, then quality against the length of the source."""
    made = _as(translation, results)
    return made._replace(
        further=translation.length_table(results), about="By the length of the source"
    )


def _intents(results: Results) -> Section:
    """Arms and floors, then how far each is ahead of another."""
    table = intents.difference_table(results)
    return _as(intents, results)._replace(further=table, about="Differences, and their intervals")


def _captions(results: Results) -> Section:
    """Arms and the floor, then what is exact by what is new in a picture."""
    made = _as(captions, results)
    return made._replace(further=captions.kind_table(results), about="By what is new")


def _demo(results: Results) -> Section:
    cells = report.summarise(results["rows"], results["threshold"], results.get("roles", {}))
    text = []
    for heading, group in lines(cells).items():
        task = heading.partition(" · ")[0]
        for line in group:
            near, far = (_spread(*spread[:2]) for spread in (line.accuracy, line.far))
            cost = (line.parameters, line.state, line.time)
            text.append((task, line.arm, near, far, line.outcome, *cost))
    found = "\n".join(report.findings(cells, results.get("roles", {})))
    return _made(("task", *COLUMNS), text, results, found)


def _made(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    results: Results,
    found: str,
    note: str = MEDIANS,
) -> Section:
    """A section without the columns that are empty in every row."""
    said = " ".join(filter(None, (source(results["meta"]), note)))
    return Section(*_used(columns, rows), found, said)


def _used(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    return [columns[i] for i in used], [[row[i] for i in used] for row in rows]


def _spread(median: str, spread: str) -> str:
    return f"{median} ({spread})" if spread else median


def source(meta: Results) -> str:
    """Where results come from, and where arms do that were added to them (`record --add`)."""
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    changed = " with uncommitted changes" if meta.get("dirty") else ""
    wall = "since it was resumed" if meta.get("resumed") else "in all"
    others = (
        f", and `{commit[:10]}` ({', '.join(runs) if len(runs) < 5 else f'{len(runs)} runs'})"
        for commit, runs in meta.get("commits", {}).items()
    )
    said = (
        f"`{meta['command']}` on {meta['device']}, {meta['wall_seconds']:.0f} s {wall}; commit "
        f"`{(meta['commit'] or 'none')[:10]}`{''.join(others)}{changed}; {versions}."
    )
    added = (f"{', '.join(more['arms'])}: {source(more)}" for more in meta.get("added", ()))
    return " ".join((said, *added))


# How the section of a question is made of its results.
TABLES: dict[str, Callable[[Results], Section | None]] = {
    "demo": _demo,
    "intents": _intents,
    "intents-quick": _intents,
    "speech": functools.partial(_as, speech),
    **dict.fromkeys(
        ("spoken-digits", "spoken-digits-quick"), functools.partial(_as, spoken_digits)
    ),
    "agreement": functools.partial(_as, agreement, note=""),
    **{f"family-{question}": _question for question in family.QUESTIONS},
    **{f"reproduce-{name}": functools.partial(_protocol, name) for name in protocols.PROTOCOLS},
    FLAGSHIP: _flagship,
    **{
        f"{FLAGSHIP}-{axis}": functools.partial(_axis, axis)
        for axis in attention_vs_recurrence.AXES
    },
    "selective-copy": _question,
    "lag-horizon": functools.partial(_as, lag_horizon),
    "recall-capacity": _question,
    **dict.fromkeys(
        ("length-generalisation", "length-generalisation-million"),
        functools.partial(_as, length_generalisation, note=""),
    ),
    **{f"state-tracking-{task}": _question for task in state_tracking.TASKS},
    "attention-kinds": _question,
    "language": functools.partial(_as, language),
    "language-quick": functools.partial(_as, language),
    "language-enwik8": functools.partial(_as, language),
    **dict.fromkeys(translation.RECORDED, _translation),
    **dict.fromkeys(captions.RECORDED, _captions),
}
