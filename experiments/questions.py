"""What the scripts share that put one question to many arms: run, table, verdict.

A question is a value: experiments by the name of their arm, and the accuracy that is asked for. Its
arms are run as a sweep (`longlag.sweep`), so that finished ones are kept and the same command goes
on where it was stopped; `python -m experiments.record` makes its table from what is committed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from longlag.catalogue import kind
from longlag.command_line import console
from longlag.disk import replace_file, writing
from longlag.environment import provenance
from longlag.experiment import Experiment
from longlag.spec import choose
from longlag.sweep import sweep

__all__ = ["COLUMNS", "Question", "ask", "by_arm", "lines", "tested", "trained", "verdict"]

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of every arm.

    Attributes:
        title: the question, in words.
        arms: experiments by the name of their arm; all of one task, or named by task too.
        threshold: the accuracy from which a seed has done it, at the longest lag it is tested at
            and all shorter ones beyond the trained one; at the trained one where there is no other.
    """

    title: str
    arms: Mapping[str, Experiment]
    threshold: float

    def restricted(
        self, arms: Sequence[str] = (), seeds: int | None = None, steps: int | None = None
    ) -> Question:
        """The same question to some arms, with other seeds or steps; None and () change nothing."""
        for arm in arms:
            choose(arm, self.arms, "arm")
        kept = {arm: job for arm, job in self.arms.items() if not arms or arm in arms}
        if seeds is not None:
            kept = {arm: dataclasses.replace(job, seeds=seeds) for arm, job in kept.items()}
        if steps is not None:
            kept = {
                arm: dataclasses.replace(
                    job, training=dataclasses.replace(job.training, steps=steps)
                )
                for arm, job in kept.items()
            }
        return dataclasses.replace(self, arms=kept)


def ask(
    question: Question,
    command: str,
    out: Path,
    workers: int = 0,
    *,
    also: Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    lines_of: Callable[[Found], Sequence[Sequence[str]]] | None = None,
    verdict_of: Callable[[Found], str] | None = None,
) -> Found:
    """Runs all arms, prints the table and leaves `results.json` in `out`.

    Args:
        question: which.
        command: what the user typed, for the record.
        out: the folder; a run folder for each arm is in it.
        workers: processes, each pinned to one core; 0 means one per core.
        also: more entries of `results.json`.
        columns: of another table than that of `COLUMNS`.
        lines_of: its lines, in place of `lines`.
        verdict_of: what stands under it, in place of `verdict`.

    Returns:
        What `results.json` holds.
    """
    began = time.perf_counter()
    found = sweep({folder(arm): job for arm, job in question.arms.items()}, out, workers)
    rows = []
    for arm, job in question.arms.items():
        for row in found[folder(arm)]["rows"]:
            kept = {k: v for k, v in row.items() if k != "by_position"}
            floor = job.task.floor().accuracy
            rows.append(kept | {"arm": arm, "kind": _kind(job), "floor": floor})
    core_hours = round(sum(row["seconds"] for row in trained(rows)) / 3600, 3)
    results = {
        "rows": rows,
        "threshold": question.threshold,
        **(also or {}),
        "meta": provenance(command, began) | {"core_hours": core_hours},
    }
    with writing("the results", out):
        replace_file(out / "results.json", json.dumps(results, indent=1) + "\n")
    table = Table(*(columns or COLUMNS), title=question.title, title_justify="left")
    for line in (lines_of or lines)(results):
        table.add_row(*line)
    console.print(table)
    console.print((verdict_of or verdict)(results), highlight=False)
    console.print(f"results {out / 'results.json'}", highlight=False, soft_wrap=True)
    return results


def folder(arm: str) -> str:
    """The name of an arm's run folder."""
    return re.sub(r"[^a-z0-9.]+", "-", arm.lower()).strip("-")


COLUMNS = (
    *("arm", "kind", "trained at", "tested at", "held", "floor", "steps", "params", "state"),
    "time",
)


def lines(results: Found) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets.

    "tested at" is the longest lag; "held" counts the seeds over the threshold at every lag but
    the trained one.
    """
    found: list[tuple[str, ...]] = []
    for arm, rows in by_arm(results).items():
        near = trained(rows)
        beyond = [row for row in rows if row["lag"] != row["train_lag"]]
        longest = max((row["lag"] for row in beyond), default=None)
        far = [row for row in beyond if row["lag"] == longest]
        at = [row["solved_at"] for row in near if row["solved_at"] is not None]
        found.append(
            (
                arm,
                rows[0]["kind"],
                f"{near[0]['train_lag']:,}: {_spread(near)}",
                f"{longest:,}: {_spread(far)}" if far else "",
                f"{len(_held(rows, results['threshold']))}/{len(near)}",
                f"{rows[0].get('floor', results.get('floor', 0)):.2f}",
                f"{statistics.median(at):,.0f}" if at else f"not within {near[0]['budget']:,}",
                f"{near[0]['parameters']:,}",
                f"{near[0]['state_bytes']:,} B",
                f"{sum(row['seconds'] for row in near):.0f} s",
            )
        )
    return found


def verdict(results: Found) -> str:
    """What stands under the table."""
    arms = by_arm(results)
    counts = {
        arm: (len(_held(rows, results["threshold"])), len(trained(rows)))
        for arm, rows in arms.items()
    }
    every = sum(held == of for held, of in counts.values())
    some = sum(held > 0 for held, _ in counts.values())
    return (
        f'"held": seeds with at least {results["threshold"]:.2f} at every length tested beyond the '
        f"trained one, or at that if it is the only one. In every seed: {every} of {len(counts)} "
        f"arms; in at least one: {some}. "
        f"{results['meta']['core_hours']:.2f} core-hours."
    )


def by_arm(results: Found) -> dict[str, list[Found]]:
    """The rows of every arm."""
    arms: dict[str, list[Found]] = {}
    for row in results["rows"]:
        arms.setdefault(row["arm"], []).append(row)
    return arms


def _held(rows: Sequence[Found], threshold: float) -> list[int]:
    """The seeds that did it."""
    asked = tested(rows)
    seeds = {row["seed"] for row in asked}
    missed = {row["seed"] for row in asked if (row["accuracy"] or 0) < threshold}
    return sorted(seeds - missed)


def _kind(job: Experiment) -> str:
    attention = job.architecture.attention
    if job.cell is None:
        return "attention"
    return kind(type(job.cell)) + ("" if attention == "none" else " + attention")


def tested(rows: Sequence[Found]) -> list[Found]:
    """The rows that count: those at other lags than the trained one, or at that if it is alone."""
    return [row for row in rows if row["lag"] != row["train_lag"]] or trained(rows)


def trained(rows: Sequence[Found]) -> list[Found]:
    """The rows at the lag trained at."""
    return [row for row in rows if row["lag"] == row["train_lag"]]


def _spread(rows: Sequence[Found]) -> str:
    values = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    if not values:
        return "diverged"
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{mid:.2f} ({low:.2f}–{high:.2f})"
