"""Bits of the next byte against the distance to its last occurrence, and their figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.harness.recorded import FigureText

__all__ = ["ORDER", "bits_by_distance", "distance_figure", "figure_text", "mean_of"]

ORDER = 8  # of the n-grams that count as come before
BINS = (64, 256, 1024, 4096)  # bytes since an 8-gram was last seen


def bits_by_distance(bits: np.ndarray, ago: np.ndarray) -> list[float | None]:
    """Mean bits where the 8-gram was seen within each of `BINS`, and where it never was.

    What was seen longer ago is left out; None where nothing was, or where an answer is NaN.
    """
    bins = np.digitize(ago, (1, *(b + 1 for b in BINS)))  # 0: never; the last: longer ago
    order = (*range(1, len(BINS) + 1), 0)
    return [mean_of(bits[bins == b]) if (bins == b).any() else None for b in order]


def mean_of(bits: np.ndarray) -> float | None:
    """None, as JSON has it, where one of them is NaN."""
    return None if np.isnan(bits).any() else round(float(bits.mean()), 4)


def distance_figure(apart: Mapping[str, list[list[float | None]]]) -> Any:
    """Bits of the next byte by how long ago the 8-gram that it ends was last seen."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    names = [*(f"{a + 1:,}–{b:,}" for a, b in zip((0, *BINS), BINS)), "never"]
    for (arm, seeds), colour in zip(apart.items(), ("#0072B2", "#D55E00", "#777777")):
        bits = np.asarray(seeds, float)  # an empty bin, None, is no point
        middle, low, high = np.median(bits, 0), np.min(bits, 0), np.max(bits, 0)
        spread = (middle - low, high - middle)
        axes.errorbar(range(len(names)), middle, spread, color=colour, marker="o", label=arm)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(f"bytes since the {ORDER}-gram was last seen")
    axes.set_ylabel("bits of its last byte")
    axes.set_ylim(bottom=0)
    axes.axvline(1.5, color="#BBBBBB", linestyle=":")
    axes.text(1.45, axes.get_ylim()[1], "attention's reach ", ha="right", va="top", fontsize=8)
    axes.legend(frameon=False)
    return figure


def figure_text(sentence: str) -> FigureText:
    """The text around the committed picture, which shows this."""
    return FigureText(
        "Where attention could help",
        "Bits of the byte that ends an 8-gram, by how long ago that 8-gram was seen.",
        sentence,
        "Bits of the next byte against the distance to the last time its 8-gram was seen.",
    )
