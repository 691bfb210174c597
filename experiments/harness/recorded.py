"""How the committed results of a question are shown. A script says it in its `RECORDED`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.harness import costs, tables
from experiments.harness.tables import Results
from longlag.report.figures import multiple_of_lag

__all__ = [
    "HOW_TO_READ",
    "MEDIANS",
    "RESULTS",
    "FigureText",
    "Plot",
    "Recorded",
    "Section",
    "Table",
    "committed_results",
    "plot_accuracy",
    "source_line",
]

RESULTS = Path(__file__).resolve().parents[1] / "results"
HOW_TO_READ = "[How to read a table](../../experiments/README.md#how-to-read-a-table)."
MEDIANS = f"Numbers are medians over the seeds, with their range in brackets. {HOW_TO_READ}"


class Table(NamedTuple):
    """A second table of a page.

    Attributes:
        columns: its head.
        rows: of text.
        caption: what it shows, a sentence.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


class FigureText(NamedTuple):
    """The text around a picture that is committed beside the results.

    Attributes:
        heading: over it.
        legend: how to read it.
        sentence: what it shows.
        alt: for those who cannot see it.
    """

    heading: str
    legend: str
    sentence: str
    alt: str


class Plot(NamedTuple):
    """A figure that is drawn from results, by `longlag.report.figure`.

    Attributes:
        kind: of the figure.
        results: as it takes them.
        options: of that kind.
        caption: what the figure shows, in sentences; empty, what its kind shows.
    """

    kind: str
    results: Results
    options: Mapping[str, Any] = {}
    caption: str = ""


class Section(NamedTuple):
    """What the documents show of a question.

    Attributes:
        columns: of its table.
        rows: of its table.
        findings: the sentences under it.
        note: what the numbers in the table are.
        further: another table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: str
    note: str
    further: Table | None = None


def committed_results(name: str) -> Results | None:
    """The committed results of a question, or None if there are none."""
    file = RESULTS / name / "cpu.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def source_line(meta: Results) -> str:
    """Where results come from, and where arms do that were added to them (`record --add`)."""
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    changed = " with uncommitted changes" if meta.get("dirty") else ""
    wall = "since it was resumed" if meta.get("resumed") else "in all"
    others = (
        f", and `{commit[:10]}` ({', '.join(runs) if len(runs) < 5 else f'{len(runs)} runs'})"
        for commit, runs in meta.get("commits", {}).items()
    )
    first = (
        f"`{meta['command']}` on {meta['device']}, {meta['wall_seconds']:.0f} s {wall}; commit "
        f"`{(meta['commit'] or 'none')[:10]}`{''.join(others)}{changed}; {versions}."
    )
    added = (f"{', '.join(more['arms'])}: {source_line(more)}" for more in meta.get("added", ()))
    return " ".join((first, *added))


def plot_accuracy(results: Results) -> Plot:
    """Accuracy by arm at the trained lag, and at the longest lag that was tested."""
    far = max(multiple_of_lag(row) for row in results["rows"])
    return Plot("accuracy", {"rows": results["rows"]}, {"far": far})


def _verdict(results: Results) -> str:
    return f"{tables.verdict(results)}\n{costs.note(results)}".strip()


def _costs(results: Results) -> Table:
    return Table(costs.COLUMNS, costs.cost_lines(results), "What a token costs.")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A question whose results are committed, or will be.

    The defaults show the rows that `questions.ask` writes: a line for each arm, and what a token
    costs where that was measured.

    Attributes:
        name: of its folder in experiments/results, and of its markers in the documents.
        title: its heading on the page of all questions.
        order: its place on that page; equal numbers stay in the order of the modules' names.
        columns: of its table, or a function from the results to them. A column that is empty in
            every row is left out.
        lines: results to the rows of the table.
        verdict: results to the sentences under it.
        note: a sentence after those.
        further: results to a second table, shown if it has rows.
        figure: results to the figure of its page. By default `plot_accuracy` for a question with a
            page of its own and no pictures.
        pictures: the text around each committed picture, by the name of its file.
        combines: the names of recorded questions by a key. They are results of this one, by that
            key. Empty for a question with results of its own.
        page: its page in docs/results. Empty: a page of its own; None: no page.
        documents: others that have its table.
    """

    name: str
    title: str
    order: int = 1000
    columns: Sequence[str] | Callable[[Results], Sequence[str]] = tables.COLUMNS
    lines: Callable[[Results], Sequence[Sequence[str]]] = tables.lines
    verdict: Callable[[Results], str] = _verdict
    note: str = MEDIANS
    further: Callable[[Results], Table | None] = _costs
    figure: Callable[[Results], Plot] | None = None
    pictures: Mapping[str, FigureText] = dataclasses.field(default_factory=dict)
    combines: Mapping[str, str] = dataclasses.field(default_factory=dict)
    page: str | None = ""
    documents: tuple[str, ...] = ()

    @property
    def page_name(self) -> str | None:
        """The name of its page in docs/results, or None."""
        return self.name if self.page == "" else self.page

    def plot(self, results: Results) -> Plot | None:
        """The figure that is drawn for its page, if there is one."""
        if self.figure is not None:
            return self.figure(results)
        return None if self.pictures or self.page else plot_accuracy(results)

    def results(self) -> Results | None:
        """What is committed, or None before there is anything."""
        if not self.combines:
            return committed_results(self.name)
        by_key = {key: committed_results(name) for key, name in self.combines.items()}
        return {key: results for key, results in by_key.items() if results is not None} or None

    def section(self, results: Results) -> Section:
        """What the documents show of these results."""
        columns = self.columns(results) if callable(self.columns) else self.columns
        rows = self.lines(results)
        used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
        further = self.further(results)
        return Section(
            [columns[i] for i in used],
            [[row[i] for i in used] for row in rows],
            self.verdict(results),
            self.note,
            further if further and further.rows else None,
        )
