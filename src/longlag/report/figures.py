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

from longlag.report.maps import attention_map, trace_map
from longlag.report.statements import format_accuracy
from longlag.report.style import INK, MUTED, RULE, Style, house_style, spread_out, styles
from longlag.report.summary import FAR, Entry, Spread

__all__ = [
    "WIDTHS",
    "Layout",
    "accuracy_by_arm",
    "accuracy_by_lag",
    "learning_curves",
    "plots",
    "png",
]

Layout = Literal["wide", "narrow"]

WIDTHS = {"wide": 9.6, "narrow": 4.0}
"""Inches. A wide figure fills the page of a report, a narrow one a phone."""

DOTS = {"wide": 200, "narrow": 260}
"""Dots per inch: twice the pixels that a page of ordinary width, or a phone, gives a figure."""

ACCURACY_TICKS = FuncFormatter(lambda value, _: format_accuracy(value) if value else "0")
COUNT_TICKS = FuncFormatter(lambda value, _: _format_count(value))


def plots(
    results: Mapping[str, Any], entries: Sequence[Entry], layout: Layout = "wide"
) -> dict[str, Figure]:
    """Draws all that the results have data for.

    Args:
        results: see `longlag.report`.
        entries: from `summarise`.
        layout: how the panels are arranged.

    Returns:
        from the name of a plot to its figure, in the order of the report.
    """
    trained = [entry.arm for entry in entries if not entry.is_floor]
    look = styles(trained, results.get("roles", {}))
    with house_style():
        made = {"accuracy": accuracy_by_arm(results["rows"], entries, look, layout)}
        if results.get("by_lag"):
            made["lag"] = accuracy_by_lag(results["by_lag"], entries, look, layout)
        if results.get("curves"):
            made["learning"] = learning_curves(results["curves"], entries, look, layout, "accuracy")
            made["loss"] = learning_curves(results["curves"], entries, look, layout, "loss")
        if results.get("attention"):
            made["attention"] = attention_map(results["attention"], WIDTHS[layout])
        if results.get("trace"):
            made["trace"] = trace_map(results["trace"], WIDTHS[layout])
    return made


def png(figure: Figure, layout: Layout = "wide") -> bytes:
    """The figure as a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with house_style():
        # Without the name of the software, so that a new matplotlib alone changes no file.
        figure.savefig(buffer, format="png", dpi=DOTS[layout], metadata={"Software": None})
    return buffer.getvalue()


def accuracy_by_arm(
    rows: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
    look: Mapping[str, Style],
    layout: Layout,
) -> Figure:
    """Accuracy by arm, one panel per task; every seed is a dot, a floor is a line."""
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    arms = [arm for arm in look if any(entry.arm == arm for entry in entries)]
    figure, axes = _panels(len(tasks), layout, height=0.55 + 0.34 * len(arms), sharey=True)
    for task, ax in zip(tasks, axes):
        here = [entry for entry in entries if entry.task == task]
        far = max((entry.far_length or 0 for entry in here if not entry.is_floor), default=0)
        length = here[0].length
        key = f"●  trained, {length:,} steps"
        key += f"    ○  {FAR} × lag, {far:,} steps" if far else ""
        ax.set_title(task, pad=27)
        ax.annotate(
            key, (0, 1), (0, 16), "axes fraction", "offset points", color=MUTED, fontsize=7.5
        )
        for place, arm in enumerate(arms):
            ax.axhline(place, color=RULE, linewidth=0.6, zorder=0)
            for entry in (entry for entry in here if entry.arm == arm):
                mine = [row for row in rows if row["task"] == task and row["arm"] == arm]
                _dots(ax, place - (0.16 if far else 0), mine, entry, look[arm], far=False)
                if far:
                    _dots(ax, place + 0.16, mine, entry, look[arm], far=True)
        _floors(ax, here, vertical=True)
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
    ax: Axes,
    place: float,
    rows: Sequence[Mapping[str, Any]],
    entry: Entry,
    style: Style,
    *,
    far: bool,
) -> None:
    length = entry.far_length if far else entry.length
    values = [row["accuracy"] for row in rows if row["length"] == length]
    values = sorted(value for value in values if value is not None and np.isfinite(value))
    # Seeds that reach the same accuracy stand beside each other, not on top of each other.
    shifts = np.linspace(-0.09, 0.09, len(values)) if len(values) > 1 else np.zeros(len(values))
    ax.scatter(
        values,
        place + shifts,
        s=15,
        marker=style.marker,
        facecolors="white" if far else style.color,
        edgecolors=style.color,
        linewidths=0.9,
        zorder=3,
        clip_on=False,
    )
    spread = entry.far_accuracy if far else entry.accuracy
    if spread and values:
        text = format_accuracy(spread.median)
        weight = "normal" if far else "bold"
        ax.annotate(
            text,
            (1, place),
            (9, 0),
            ("axes fraction", "data"),
            "offset points",
            color=style.color,
            fontsize=7.5,
            fontweight=weight,
            va="center",
        )


def accuracy_by_lag(
    by_lag: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
    look: Mapping[str, Style],
    layout: Layout,
) -> Figure:
    """Accuracy against lag, one panel per task: the median seed, and the range of all seeds."""
    if any(point["lag"] < 1 for point in by_lag):
        raise ValueError(f"by_lag: expected lags >= 1, got {min(point['lag'] for point in by_lag)}")
    tasks = list(dict.fromkeys(point["task"] for point in by_lag))
    figure, axes = _panels(len(tasks), layout, height=2.3, sharey=True)
    for task, ax in zip(tasks, axes):
        points = [point for point in by_lag if point["task"] == task]
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
                ends[arm] = middle[-1]
        ax.set_xscale("log", base=2)
        ax.set(ylim=(-0.03, 1.03), xlabel="lag, in steps")
        ax.set_title(task, pad=16)
        _name_lines(ax, ends, look)
        _floors(ax, [entry for entry in entries if entry.task == task], vertical=False)
        trained = points[0]["train_lag"]
        ax.axvline(trained, color=MUTED, linewidth=0.7, zorder=0)
        ax.annotate(
            f"trained to {trained:,}",
            (trained, 1),
            (0, 3),
            ("data", "axes fraction"),
            "offset points",
            color=MUTED,
            fontsize=7.5,
            # Over the line, but not past the left edge.
            ha="center" if trained > min(p["lag"] for p in points) else "left",
        )
        tested = sorted({point["lag"] for point in points})
        ax.set_xticks(tested[:: -(-len(tested) // 7)])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(COUNT_TICKS)
        ax.yaxis.set_major_formatter(ACCURACY_TICKS)
    for ax in axes if layout == "narrow" else axes[:1]:
        ax.set_ylabel("accuracy")
    return figure


def _name_lines(ax: Axes, ends: Mapping[str, float], look: Mapping[str, Style]) -> None:
    """Writes the name of each arm at the end of its line, moved apart where they would touch."""
    for (arm, end), height in zip(ends.items(), spread_out([*ends.values()], 0.075, 0.0, 1.0)):
        ax.annotate(
            arm,
            (1, end),
            (1.07, height),
            ("axes fraction", "data"),
            ("axes fraction", "data"),
            color=look[arm].color,
            fontsize=8,
            fontweight="bold",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": look[arm].color,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),  # from the near edge of the label, not through it
            },
        )


def learning_curves(
    curves: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
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
            _floors(ax, [c for c in entries if c.task == task], vertical=False, quantity=quantity)
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


def _floors(
    ax: Axes, entries: Sequence[Entry], *, vertical: bool, quantity: str = "accuracy"
) -> None:
    """Draws the floors of one task as dashed lines; the highest one is named."""
    floors = [entry for entry in entries if entry.is_floor]
    heights = [c.accuracy.median if quantity == "accuracy" else c.loss for c in floors]
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


def _panels(
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
