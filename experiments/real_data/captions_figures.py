"""Regions that each word of a caption looked at, as Xu et al. 2015 (arXiv 1502.03044) drew them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.recorded import FigureText
from longlag.report.style import house_style

__all__ = ["Seen", "sheet"]

FAINT = 0.12  # what is left of a region that nothing was read of


class Seen(NamedTuple):
    """A picture and how it was said.

    Attributes:
        picture: `[S, S, 3]` uint8.
        title: what stands over it.
        words: W of them, as they were said.
        weights: `[W, G, G]`, what each read of the regions.
    """

    picture: np.ndarray
    title: str
    words: Sequence[str]
    weights: np.ndarray


def sheet(seen: Sequence[Seen]) -> Figure:
    """A row for each picture: itself, then a copy for each word, faded where nothing was read."""
    across = 1 + max(len(one.words) for one in seen)
    with house_style():
        # Places of one size: a layout that measures a hundred panels takes seconds.
        figure = Figure(figsize=(1.2 * across, 1.6 * len(seen)))
        room = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.4 / (1.6 * len(seen))}
        spaced = room | {"wspace": 0.08, "hspace": 0.4}
        panels = figure.subplots(len(seen), across, squeeze=False, gridspec_kw=spaced)
        for axes in panels.flat:
            axes.set_axis_off()
        for row, one in zip(panels, seen, strict=True):
            row[0].imshow(one.picture)
            row[0].set_title(
                textwrap.fill(one.title, 18), fontsize=6, loc="center", weight="normal"
            )
            for axes, word, weights in zip(row[1:], one.words, one.weights):
                axes.imshow(fade(one.picture, weights))
                axes.set_title(word, fontsize=8, loc="center")
    return figure


def fade(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture `[S, S, 3]` uint8 that is the whiter the less of a region was read.

    Args:
        picture: what was looked at.
        weights: `[G, G]`; the largest leaves its region as it is.
    """
    size = len(picture) // len(weights)
    kept = np.kron(weights / weights.max(), np.ones((size, size)))
    kept = FAINT + (1 - FAINT) * kept[..., None]
    return np.rint(255 - kept * (255.0 - picture)).astype(np.uint8)


def figure_text(heading: str, sentence: str) -> FigureText:
    """The text around the committed picture, under this heading, which shows this."""
    return FigureText(
        heading,
        "Eight pictures of the test, evenly over it. A copy for each word that was said, faded "
        "where nothing was read.",
        sentence,
        "Emoji, each with a copy for every word of its caption, showing the regions read.",
    )
