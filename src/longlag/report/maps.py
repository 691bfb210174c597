"""The figures about one sequence: what was attended to, and the state unrolled over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from longlag.report.style import MUTED, RULE

# Matplotlib's own begins at a pale blue, which reads as a weight where there is none.
BLUES = LinearSegmentedColormap.from_list(
    "white to blue", ["#ffffff", "#9ecae1", "#2c7fb8", "#08306b"]
).with_extremes(bad="#eceef1")

__all__ = ["attention_map", "trace_map"]


def attention_map(picture: Mapping[str, Any], width: float) -> Figure:
    """One attention map: each row is a step that reads, each column a step that is read.

    Args:
        picture: `weights` `[T_query, T_memory]`, `tokens` of the memory, optionally `queries`
            (by default the last T_query tokens), `title`. A row of zeros is a step that read
            nothing; it is drawn grey.
        width: of the figure, in inches.

    Raises:
        ValueError: there is not one token for every column, or not one query for every row.
    """
    weights = np.asarray(picture["weights"], dtype=float)
    tokens = list(picture["tokens"])
    if weights.ndim != 2 or weights.shape[1] != len(tokens):
        raise ValueError(
            f"attention: expected weights [T_query, {len(tokens)}], one column per token; "
            f"got {list(weights.shape)}"
        )
    queries = list(picture.get("queries", tokens[max(len(tokens) - len(weights), 0) :]))
    if len(queries) != len(weights):
        raise ValueError(f"attention: expected {len(weights)} queries, got {len(queries)}")
    nothing = np.broadcast_to(weights.sum(axis=1, keepdims=True) == 0, weights.shape)
    side = min(width, 5.6)
    height = 0.5 + side * max(0.35, len(queries) / len(tokens)) * 0.9
    figure, ax = _heat_map(picture, (side, height))
    image = ax.imshow(
        np.ma.masked_array(weights, nothing), cmap=BLUES, vmin=0, vmax=1, aspect="auto"
    )
    _name_steps(ax, "x", tokens, side)
    _name_steps(ax, "y", queries, side)
    ax.set(xlabel="is read", ylabel="reads (grey: nothing)" if nothing.any() else "reads")
    _add_bar(figure, image, "weight")
    return figure


def trace_map(picture: Mapping[str, Any], width: float) -> Figure:
    """The hidden state unrolled over time: each column is a step, each row a unit.

    Args:
        picture: `states` `[T, H]`, `tokens` (the inputs), `title`.
        width: of the figure, in inches.

    Raises:
        ValueError: there is not one token for every step.
    """
    states = np.asarray(picture["states"], dtype=float)
    tokens = list(picture["tokens"])
    if states.ndim != 2 or len(states) != len(tokens):
        raise ValueError(
            f"trace: expected states [{len(tokens)}, H], one row per token; "
            f"got {list(states.shape)}"
        )
    figure, ax = _heat_map(picture, (width, 3.2))
    limit = np.abs(states).max() or 1.0
    image = ax.imshow(
        states[:, _order_by_likeness(states)].T,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        aspect="auto",
    )
    _name_steps(ax, "x", tokens, width)
    ax.set_yticks([])
    ax.set(xlabel="input, step by step", ylabel=f"{states.shape[1]} units, alike beside alike")
    _add_bar(figure, image, "state")
    return figure


def _order_by_likeness(states: np.ndarray) -> np.ndarray:
    """Orders units by their loading on the first principal component, so that groups show."""
    centred = states - states.mean(axis=0)
    loading = np.linalg.svd(centred, full_matrices=False)[2][0]
    # The sign of a component is arbitrary and differs between machines; the largest is positive.
    return np.argsort(-loading * np.sign(loading[np.abs(loading).argmax()]), kind="stable")


def _heat_map(picture: Mapping[str, Any], size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    ax.set_title(picture["title"], wrap=True)
    for spine in ax.spines.values():
        spine.set(visible=True, color=RULE)
    return figure, ax


def _name_steps(ax: Axes, axis: Literal["x", "y"], tokens: Sequence[str], width: float) -> None:
    """Writes the tokens along an axis: each of them if they fit, else every n-th."""
    room = 72 * (width - 1.2) / len(tokens)  # points per token
    size = float(np.clip(room * 0.85, 5, 8))
    every = int(np.ceil(size / (room * 1.05)))
    places = range(0, len(tokens), every)
    labels = [tokens[place] for place in places]
    set_ticks = ax.set_xticks if axis == "x" else ax.set_yticks
    # Short tokens stand upright where there is room; longer ones are turned to fit.
    upright = axis == "y" or max(map(len, labels)) * size * 0.6 < room * every
    set_ticks(places, labels, rotation=0 if upright else 90, fontsize=size)
    ax.tick_params(axis, length=0, pad=2)


def _add_bar(figure: Figure, image: AxesImage, label: str) -> None:
    bar = figure.colorbar(image, aspect=28, pad=0.015, fraction=0.05)
    bar.outline.set_visible(False)  # pyright: ignore
    bar.ax.tick_params(length=0, labelsize=7.5)
    bar.set_label(label, color=MUTED, fontsize=8)
