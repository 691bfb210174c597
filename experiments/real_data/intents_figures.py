"""Which intents are taken for which, and which words are read (experiments.real_data.intents)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from longlag.report.maps import BLUES
from longlag.report.style import INK, RULE, house_style

__all__ = ["confusion", "reading"]

WRITTEN = 0.05  # shares from here on are written into their field


def confusion(counts: np.ndarray, intents: Sequence[str], title: str) -> Figure:
    """A confusion matrix, each row of which sums to one.

    Args:
        counts: `[K, K]`, utterances by their intent (down) and what it was taken for (across).
        intents: K names.
        title: of whom.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [name.removeprefix("Hass") for name in intents]
    side = 2.4 + 0.27 * len(names)
    with house_style():
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        image = np.ma.masked_array(shares, np.broadcast_to(counts.sum(1) == 0, shares.shape).T)
        axes.imshow(image, cmap=BLUES, vmin=0, vmax=1)
        for row, column in np.argwhere(shares >= WRITTEN):
            share = shares[row, column]
            axes.text(
                column, row, f"{100 * share:.0f}", color="white" if share > 0.55 else INK,
                ha="center", va="center", fontsize=6,
            )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel(f"taken for, % of the row's utterances\n{title}", fontsize=8)
        axes.set_ylabel("is", fontsize=8)
        for spine in axes.spines.values():
            spine.set(visible=True, color=RULE)
    return figure


def reading(
    words: Sequence[Sequence[str]], weights: Sequence[np.ndarray], says: Sequence[str]
) -> Figure:
    """What the attention read of each word: a row for every utterance.

    Args:
        words: of N utterances.
        weights: N arrays, a weight for each word.
        says: N names, what each was taken for.
    """
    longest = max(map(len, words))
    shown = np.full((len(words), longest), np.nan)
    for row, of_row in enumerate(weights):
        shown[row, : len(of_row)] = of_row
    with house_style():
        figure = Figure(
            figsize=(2.2 + 0.95 * longest, 0.5 + 0.42 * len(words)), layout="constrained"
        )
        axes = figure.subplots()
        axes.imshow(
            np.ma.masked_invalid(shown), cmap=BLUES.with_extremes(bad="white"), vmin=0, vmax=1,
            aspect="auto",
        )  # fmt: skip
        for row, of_row in enumerate(words):
            for column, word in enumerate(of_row):
                share = shown[row, column]
                axes.text(
                    column, row, word + "\n" + f"{share:.2f}".lstrip("0"), fontsize=7.5,
                    color="white" if share > 0.55 else INK, ha="center", va="center",
                )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks(range(len(says)), [name.removeprefix("Hass") for name in says], fontsize=8)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set(visible=False)
    return figure
