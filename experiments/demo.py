"""`longlag demo` under its earlier name, so that recorded commands still run, and its record."""

from __future__ import annotations

import sys
from typing import Any

from experiments.harness.recorded import FigureText, Plot, Recorded
from experiments.harness.tables import Results
from longlag import report
from longlag.cli.commands import main
from longlag.report.page import CAPTIONS
from longlag.report.rows import COLUMNS
from longlag.report.rows import lines_by_task as lines_of


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line for every arm on every task."""
    table = []
    for heading, group in lines_of(_entries(results)).items():
        task = heading.partition(" · ")[0]
        for line in group:
            near, far = (_spread(*spread[:2]) for spread in (line.accuracy, line.far))
            cost = (line.parameters, line.state, line.time)
            table.append((task, line.arm, near, far, line.outcome, *cost))
    return table


def verdict(results: Results) -> str:
    """The findings, one a line."""
    return "\n".join(report.findings(_entries(results), results.get("roles", {})))


def _entries(results: Results) -> Any:
    return report.summarise(results["rows"], results["threshold"], results.get("roles", {}))


def _spread(median: str, spread: str) -> str:
    return f"{median} ({spread})" if spread else median


def _figure_text(name: str, sentence: str) -> FigureText:
    heading, legend = CAPTIONS[name]
    return FigureText(
        heading, legend, sentence, f"{heading}: heat map of one test sequence of the demo."
    )


RECORDED = (
    Recorded(
        *("demo", "What does attention add to a recurrence?", 0),
        columns=("task", *COLUMNS),
        lines=lines,
        verdict=verdict,
        pictures={
            "attention": _figure_text(
                "attention", "The step where a key comes again reads the value that followed it."
            ),
            "trace": _figure_text(
                "trace",
                "The units of a state that tracks parity change sign together, at the ones.",
            ),
        },
        figure=lambda results: Plot(
            "accuracy", {k: results[k] for k in ("rows", "roles")}, {"far": 4.0}
        ),
    ),
)
SMOKE = False


if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
