"""How the figures look: one colour and one marker per arm everywhere, and little ink besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import font_manager

__all__ = [
    "INK",
    "MUTED",
    "PALETTE",
    "PLAIN",
    "RULE",
    "Style",
    "house_style",
    "spread_out",
    "styles",
]

INK = "#1b1e23"
MUTED = "#626973"
RULE = "#d5d9de"

# After Okabe and Ito, darkened where they were too pale for thin lines on white; a test keeps them
# apart under the common colour-vision deficiencies. Markers tell the arms apart without colour.
PALETTE = ("#0067b1", "#d17f00", "#a3240f", "#00916a", "#8e4a86", "#3f9fd8", "#1b1e23")
MARKERS = ("o", "^", "D", "v", "P", "X", "h")


class Style(NamedTuple):
    """How one arm is drawn in every figure."""

    color: str
    marker: str


PLAIN = Style("#7f848d", "s")
"""What is there for comparison only: the arms without a memory."""


def styles(arms: Iterable[str], roles: Mapping[str, str]) -> dict[str, Style]:
    """Gives each arm its colour and its marker, by its place in the order of the arms.

    Args:
        arms: names in the order of the figures.
        roles: from the name of an arm to its role; feed-forward arms are grey.
    """
    arms = list(dict.fromkeys(arms))
    plain = [arm for arm in arms if roles.get(arm) == "feed-forward"]
    colored = [arm for arm in arms if arm not in plain]
    n = len(PALETTE)
    # Past the palette a colour comes again, with another marker.
    drawn = {arm: Style(PALETTE[i % n], MARKERS[(i + i // n) % n]) for i, arm in enumerate(colored)}
    return {arm: drawn.get(arm, PLAIN) for arm in arms}


def house_style() -> AbstractContextManager[None]:
    """Settings that hold both where a figure is made and where it is saved."""
    # A family that is not installed would be reported for every figure.
    installed = set(font_manager.get_font_names())
    families = [name for name in ("Arial", "Liberation Sans") if name in installed]
    settings: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": [*families, "DejaVu Sans"],
        "font.size": 8.5,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 8.5,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 6,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.visible": False,
        "lines.linewidth": 1.4,
        "lines.solid_capstyle": "round",
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
    return matplotlib.rc_context(settings)


def spread_out(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves labels apart that would touch, as little as needed, and keeps their order.

    Args:
        heights: where each label would like to be.
        gap: the least distance between two of them.
        low: the lower end of the band to stay in.
        high: its upper end; labels that do not fit in the band start at `low`.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    wanted = np.clip([heights[i] for i in order], low, high) - gap * np.arange(len(heights))
    # Pool neighbours that push each other to their mean: the least-squares answer.
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([float(value)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    pooled = [float(np.mean(block)) for block in blocks for _ in block]
    top = high - gap * (len(heights) - 1)
    placed = [0.0] * len(heights)
    for rank, (i, value) in enumerate(zip(order, pooled)):
        placed[i] = max(min(value, top), min(low, top)) + gap * rank
    return placed
