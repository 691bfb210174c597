"""The figures about what accuracy costs: arms against tasks, bytes, operations, and horizons."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from longlag.report.figures import (
    WIDTHS,
    Layout,
    floors_of,
    make_panels,
    multiple_of_lag,
    name_lines,
)
from longlag.report.maps import BLUES
from longlag.report.statements import format_accuracy, format_bytes
from longlag.report.style import INK, RULE, Style, house_style

__all__ = ["accuracy_by_quantity", "frontier", "heat_map", "medians_by_task"]


def medians_by_task(
    rows: Sequence[Mapping[str, Any]], look: Mapping[str, Style]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The median accuracy of each arm on each task at the trained lag, and the highest floors."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    values: dict[str, dict[str, float]] = {}
    for arm in look:
        for task in tasks:
            near = [
                row["accuracy"] or 0.0
                for row in rows
                if (row["arm"], row["task"]) == (arm, task) and multiple_of_lag(row) == 1
            ]
            if near:
                values.setdefault(arm, {})[task] = statistics.median(near)
    return values, {task: max(floors_of(rows, task), default=0.0) for task in tasks}


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


def accuracy_by_quantity(
    rows: Sequence[Mapping[str, Any]],
    look: Mapping[str, Style],
    layout: Layout,
    quantity: str,
    label: str,
) -> Figure:
    """Accuracy at the trained lag against a quantity: a small mark a seed, a large one a median.

    Args:
        rows: `task, arm, seed, accuracy` and the quantity.
        look: how each arm is drawn, in the order of the key.
        layout: for a page or a phone.
        quantity: the entry along the axis, which is logarithmic above the smallest that is not 0.
        label: what it is, for the axis.
    """
    seeds = [row for row in rows if row["arm"] in look and row.get(quantity) is not None]
    seeds = [row for row in seeds if multiple_of_lag(row) == 1 and row["accuracy"] is not None]
    if not seeds:
        raise ValueError(f"expected rows with {quantity!r} and an accuracy, got none")
    tasks = list(dict.fromkeys(row.get("task") for row in seeds))
    figure, axes = make_panels(len(tasks), layout, height=3.0, sharey=True)
    for task, ax in zip(tasks, axes):
        here = [row for row in seeds if row.get("task") == task]
        for arm in (arm for arm in look if any(row["arm"] == arm for row in here)):
            mine = [row for row in here if row["arm"] == arm]
            x = np.array([row[quantity] for row in mine], float)
            y = np.array([row["accuracy"] for row in mine], float)
            color, marker = look[arm]
            ax.scatter(x, y, s=9, marker=marker, color=color, alpha=0.45, linewidths=0)
            ax.scatter(
                *(np.median(x), np.median(y)),
                s=48, marker=marker, color=color, edgecolors="white", linewidths=0.7, zorder=4,
            )  # fmt: skip
        for floor in floors_of(rows, task):
            ax.axhline(floor, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        _logarithmic(ax, [row[quantity] for row in here], quantity)
        ax.set(ylim=(-0.03, 1.03), xlabel=label)
        ax.set_title(task or "")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: format_accuracy(v) if v else "0"))
    for ax in axes if layout == "narrow" else axes[:1]:
        ax.set_ylabel("accuracy")
    _key(figure, [arm for arm in look if any(row["arm"] == arm for row in seeds)], look, layout)
    return figure


def frontier(
    rows: Sequence[Mapping[str, Any]], look: Mapping[str, Style], layout: Layout
) -> Figure:
    """How far back each arm reaches: the frontier against what was spent, and against bytes.

    Args:
        rows: `arm, seed, spent` (operations), `frontier` (the longest lag solved with them),
            `horizon` (the longest lag solved at the end) and `state_bytes`. `spent` and `frontier`
            are numbers, of a row for each point, or lists `[N]` of one length.
        look: how each arm is drawn.
        layout: for a page or a phone.
    """
    figure, (left, right) = make_panels(2, layout, height=3.0, sharey=True)
    ends = {}
    for arm in look:
        mine = [row for row in rows if row["arm"] == arm]
        color, marker = look[arm]
        curves = [_curve([row for row in mine if row["seed"] == seed]) for seed in _seeds(mine)]
        for spent, reached in curves:
            left.step(spent, reached, where="post", color=color, linewidth=0.6, alpha=0.5)
        at = np.unique(np.concatenate([spent for spent, _ in curves]))
        # What every seed had reached by then; before its first point it had reached nothing.
        levels = [[_reached(curve, spent) for curve in curves] for spent in at]
        median = np.median(levels, axis=1)
        shown = median > 0
        if shown.any():
            left.step(at[shown], median[shown], where="post", color=color, linewidth=1.6)
            left.plot(at[shown][-1], median[shown][-1], marker=marker, color=color, markersize=5)
            ends[arm] = (at[shown][-1], median[shown][-1])
        last = {row["seed"]: row for row in mine if row.get("horizon") is not None}
        x = [row["state_bytes"] for row in last.values()]
        y = [row["horizon"] for row in last.values()]
        if x:
            right.scatter(x, y, s=12, marker=marker, color=color, alpha=0.5, linewidths=0)
            right.scatter(
                *(statistics.median(x), statistics.median(y)),
                s=52, marker=marker, color=color, edgecolors="white", linewidths=0.7, zorder=4,
            )  # fmt: skip
    left.set(xscale="log", xlabel="operations spent", ylabel="longest lag solved")
    left.set_yscale("log", base=2)
    _logarithmic(right, [row["state_bytes"] for row in rows], "state_bytes")
    right.set(xlabel="bytes of state of one sequence")
    for ax, title in ((left, "frontier against cost"), (right, "horizon against state")):
        ax.set_title(title)
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if layout == "narrow":
        name_lines(left, ends, look)
    else:
        _key(figure, list(look), look, layout)
    return figure


def _seeds(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return list(dict.fromkeys(row["seed"] for row in rows))


def _curve(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """What one seed spent, growing, and the longest lag that it had solved by then."""
    spent = np.concatenate([np.atleast_1d(np.asarray(row["spent"], float)) for row in rows])
    reached = np.concatenate([np.atleast_1d(np.asarray(row["frontier"], float)) for row in rows])
    if spent.shape != reached.shape:
        raise ValueError(
            "frontier: expected as many lags as points of cost, got "
            f"{reached.size} and {spent.size}"
        )
    order = np.argsort(spent, kind="stable")
    return spent[order], np.maximum.accumulate(np.nan_to_num(reached[order]))


def _reached(curve: tuple[np.ndarray, np.ndarray], spent: float) -> float:
    at = int(np.searchsorted(curve[0], spent, side="right"))
    return float(curve[1][at - 1]) if at else 0.0


def _logarithmic(ax: Axes, values: Sequence[float], quantity: str) -> None:
    """A logarithmic axis with few marks, that has a place for 0 too."""
    least = min((value for value in values if value > 0), default=1.0)
    most = max([*values, least])
    if min(values) > 0:
        ax.set_xscale("log", base=2)
        ax.set_xlim(least / 1.4, most * 1.4)
    else:
        ax.set_xscale("symlog", base=2, linthresh=least, linscale=1.0)
        ax.set_xlim(-least / 3, most * 1.5)
    first, last = np.log2(least), np.log2(most)
    few = np.unique(np.round(np.linspace(first, last, 4 if last - first > 3 else 3), 1))
    ticks = [round(2**power) for power in (np.round(few) if last - first > 3 else few)]
    ax.xaxis.set_major_locator(FixedLocator(([0.0] if min(values) <= 0 else []) + ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    show = format_bytes if quantity == "state_bytes" else _shorten
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


def _key(figure: Figure, arms: Sequence[str], look: Mapping[str, Style], layout: Layout) -> None:
    """Which mark is which arm, beside the panels, or under them on a phone."""
    marks = [
        Line2D([], [], color=look[arm].color, marker=look[arm].marker, linestyle="", label=arm)
        for arm in arms
    ]
    place: Any = "outside right center" if layout == "wide" else "outside lower center"
    columns = 1 if layout == "wide" or max(map(len, arms)) > 22 else 2
    figure.legend(
        handles=marks, loc=place, ncols=columns, frameon=False, fontsize=7.5, labelcolor=INK
    )


def _shorten(value: float) -> str:
    """950, 12k, 3.4M: a count on an axis."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"
