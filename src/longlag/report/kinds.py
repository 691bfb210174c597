"""Figures by one call: `figure(results, kind)` draws, and saves PDF, PNG and the rows as CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from longlag.core.spec import choose
from longlag.report import charts, figures
from longlag.report.figures import WIDTHS, Layout, png
from longlag.report.maps import attention_map, trace_map
from longlag.report.style import Style, house_style, styles

__all__ = ["KINDS", "Kind", "drawn_rows", "figure", "plots"]

Rows = Sequence[Mapping[str, Any]]


class Kind(NamedTuple):
    """A kind of figure.

    Attributes:
        drawn: the entries of the results that it draws.
        draw: makes it from the results, how arms look, the layout and its own options.
        needs: what the rows have to have, in one row at least.
    """

    drawn: tuple[str, ...]
    draw: Callable[..., Figure]
    needs: tuple[str, ...] = ("arm", "seed", "accuracy")


def _accuracy(results: Any, look: Mapping[str, Style], layout: Layout, **options: Any) -> Figure:
    return figures.accuracy_by_arm(results["rows"], look, layout, **options)


def _lag(results: Any, look: Mapping[str, Style], layout: Layout, **options: Any) -> Figure:
    return figures.accuracy_by_lag(results["by_lag"], results["rows"], look, layout, **options)


def _learning(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return figures.learning_curves(results["curves"], results["rows"], look, layout, "accuracy")


def _loss(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return figures.learning_curves(results["curves"], results["rows"], look, layout, "loss")


def _attention(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return attention_map(results["attention"], WIDTHS[layout])


def _trace(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return trace_map(results["trace"], WIDTHS[layout])


def _cost(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return charts.accuracy_by_quantity(
        results["rows"], look, layout, "flops_per_token", "operations a token"
    )


def _state(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return charts.accuracy_by_quantity(
        results["rows"], look, layout, "state_bytes", "bytes of state of one sequence"
    )


def _horizon(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return charts.horizon(results["rows"], results["frontiers"], look, layout)


def _heat(results: Any, look: Mapping[str, Style], layout: Layout) -> Figure:
    return charts.heat_map(*charts.medians_by_task(results["rows"], look), layout)


KINDS: Mapping[str, Kind] = {
    "accuracy": Kind(("rows",), _accuracy),
    "lag": Kind(("by_lag",), _lag, ("arm", "seed", "accuracy", "lag")),
    "learning": Kind(("curves",), _learning, ("arm", "seed", "steps", "accuracy")),
    "loss": Kind(("curves",), _loss, ("arm", "seed", "steps", "loss")),
    "attention": Kind(("attention",), _attention, ()),
    "trace": Kind(("trace",), _trace, ()),
    "cost": Kind(("rows",), _cost, ("arm", "seed", "accuracy", "flops_per_token")),
    "state": Kind(("rows",), _state, ("arm", "seed", "accuracy", "state_bytes")),
    "horizon": Kind(
        ("rows", "frontiers"), _horizon, ("arm", "seed", "horizon", "state_bytes", "lag", "spent")
    ),
    "heat": Kind(("rows",), _heat, ("task", "arm", "accuracy")),
}
"""The kinds of figure by their names: accuracy by arm, against lag, learning curves (by accuracy
and by loss), a map of attention, a trace of states, accuracy against operations and against bytes
of state, horizon against operations and bytes, and medians of arms on tasks."""

# Those of the report of a run, in their order.
OF_A_REPORT = ("accuracy", "lag", "learning", "loss", "attention", "trace")


def figure(
    results: Mapping[str, Any],
    kind: str,
    layout: Layout = "wide",
    *,
    save: str | Path | None = None,
    **options: Any,
) -> Figure:
    """Draws a figure of results, and saves it if asked to.

    Colours are those of Okabe and Ito (2008, "Color Universal Design"), darkened for thin lines on
    white. Each arm has a marker of its own besides, so that a figure survives grey.

    Args:
        results: see `longlag.report`; `by_lag` is `rows` where it is missing.
        kind: one of `KINDS`.
        layout: "wide" for a page, "narrow" for a phone or one column of print.
        save: a path without its suffix. The figure is written to `.pdf` and `.png`, and the rows
            that it draws to `.csv`. The folder is made if it does not exist.
        options: of that kind: `far` (accuracy), `quantity` (lag).

    Raises:
        ValueError: the kind is unknown, or the results lack what it draws.
    """
    rows = drawn_rows(results, kind)
    results = {"rows": [], "by_lag": results.get("rows"), **results}
    arms = figures.arms_of(rows if KINDS[kind].needs else results["rows"])
    roles = results.get("roles", {})
    with house_style():
        look = styles([*(arm for arm in roles if arm in arms), *arms], roles)
        made = KINDS[kind].draw(results, look, layout, **options)
    if save is not None:
        _save(made, rows, layout, Path(save))
    return made


def drawn_rows(results: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """The rows that a figure of that kind draws.

    Args:
        results: see `longlag.report`.
        kind: one of `KINDS`.

    Raises:
        ValueError: the kind is unknown, or the results lack what it draws.
    """
    entries, _, needs = KINDS[choose(kind, KINDS, "kind of figure")]
    rows: list[Mapping[str, Any]] = []
    for entry in entries:
        drawn = results.get(entry)
        if not drawn and entry == "by_lag":
            drawn = results.get("rows")
        # Nothing solved makes no frontiers, but a row there is.
        if drawn is None or not (drawn or rows):
            raise ValueError(
                f"figure {kind!r}: expected results with {entry!r}, got {sorted(results)}"
            )
        rows += [drawn] if isinstance(drawn, Mapping) else drawn
    missing = [key for key in needs if not any(key in row for row in rows)]
    if missing:
        raise ValueError(
            f"figure {kind!r}: expected rows with {', '.join(needs)}; got {', '.join(rows[0])}, "
            f"without {', '.join(missing)}"
        )
    return rows


def plots(results: Mapping[str, Any], layout: Layout = "wide") -> dict[str, Figure]:
    """Draws all figures of a report that the results have data for.

    Args:
        results: see `longlag.report`.
        layout: how the panels are arranged.

    Returns:
        from the kind of a figure to the figure, in the order of the report.
    """
    kinds = [kind for kind in OF_A_REPORT if all(map(results.get, KINDS[kind].drawn))]
    return {kind: figure(results, kind, layout) for kind in kinds}


def _save(made: Figure, rows: Sequence[Mapping[str, Any]], layout: Layout, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.png").write_bytes(png(made, layout))
    with house_style():
        # Without a date, equal figures give equal files.
        made.savefig(path.with_name(f"{path.name}.pdf"), metadata={"CreationDate": None})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.with_name(f"{path.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
