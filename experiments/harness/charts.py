"""Figures of the page of all questions: accuracy against a quantity, from a question's rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from longlag.report.charts import Point, line_chart
from longlag.report.figures import Layout
from longlag.report.style import styles

__all__ = ["LAYOUTS", "plot_accuracy", "series"]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def series(rows: Sequence[Mapping[str, Any]], name: str, quantity: str) -> dict[str, list[Point]]:
    """Medians and ranges over the seeds, by name and quantity.

    Args:
        rows: of results.
        name: the entry that names a line.
        quantity: the entry along the axis, which is logarithmic: a row with 0 is left out.
    """
    points: dict[str, list[Point]] = {}
    for arm in dict.fromkeys(row[name] for row in rows):
        mine = [row for row in rows if row[name] == arm]
        for x in sorted({row[quantity] for row in mine}):
            here = [row["accuracy"] or 0.0 for row in mine if row[quantity] == x]
            if x:
                point = Point(x, statistics.median(here), min(here), max(here))
                points.setdefault(arm, []).append(point)
    return points


def plot_accuracy(
    points: Mapping[str, Sequence[Point]], quantity: str, **marks: Any
) -> dict[str, Any]:
    """Accuracy against a quantity, as the figure of a part of the page.

    Args:
        points: of every line, as `series` makes them.
        quantity: the label of the axis.
        marks: `floor` and `trained_at`, as in `report.charts.line_chart`.
    """
    look = styles(points, {})
    figures = {layout: line_chart(points, look, quantity, layout, **marks) for layout in LAYOUTS}
    ends = "; ".join(f"{arm} {line[-1].middle:.2f}" for arm, line in points.items())
    return {
        "figures": figures,
        "legend": "Lines are medians, bands the range of the seeds; dashed, the floor.",
        "alt": f"Accuracy against {quantity}, at the end: {ends}.",
    }
