"""The figures about many runs: accuracy by arm, accuracy against lag, learning curves.

Every figure is made for a wide page and again, arranged anew, for a phone. None of them touches
pyplot, so nothing is shared between figures and no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from longlag.report.statements import format_accuracy
from longlag.report.style import INK, MUTED, RULE, Style, house_style, spread_out
from longlag.report.summary import FAR, FLOOR, Spread

__all__ = [
    "WIDTHS",
    "Layout",
    "accuracy_by_arm",
    "accuracy_by_lag",
    "arms_of",
    "floors_of",
    "learning_curves",
    "make_panels",
    "multiple_of_lag",
    "name_lines",
    "png",
]

Layout = Literal["wide", "narrow"]

WIDTHS = {"wide": 9.6, "narrow": 4.0}
"""Inches. A wide figure fills the page of a report, a narrow one a phone."""

DOTS = {"wide": 200, "narrow": 260}
"""Dots per inch: twice the pixels that a page of ordinary width, or a phone, gives a figure."""

ACCURACY_TICKS = FuncFormatter(lambda value, _: format_accuracy(value) if value else "0")
COUNT_TICKS = FuncFormatter(lambda value, _: _format_count(value))


def png(
    figure: Figure,
    layout: Layout = "wide",
    *,
    dots: int | None = None,
    marks: Mapping[str, str] | None = None,
) -> bytes:
    """The figure as a PNG file; equal figures give equal bytes.

    Args:
        figure: what to save.
        layout: sets the dots per inch, unless `dots` does.
        dots: per inch.
        marks: texts to keep in the file, by their key.
    """
    buffer = io.BytesIO()
    with house_style():
        # Without the name of the software, so that a new matplotlib alone changes no file.
        metadata: dict[str, Any] = {"Software": None, **(marks or {})}
        figure.savefig(buffer, format="png", dpi=dots or DOTS[layout], metadata=metadata)
    return buffer.getvalue()


def arms_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The trained arms in the order of the rows."""
    return [arm for arm in dict.fromkeys(row["arm"] for row in rows) if not arm.startswith(FLOOR)]


def floors_of(
    rows: Sequence[Mapping[str, Any]], task: Any, quantity: str = "accuracy"
) -> list[float]:
    """The baselines of a task: rows of their own, or the entry `floor` of the others."""
    mine = [row for row in rows if row.get("task") == task and multiple_of_lag(row) == 1]
    floors = {row[quantity] for row in mine if row["arm"].startswith(FLOOR)}
    if quantity == "accuracy":
        floors |= {row["floor"] for row in mine if row.get("floor") is not None}
    return sorted(floors)


def multiple_of_lag(row: Mapping[str, Any]) -> float:
    """How many times the trained lag a row was tested at, or the trained length without a lag."""
    for quantity in ("lag", "length"):
        if row.get(quantity) and row.get(f"train_{quantity}"):
            return row[quantity] / row[f"train_{quantity}"]
    return 1.0


def accuracy_by_arm(
    rows: Sequence[Mapping[str, Any]],
    look: Mapping[str, Style],
    layout: Layout,
    *,
    far: float = FAR,
) -> Figure:
    """Accuracy by arm, one panel per task; every seed is a dot, a floor is a line.

    Args:
        rows: `task, arm, seed, accuracy`, and `lag, train_lag` or `length, train_length`.
        look: how each arm is drawn, in the order of the figure.
        layout: for a page or a phone.
        far: the multiple of the trained lag that hollow marks show, where it was tested.
    """
    tasks = list(dict.fromkeys(row.get("task") for row in rows))
    arms = [arm for arm in look if any(row["arm"] == arm for row in rows)]
    figure, axes = make_panels(len(tasks), layout, height=0.55 + 0.34 * len(arms), sharey=True)
    for task, ax in zip(tasks, axes):
        here = [row for row in rows if row.get("task") == task]
        seeds = [row for row in here if not row["arm"].startswith(FLOOR)]
        near = [row for row in seeds if multiple_of_lag(row) == 1]
        beyond = [row for row in seeds if multiple_of_lag(row) == far != 1]
        key = f"●  trained, {near[0]['length']:,} steps" if near and "length" in near[0] else ""
        if beyond and "length" in beyond[0]:
            key += f"    ○  {far:.3g} × lag, {beyond[0]['length']:,} steps"
        ax.set_title(task or "", pad=27)
        ax.annotate(
            key, (0, 1), (0, 16), "axes fraction", "offset points", color=MUTED, fontsize=7.5
        )
        for place, arm in enumerate(arms):
            ax.axhline(place, color=RULE, linewidth=0.6, zorder=0)
            for part, hollow in ((near, False), (beyond, True)):
                shift = 0.16 * (1 if hollow else -1) if beyond else 0.0
                values = [row["accuracy"] for row in part if row["arm"] == arm]
                _dots(ax, place + shift, values, look[arm], hollow=hollow)
        _floors(ax, floors_of(rows, task), vertical=True)
        ax.set(xlim=(-0.04, 1.04), ylim=(len(arms) - 0.5, -0.5))
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        ax.xaxis.set_major_formatter(ACCURACY_TICKS)
        ax.set_yticks(range(len(arms)), arms)
        ax.tick_params("y", length=0)
        ax.spines["left"].set_visible(False)
        for text, arm in zip(ax.get_yticklabels(), arms):
            text.set(color=look[arm].color, fontweight="bold", fontsize=8.5)
        ax.set_xlabel("accuracy")
    return figure


def _dots(
    ax: Axes, place: float, accuracies: Sequence[float | None], style: Style, *, hollow: bool
) -> None:
    values = sorted(value for value in accuracies if value is not None and np.isfinite(value))
    if not values:
        return
    # Seeds that reach the same accuracy stand beside each other, not on top of each other.
    shifts = np.linspace(-0.09, 0.09, len(values)) if len(values) > 1 else np.zeros(len(values))
    ax.scatter(
        values,
        place + shifts,
        s=15,
        marker=style.marker,
        facecolors="white" if hollow else style.color,
        edgecolors=style.color,
        linewidths=0.9,
        zorder=3,
        clip_on=False,
    )
    ax.annotate(
        format_accuracy(Spread.of(values).median),
        (1, place),
        (9, 0),
        ("axes fraction", "data"),
        "offset points",
        color=style.color,
        fontsize=7.5,
        fontweight="normal" if hollow else "bold",
        va="center",
    )


def accuracy_by_lag(
    by_lag: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    look: Mapping[str, Style],
    layout: Layout,
    *,
    quantity: str = "lag, in steps",
) -> Figure:
    """Accuracy against lag, one panel per task: the median seed, and the range of all seeds.

    Args:
        by_lag: `task, arm, seed, lag, train_lag, accuracy`.
        rows: those that have the floors.
        look: how each arm is drawn, in the order of the figure.
        layout: for a page or a phone.
        quantity: what a lag is, for the axis.
    """
    if any(point["lag"] < 1 for point in by_lag):
        raise ValueError(f"by_lag: expected lags >= 1, got {min(point['lag'] for point in by_lag)}")
    tasks = list(dict.fromkeys(point.get("task") for point in by_lag))
    figure, axes = make_panels(len(tasks), layout, height=2.3, sharey=True)
    for task, ax in zip(tasks, axes):
        points = [point for point in by_lag if point.get("task") == task]
        ends = {}
        for arm in (arm for arm in look if any(point["arm"] == arm for point in points)):
            mine = [point for point in points if point["arm"] == arm]
            lags = sorted({point["lag"] for point in mine})
            seeds = [Spread.of(p["accuracy"] for p in mine if p["lag"] == lag) for lag in lags]
            middle = [spread.median for spread in seeds]
            low, high = np.array([spread.range for spread in seeds]).T
            color, marker = look[arm]
            ax.fill_between(lags, low, high, color=color, alpha=0.16, linewidth=0)
            ax.plot(lags, middle, color=color, marker=marker, markersize=3.2, clip_on=False)
            if np.isfinite(middle[-1]):
                ends[arm] = (lags[-1], middle[-1])
        ax.set_xscale("log", base=2)
        ax.set(ylim=(-0.03, 1.03), xlabel=quantity)
        ax.set_title(task or "", pad=16)
        name_lines(ax, ends, look)
        _floors(ax, floors_of(rows, task), vertical=False)
        trained = {point.get("train_lag") for point in points}
        if len(trained) == 1 and (at := trained.pop()):
            ax.axvline(at, color=MUTED, linewidth=0.7, zorder=0)
            ax.annotate(
                f"trained to {at:,}",
                (at, 1),
                (0, 3),
                ("data", "axes fraction"),
                "offset points",
                color=MUTED,
                fontsize=7.5,
                # Over the line, but not past the left edge.
                ha="center" if at > min(p["lag"] for p in points) else "left",
            )
        tested = sorted({point["lag"] for point in points})
        tested = [b for a, b in zip([0, *tested], tested) if b > 1.1 * a]  # apart
        ax.set_xticks(tested[:: -(-len(tested) // 7)])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(COUNT_TICKS)
        ax.yaxis.set_major_formatter(ACCURACY_TICKS)
    for ax in axes if layout == "narrow" else axes[:1]:
        ax.set_ylabel("accuracy")
    return figure


def name_lines(
    ax: Axes, ends: Mapping[str, tuple[float, float]], look: Mapping[str, Style]
) -> None:
    """Writes the name of each arm beside the end of its line, moved apart where two would touch.

    Args:
        ax: the axes, whose limits are set.
        ends: where the line of each arm ends, in data.
        look: how each arm is drawn.
    """
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform(end)[1]) for end in ends.values()]
    for (arm, end), height in zip(ends.items(), spread_out(heights, 0.07, 0.0, 1.0)):
        ax.annotate(
            arm,
            end,
            (1.07, height),
            "data",
            ("axes fraction", "axes fraction"),
            color=look[arm].color,
            fontsize=8,
            fontweight="bold",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": look[arm].color,
                "linewidth": 0.7,
                "linestyle": ":",  # no part of the curve
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),  # from the near edge of the label, not through it
            },
        )


def learning_curves(
    curves: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    look: Mapping[str, Style],
    layout: Layout,
    quantity: Literal["accuracy", "loss"],
) -> Figure:
    """Learning curves, one panel per arm and task: its seeds in colour, the other arms in grey.

    Small multiples need no legend, and fifteen curves that end at 1.00 do not hide one another.
    """
    tasks = list(dict.fromkeys(curve["task"] for curve in curves))
    arms = [arm for arm in look if any(curve["arm"] == arm for curve in curves)]
    wide = layout == "wide"
    shape = (len(tasks), len(arms)) if wide else (len(arms), len(tasks))
    panel = 1.25 if wide else 0.98
    width = min(WIDTHS[layout], 1.2 + 1.9 * shape[1])
    figure = Figure(figsize=(width, 0.45 + panel * shape[0]), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # pyright: ignore
    # Each task has a scale of its own, shared by its arms.
    share: Any = ("row" if wide else "col") if quantity == "loss" else True
    grid = figure.subplots(*shape, sharex="row" if wide else "col", sharey=share, squeeze=False)
    for t, task in enumerate(tasks):
        for a, arm in enumerate(arms):
            ax: Axes = grid[t, a] if wide else grid[a, t]
            here = [curve for curve in curves if curve["task"] == task]
            for curve in sorted(here, key=lambda curve: curve["arm"] == arm):
                mine = curve["arm"] == arm
                _curve(ax, curve, quantity, look[arm] if mine else None)
            _floors(ax, floors_of(rows, task, quantity), vertical=False)
            drawn = any(_points(curve, quantity).size for curve in here)
            if drawn:
                ax.set_xscale("log")
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
                ax.xaxis.set_minor_locator(NullLocator())
                ax.xaxis.set_major_formatter(COUNT_TICKS)
            else:
                ax.set_xticks([])
                ax.text(0.5, 0.5, "diverged", transform=ax.transAxes, ha="center", color=MUTED)
            if quantity == "accuracy":
                ax.set_ylim(-0.04, 1.04)
                ax.set_yticks([0, 0.5, 1])
                ax.yaxis.set_major_formatter(ACCURACY_TICKS)
            elif drawn:
                ax.set_yscale("log")
                ax.yaxis.set_minor_locator(NullLocator())
            if ax.get_subplotspec().is_first_row():  # pyright: ignore
                ax.set_title(arm if wide else task, color=look[arm].color if wide else INK)
            if ax.get_subplotspec().is_first_col():  # pyright: ignore
                ax.set_ylabel(
                    task if wide else arm,
                    color=INK if wide else look[arm].color,
                    fontweight="bold",
                )
    figure.supxlabel("optimiser steps", color=MUTED, fontsize=8.5)
    return figure


def _points(curve: Mapping[str, Any], quantity: str) -> np.ndarray:
    """Steps and values `[2, N]` of a curve: those a logarithmic axis has, and no None or NaN."""
    points = np.array([curve["steps"], curve[quantity]], dtype=float)  # None becomes NaN
    return points[:, (points[0] > 0) & np.isfinite(points[1])]


def _curve(ax: Axes, curve: Mapping[str, Any], quantity: str, style: Style | None) -> None:
    points = _points(curve, quantity)
    if not points.size:
        return  # a marker that is nowhere, and not clipped, leaves no room for the axes
    if style is None:
        ax.plot(*points, color=RULE, linewidth=0.6, zorder=1)
        return
    ax.plot(*points, color=style.color, linewidth=1.1, zorder=3)
    ax.plot(
        *points[:, -1:],
        color=style.color,
        marker=style.marker,
        markersize=3,
        zorder=4,
        clip_on=False,
    )


def _floors(ax: Axes, heights: Sequence[float], *, vertical: bool) -> None:
    """Draws the floors of one task as dashed lines; the highest one is named."""
    for height in heights:
        line = ax.axvline if vertical else ax.axhline
        line(height, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=2)
    if heights and vertical:
        ax.annotate(
            f"floor {format_accuracy(max(heights))}",
            (max(heights), 1),
            (0, 3),
            ("data", "axes fraction"),
            "offset points",
            color=INK,
            fontsize=7.5,
            fontstyle="italic",
            ha="center",
        )


def make_panels(
    count: int, layout: Layout, height: float, *, sharey: bool
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of one height in inches: side by side, or below each other."""
    # More than three side by side are too narrow to read.
    columns = min(count, 3) if layout == "wide" else 1
    rows = -(-count // columns)
    width = min(WIDTHS[layout], 2 + 3.2 * columns)
    figure = Figure(figsize=(width, 0.35 + (height + 0.35) * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)  # pyright: ignore
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for ax in grid[count:]:
        ax.set_axis_off()
    return figure, list(grid[:count])


def _format_count(value: float) -> str:
    """Counts on an axis: `64`, `1k`, `16k`, `1M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"
