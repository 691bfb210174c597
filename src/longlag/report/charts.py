"""The figures about many questions: arms against tasks, accuracy against a quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from longlag.report.figures import WIDTHS, Layout
from longlag.report.maps import BLUES
from longlag.report.statements import format_accuracy
from longlag.report.style import INK, MUTED, RULE, Style, house_style, spread_out

__all__ = ["Point", "heat_map", "line_chart"]


class Point(NamedTuple):
    """One mark of a line.

    Attributes:
        x: the quantity, above zero.
        middle: accuracy, the median.
        low: of its range.
        high: of its range.
    """

    x: float
    middle: float
    low: float
    high: float


def heat_map(
    values: Mapping[str, Mapping[str, float]],
    floors: Mapping[str, float],
    layout: Layout = "wide",
) -> Figure:
    """Accuracy of arms (rows) on tasks (columns); the colour begins at each task's floor.

    Args:
        values: accuracy by arm and task; a task that an arm was not asked is left grey.
        floors: of each task, in the order of the columns.
        layout: for a page or a phone.

    Raises:
        ValueError: a task without a floor.
    """
    tasks = list(floors)
    for arm, of_arm in values.items():
        if missing := [task for task in of_arm if task not in floors]:
            raise ValueError(f"heat_map: expected a floor for each task; {arm} has {missing} too")
    shown = np.full((len(values), len(tasks)), np.nan)
    for i, of_arm in enumerate(values.values()):
        for j, task in enumerate(tasks):
            if task in of_arm:
                shown[i, j] = (of_arm[task] - floors[task]) / (1 - floors[task])
    width = min(WIDTHS[layout], 2.4 + 1.25 * len(tasks))
    with house_style():
        figure = Figure(figsize=(width, 0.75 + 0.3 * len(values)), layout="constrained")
        ax = figure.subplots()
        ax.imshow(np.ma.masked_invalid(shown), cmap=BLUES, vmin=0, vmax=1, aspect="auto")
        for i, of_arm in enumerate(values.values()):
            for j, task in enumerate(tasks):
                if task in of_arm:
                    dark = shown[i, j] > 0.55
                    ax.text(
                        j, i, format_accuracy(of_arm[task]), color="white" if dark else INK,
                        ha="center", va="center", fontsize=8,
                    )  # fmt: skip
        names = [task.replace(" ", "\n") for task in tasks] if layout == "narrow" else tasks
        ax.set_xticks(range(len(tasks)), names, color=INK, fontsize=8 if layout == "wide" else 7)
        ax.set_yticks(range(len(values)), list(values), color=INK)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set(visible=True, color=RULE)
    return figure


def line_chart(
    series: Mapping[str, Sequence[Point]],
    look: Mapping[str, Style],
    quantity: str,
    layout: Layout = "wide",
    *,
    trained_at: float | None = None,
    floor: float | None = None,
) -> Figure:
    """Accuracy against a quantity on a logarithmic axis: medians, and the range as a band.

    Args:
        series: points of each arm, by growing x.
        look: how each arm is drawn.
        quantity: what x is, for the axis.
        layout: for a page or a phone.
        trained_at: marked, if given.
        floor: drawn dashed, if given.
    """
    with house_style():
        figure = Figure(
            figsize=(min(WIDTHS[layout], 7.2), 3.6 if layout == "wide" else 3.4),
            layout="constrained",
        )
        ax = figure.subplots()
        ends = {}
        for arm, points in series.items():
            x, middle, low, high = np.array(points, float).T
            color, marker = look[arm]
            ax.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
            ax.plot(x, middle, color=color, marker=marker, markersize=3.5, clip_on=False)
            ends[arm] = (x[-1], middle[-1])
        ax.set_xscale("log", base=2)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _shorten(value)))
        ax.set(ylim=(-0.03, 1.03), xlabel=quantity, ylabel="accuracy")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: format_accuracy(v) if v else "0"))
        if trained_at is not None:
            ax.axvline(trained_at, color=MUTED, linewidth=0.7, zorder=0)
            ax.annotate(
                f"trained to {_shorten(trained_at)}", (trained_at, 1), (0, 4),
                ("data", "axes fraction"), "offset points",
                color=MUTED, fontsize=7.5, ha="left",
            )  # fmt: skip
        if floor is not None:
            ax.axhline(floor, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=2)
        _name_ends(ax, ends, look)
    return figure


def _name_ends(
    ax: Axes, ends: Mapping[str, tuple[float, float]], look: Mapping[str, Style]
) -> None:
    """Names each line at the right of the axes, apart from the others."""
    heights = spread_out([y for _, y in ends.values()], 0.062, 0.0, 1.0)
    for (arm, (x, y)), height in zip(ends.items(), heights):
        ax.annotate(
            arm, (x, y), (1.05, height), "data", ("axes fraction", "data"),
            color=look[arm].color, fontsize=7.5, fontweight="bold", va="center",
            arrowprops={
                "arrowstyle": "-", "color": look[arm].color, "linewidth": 0.5,
                "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5),
            },
        )  # fmt: skip


def _shorten(value: float) -> str:
    """64, 1Ki, 128Ki: powers of two in their own units."""
    for unit, size in (("Mi", 2**20), ("Ki", 2**10)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"
