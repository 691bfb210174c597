"""Rows of results read as a table: a line for every arm, what counts, what stands under it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.harness.rates import TRIAL_SEEDS
from longlag.report import flaws

__all__ = [
    "COLUMNS",
    "Results",
    "Row",
    "count_solved",
    "far_rows",
    "lines",
    "near_rows",
    "rows_by_arm",
    "spread",
    "time_of",
    "verdict",
]

# What `results.json` holds, and one of its `rows`.
Results = dict[str, Any]
Row = dict[str, Any]

COLUMNS = (
    *("arm", "kind", "trained at", "tested at", "solved", "floor", "steps", "rate", "params"),
    *("state", "time"),
)


def lines(results: Results, beyond: bool = True) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets.

    "tested at" is the longest lag. "solved" counts the seeds as `count_solved` does. "steps" is the
    median over all seeds, where one that did not solve it took longer than any that did.
    """
    table: list[tuple[str, ...]] = []
    for arm, rows in rows_by_arm(results).items():
        near = near_rows(rows)
        longest = max(row["lag"] for row in rows)
        far = [row for row in rows if row["lag"] == longest != row["train_lag"]]
        took = statistics.median(row["solved_at"] or math.inf for row in near)
        table.append(
            (
                arm,
                rows[0]["kind"],
                f"{near[0]['train_lag']:,}: {spread(near)}",
                f"{longest:,}: {spread(far)}" if far else "",
                "{}/{}".format(*count_solved(rows, results["threshold"], beyond)),
                f"{rows[0].get('floor', results.get('floor', 0)):.2f}",
                f"{took:,.0f}" if took < math.inf else f"not within {near[0]['budget']:,}",
                f"{near[0]['rate']:g}" if "rate" in near[0] else "",
                f"{near[0]['parameters']:,}",
                f"{near[0]['state_bytes']:,} B",
                time_of(near),
            )
        )
    return table


def verdict(results: Results, beyond: bool = True) -> str:
    """What stands under the table, a line each; "solved" counts as `count_solved` does."""
    arms = rows_by_arm(results)
    counts = {arm: count_solved(rows, results["threshold"], beyond) for arm, rows in arms.items()}
    tested_beyond = any(row["lag"] != row["train_lag"] for row in results["rows"])
    at = "every test length beyond the trained one" if beyond and tested_beyond else None
    every = sum(solved == of for solved, of in counts.values())
    some = sum(solved > 0 for solved, _ in counts.values())
    return "\n".join(
        (
            f"A seed has solved the task if its accuracy is at least {results['threshold']:.2f} at "
            f"{at or 'the trained length'}.",
            f"Of {len(counts)} arms, {every} solved it in every seed and {some} in at least one.",
            *_name_rates(results),
            f"Cost: {results['meta']['core_hours']:.2f} core-hours.",
        )
    )


def _name_rates(results: Results) -> tuple[str, ...]:
    trials = results.get("trials")
    if not trials:
        return ()
    tried = sorted({trial["rate"] for trial in trials})
    return (
        f"Each arm has the best of the learning rates {', '.join(f'{rate:g}' for rate in tried)}.",
        f"{TRIAL_SEEDS} other seeds of each rate were compared after a third of the steps, by "
        "validation accuracy and then by loss.",
    )


def rows_by_arm(results: Results) -> dict[str, list[Row]]:
    """The rows of every arm."""
    arms: dict[str, list[Row]] = {}
    for row in results["rows"]:
        arms.setdefault(row["arm"], []).append(row)
    return arms


def count_solved(rows: Sequence[Row], threshold: float, beyond: bool = True) -> tuple[int, int]:
    """How many of an arm's seeds did it, and of how many.

    Args:
        rows: of the arm.
        threshold: the accuracy that counts.
        beyond: at every lag tested beyond the trained one; else at the trained one.
    """
    counted = far_rows(rows) if beyond else near_rows(rows)
    return len(_solving_seeds(counted, threshold)), len(near_rows(rows))


def _solving_seeds(rows: Sequence[Row], threshold: float) -> list[int]:
    """The seeds over the threshold in all of their rows."""
    seeds = {row["seed"] for row in rows}
    missed = {row["seed"] for row in rows if (row["accuracy"] or 0) < threshold}
    return sorted(seeds - missed)


def far_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that count: those at other lags than the trained one, or at that if it is alone."""
    return [row for row in rows if row["lag"] != row["train_lag"]] or near_rows(rows)


def near_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows at the lag trained at."""
    return [row for row in rows if row["lag"] == row["train_lag"]]


def time_of(rows: Sequence[Row]) -> str:
    """How long a seed was trained, the median."""
    return f"{statistics.median(row['seconds'] for row in rows):.0f} s"


def spread(rows: Sequence[Row], key: str = "accuracy", digits: int = 2) -> str:
    """The median of what rows hold, their range in brackets, and how many are not finite.

    Empty where no row has the key.
    """
    if not any(key in row for row in rows):
        return ""
    values = [row[key] for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    flawed = flaws(rows, key)
    if not values:
        return "diverged" if flawed == (f"{len(rows)} diverged",) else ", ".join(flawed)
    mid, low, high = (
        f"{v:.{digits}f}" for v in (statistics.median(values), min(values), max(values))
    )
    return ", ".join((mid if low == high else f"{mid} ({low}–{high})", *flawed))
