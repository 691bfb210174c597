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
)
from longlag.report.maps import BLUES
from longlag.report.statements import format_accuracy, format_bytes
from longlag.report.style import INK, PLAIN, RULE, Style, house_style, styles

__all__ = ["accuracy_by_quantity", "heat_map", "horizon", "medians_by_task"]


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


def horizon(
    rows: Sequence[Mapping[str, Any]],
    frontiers: Sequence[Mapping[str, Any]],
    look: Mapping[str, Style],
    layout: Layout,
) -> Figure:
    """The longest lag solved: against the operations until then, and against bytes of state.

    Lines and large marks are medians, small marks seeds. Arms of one recurrence have one colour.
    With attention a line is dashed and a mark hollow. Curricula give many arms equal horizons, so
    each arm is moved up or down by less than a third of an octave.

    Args:
        rows: `arm, seed, horizon` (0 for none), `state_bytes`, `spent` (operations in all), and
            `lag, train_lag`, of which those at the trained lag count.
        frontiers: `arm, seed, lag, spent`, the operations after which a seed had solved a lag.
        look: the arms, in the order of the key.
        layout: for a page or a phone.
    """
    near = [row for row in rows if multiple_of_lag(row) == 1 and row.get("horizon") is not None]
    arms = [arm for arm in look if any(row["arm"] == arm for row in near)]
    by_arm = _styles_by_recurrence(arms)
    # The key of many arms needs room: beside the panels, or under both of them.
    height = max(3.0, 0.16 * len(arms)) if layout == "wide" else 2.4 + 0.085 * len(arms)
    figure, (left, right) = make_panels(2, layout, height, sharey=True)
    lags = [point["lag"] for point in frontiers] + [row["horizon"] for row in near]
    least, most = min(filter(None, lags), default=1), max([*lags, 1])
    none = least / 2
    for arm, shift in zip(arms, 2 ** np.linspace(0.3, -0.3, len(arms))):
        mine = {row["seed"]: row for row in near if row["arm"] == arm}
        color, marker = by_arm[arm]
        attends = _attends(arm)
        spent, median = _median_frontier(mine, [p for p in frontiers if p["arm"] == arm])
        solved = median > 0
        bytes_of = [row["state_bytes"] for row in mine.values()]
        reached = [max(row["horizon"], none) * shift for row in mine.values()]
        face = "white" if attends else color
        right.scatter(bytes_of, reached, s=9, marker=marker, color=color, alpha=0.4, linewidths=0)
        ends = [(right, statistics.median(bytes_of), statistics.median(reached))]
        if solved.any():
            ends.append((left, spent[-1], median[-1] * shift))
            left.step(
                spent[solved], median[solved] * shift, where="post",
                color=color, linewidth=1.3, linestyle=(0, (3, 1.5)) if attends else "-",
            )  # fmt: skip
        for ax, x, y in ends:
            ax.scatter(
                x, y, s=38, marker=marker, facecolors=face, edgecolors=color,
                linewidths=1.1, zorder=4, clip_on=False,
            )  # fmt: skip
    left.set(xscale="log", xlabel="operations spent", ylabel="longest lag solved, in steps")
    _logarithmic(right, [row["state_bytes"] for row in near], "state_bytes")
    right.set(xlabel="bytes of state of one sequence, at that lag")
    left.set_yscale("log", base=2)
    ticks = {none: "none"} if not all(row["horizon"] for row in near) else {}
    octaves = range(int(np.log2(most / least) + 1e-9) + 1)
    ticks |= {least * 2**k: f"{least * 2**k:,}" for k in octaves}
    left.set_yticks(list(ticks), list(ticks.values()))
    left.set_ylim(min(ticks) / 1.4, most * 1.4)
    for ax, title in ((left, "horizon against operations"), (right, "horizon against state")):
        ax.set_title(title)
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y", color=RULE, linewidth=0.4)
        ax.set_axisbelow(True)
    _key(figure, arms, by_arm, layout, lines=True)
    return figure


def _attends(arm: str) -> bool:
    return " + " in arm or arm.startswith("attention")


def _styles_by_recurrence(arms: Sequence[str]) -> dict[str, Style]:
    """A colour and a marker for every recurrence, whatever is added to it; grey without one."""
    recurrences = [arm.partition(" + ")[0] for arm in arms]
    alone = [arm for arm in recurrences if _attends(arm)]
    shared = styles([arm for arm in recurrences if arm not in alone], {})
    shared |= {arm: Style(PLAIN.color, s.marker) for arm, s in styles(alone, {}).items()}
    return {arm: shared[recurrence] for arm, recurrence in zip(arms, recurrences)}


def _median_frontier(
    seeds: Mapping[Any, Mapping[str, Any]], points: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """What was spent, growing, and the median over the seeds of the longest lag solved by then."""
    end = max((row.get("spent", 0) for row in seeds.values()), default=0)
    spent = np.unique([*(point["spent"] for point in points), end])
    levels = [
        [
            max((p["lag"] for p in points if p["seed"] == seed and p["spent"] <= at), default=0)
            for seed in seeds
        ]
        for at in spent
    ]
    return spent, np.median(levels, axis=1)


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


def _key(
    figure: Figure,
    arms: Sequence[str],
    look: Mapping[str, Style],
    layout: Layout,
    *,
    lines: bool = False,
) -> None:
    """Which mark is which arm, beside the panels, or under them on a phone.

    Args:
        figure: gets the key.
        arms: in order.
        look: how each arm is drawn.
        layout: for a page or a phone.
        lines: lines through the marks, dashed with attention, whose marks are hollow.
    """
    marks = [
        Line2D([], [], color=look[arm].color, marker=look[arm].marker, linestyle="", label=arm)
        for arm in arms
    ]
    if lines:
        for arm, mark in zip(arms, marks):
            mark.set(linewidth=1.1, linestyle=(0, (3, 1.5)) if _attends(arm) else "-")
            mark.set_markerfacecolor("white" if _attends(arm) else look[arm].color)
            mark.set_markersize(4.5)
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
