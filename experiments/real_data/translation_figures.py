"""Quality against the length of the source, and alignments, as Bahdanau et al. drew them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from longlag.report.figures import png
from longlag.report.style import PLAIN, house_style, styles

__all__ = ["alignments", "draw_png", "length_chart"]

Alignment = tuple[np.ndarray, Sequence[str], Sequence[str]]


def length_chart(rows: Sequence[Mapping[str, Any]], quality: str, unit: str) -> Figure:
    """A line for every arm: the mean of the sentences of a bin, with its bootstrap interval.

    Args:
        rows: from `translation_scores.quality_by_length`.
        quality: what is measured.
        unit: what lengths are counted in.
    """
    arms = dict.fromkeys(row["arm"] for row in rows)
    look = styles([arm for arm in arms if not arm.startswith("floor")], {})
    with house_style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        bins = {(row["from"], row["to"]): row["sources"] for row in rows}
        floors = iter((("--", "s"), (":", "x")))
        for i, arm in enumerate(arms):
            of_arm = [row for row in rows if row["arm"] == arm]
            mean, low, high = (
                np.array([row[k] for row in of_arm]) for k in ("mean", "low", "high")
            )
            line, marker = ("-", look[arm].marker) if arm in look else next(floors)
            axes.errorbar(
                # A little apart, or the intervals would hide each other.
                np.arange(len(of_arm)) + 0.05 * (i - len(arms) / 2),
                mean,
                (mean - low, high - mean),
                color=look.get(arm, PLAIN).color,
                marker=marker,
                markersize=5,
                linestyle=line,
                capsize=2,
                label=arm,
            )
        labels = [f"{low}–{high}\n{count:,} sources" for (low, high), count in bins.items()]
        axes.set_xticks(range(len(bins)), labels, fontsize=8)
        axes.set_ylim(-3, 103)
        axes.set_xlabel(f"{unit} of the source")
        axes.set_ylabel(quality)
        figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def alignments(by_arm: Mapping[str, Alignment]) -> Figure:
    """For every arm what each piece that it said (down) read of the source (across)."""
    with house_style():
        wide = max(len(source) for _, _, source in by_arm.values())
        high = max(len(target) for _, target, _ in by_arm.values())
        size = (len(by_arm) * (1.6 + 0.26 * wide), 1.6 + 0.26 * high)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(by_arm), squeeze=False)[0]
        for axes, (arm, (weights, target, source)) in zip(panels, by_arm.items(), strict=True):
            axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
            axes.set_xticks(range(len(source)), source, rotation=90, fontsize=8)
            axes.set_yticks(range(len(target)), target, fontsize=8)
            axes.xaxis.tick_top()
            axes.set_xlabel(arm)
            axes.grid(visible=False)
    return figure


def draw_png(figure: Figure) -> bytes:
    """A figure as a PNG; a character that the font lacks is a box, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        return png(figure)
