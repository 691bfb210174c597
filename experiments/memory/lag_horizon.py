"""How far back does a recurrence remember: copy memory, at ever longer lags until it fails.

    python -m experiments.memory.lag_horizon                           (2 core-hours)
    python -m experiments.memory.lag_horizon --arms "LSTM + attention" --longest 128
    python -m experiments.memory.lag_horizon --preset smoke

Ten symbols, a gap, then the symbols. Every arm climbs from lag to lag while most of its seeds
recall; at the first lag where they do not, it is given three times the steps, once, and stops.
"LSTM, told the lag" has gate biases drawn for that lag (chrono initialisation, Tallec and Ollivier
2018, arXiv 1804.11188); "LSTM, not told" has them drawn for the longest lag of all, whatever is
asked. Two blocks; learning rates are chosen at the shortest lag, and kept.

Finished runs are kept, and the same command goes on where it was stopped; without `--longest` and
`--no-probe` it goes on from there.

Leaves runs/lag-horizon: results.json, and a folder for each lag with a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments.harness.questions import Options, Question, Size, meta, run_arms, show
from experiments.harness.rates import GRID
from experiments.harness.recorded import Plot, Recorded
from experiments.harness.tables import count_solved, rows_by_arm, spread
from longlag import LSTM, Elman, MinGRU
from longlag.cli.arguments import plain_errors
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import CopyMemory
from longlag.training import Training

DID = 0.95
LAGS: dict[Size, tuple[int, ...]] = {
    "cpu": (32, 64, 128, 256, 512),
    "gpu": (128, 256, 512, 1024, 2048),
}
PROBE = 3  # times the steps


@dataclasses.dataclass(frozen=True)
class Climb(Options):
    """How a question is put.

    Attributes:
        longest: the lag after which no arm goes on; None: the last of the preset.
        probe: whether an arm that fails is given three times the steps there, once.
    """

    longest: int | None = None
    probe: bool = True

    @property
    def lags(self) -> tuple[int, ...]:
        """From the shortest on."""
        lags = LAGS[self.size]
        if self.longest is not None:
            if self.longest not in lags:
                raise ValueError(f"--longest: expected one of {lags}, got {self.longest}")
            lags = lags[: lags.index(self.longest) + 1]
        return lags[:1] if self.preset == "smoke" else lags


def question(lag: int, size: Size) -> Question:
    """All arms at one lag."""
    small = size == "cpu"
    width = 32 if small else 128
    task, longest = CopyMemory(lag=lag), LAGS[size][-1]
    span = task.items  # a symbol is recalled so many steps after the lag
    cells: dict[str, Cell] = {
        "Elman, orthogonal": Elman(width),
        "LSTM": LSTM(width),
        "LSTM, told the lag": LSTM(width, chrono=lag + span),
        "LSTM, not told": LSTM(width, chrono=longest + span),
        "minGRU": MinGRU(width),
        "LSTM + attention": LSTM(width),
    }
    training = Training(
        steps=3000 if small else 50_000,
        batch_size=32 if small else 128,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    arms = {
        name: Experiment(
            task,
            cell,
            Architecture("full" if "attention" in name else "none", width=width, mlp=2 * width),
            training,
            seeds=5,
            test_lags=(lag,),
        )
        for name, cell in cells.items()
    }
    return Question("How far back does a recurrence remember?", arms, DID, GRID)


def climb(
    options: Climb, lags: tuple[int, ...], size: Size, out: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Runs every arm at ever longer lags until it fails.

    Args:
        options: from the command line.
        lags: from the shortest on.
        size: of models and budget.
        out: the folder.

    Returns:
        Rows as `run_arms` has them, with `probe` (whether the steps were trebled), and the trials.
    """
    rows: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    chosen: Mapping[str, Experiment] = {}
    alive = options.arms or tuple(question(lags[0], size).arms)
    for lag in lags:
        current = options.restrict(question(lag, size)).restrict(alive)
        if chosen:  # at the rates of the first lag, by the same seeds
            current = dataclasses.replace(
                current, grid=(), arms=_with_chosen_rates(current.arms, chosen)
            )
        arms, new_rows, tried = run_arms(current, out / f"lag-{lag}", options.workers)
        chosen = {**chosen, **arms}
        trials += tried
        rows += [row | {"probe": False} for row in new_rows]
        by = rows_by_arm({"rows": new_rows})
        failed = [arm for arm in alive if not is_solved_by_most(by[arm])]
        if failed and options.probe:
            longer = dataclasses.replace(current, grid=(), arms={a: arms[a] for a in failed})
            longer = longer.restrict(steps=PROBE * arms[failed[0]].training.steps)
            _, new_rows, _ = run_arms(longer, out / f"lag-{lag}-probe", options.workers)
            rows += [row | {"probe": True} for row in new_rows]
        alive = tuple(arm for arm in alive if arm not in failed)
        if not alive:
            break
    return rows, trials


def is_solved_by_most(rows: list[dict[str, Any]]) -> bool:
    """Whether more than half of the seeds recall."""
    good, of = count_solved(rows, DID)
    return 2 * good > of


def _has_probe(rows: list[dict[str, Any]]) -> bool:
    return any(row["probe"] for row in rows)


def _rows_at_longest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the longest lag."""
    longest = max(row["lag"] for row in rows)
    return [row for row in rows if row["lag"] == longest]


def _with_chosen_rates(
    arms: Mapping[str, Experiment], chosen: Mapping[str, Experiment]
) -> dict[str, Experiment]:
    return {
        arm: dataclasses.replace(
            job,
            training=dataclasses.replace(
                job.training, learning_rate=chosen[arm].training.learning_rate
            ),
            first_seed=chosen[arm].first_seed,
        )
        for arm, job in arms.items()
    }


def columns(results: dict[str, Any]) -> tuple[str, ...]:
    """The lags that any arm was asked."""
    lags = sorted({row["lag"] for row in results["rows"]})
    return ("arm", *(f"lag {lag}" for lag in lags), "horizon", "rate", "params", "state")


def lines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for every arm: recall at each lag, that of the probe after it, the last one held.

    "state" is that of the last lag held.
    """
    lags = sorted({row["lag"] for row in results["rows"]})
    table = []
    for arm, rows in rows_by_arm(results).items():
        cells, horizon, last = [], "", rows[0]
        for lag in lags:
            plain = [row for row in rows if row["lag"] == lag and not row["probe"]]
            probe = [row for row in rows if row["lag"] == lag and row["probe"]]
            accuracies = [spread(plain)] if plain else []
            accuracies += [f"{PROBE}×: {spread(probe)}"] if probe else []
            cells.append("; ".join(accuracies))
            if plain and is_solved_by_most(plain):
                horizon, last = str(lag), plain[0]
        if not _has_probe(rows) and is_solved_by_most(_rows_at_longest(rows)):
            horizon = f"≥ {horizon}"  # it did not fail yet
        cost = (f"{last['rate']:g}", f"{last['parameters']:,}", f"{last['state_bytes']:,} B")
        table.append((arm, *cells, horizon or f"< {lags[0]}", *cost))
    return table


def verdict(results: dict[str, Any]) -> str:
    """What stands under the table."""
    rows = [row for row in results["rows"] if not row["probe"]]
    budget = statistics.mode(row["budget"] for row in rows)
    spared = [
        arm
        for arm, of in rows_by_arm(results).items()
        if not (_has_probe(of) or is_solved_by_most(_rows_at_longest(of)))
    ]
    but = f" This was not done yet for {' and '.join(spared)}." if spared else ""
    return (
        f"Accuracy on the ten recalled symbols after {budget:,} steps. The baseline is 0.12.\n"
        "An arm continues at the next lag while more than half of its seeds reach "
        f"{results['threshold']:.2f}.\n"
        f"Where they do not, it is trained once more with {PROBE} times the steps.{but}\n"
        f"Cost: {results['meta']['core_hours']:.2f} core-hours."
    )


def main(options: Climb) -> None:
    """Asks it."""
    began = time.perf_counter()
    size, lags = options.size, options.lags
    command, out = options.command_and_folder("lag-horizon")
    command = " ".join((command, *options.restrict(question(lags[0], size)).options))
    command += "" if options.longest is None else f" --longest {options.longest}"
    command += "" if options.probe else " --no-probe"
    rows, trials = climb(options, lags, size, out)
    results = {
        "rows": rows,
        "threshold": DID,
        "trials": trials,
        "meta": meta(command, began, out, [*rows, *trials]),
    }
    title = question(lags[0], size).title
    show(results, title, out, columns(results), lines(results), verdict(results))


def figure(results: dict[str, Any]) -> Plot:
    """Recall against the lag, each trained anew."""
    rows = [row for row in results["rows"] if not row["probe"]]
    return Plot("lag", {"rows": rows}, {"quantity": "lag, in steps"})


RECORDED = (
    Recorded(
        *("lag-horizon", "How far back?", 90),
        columns=columns,
        lines=lines,
        verdict=verdict,
        figure=figure,
    ),
)


if __name__ == "__main__":
    with plain_errors():
        main(tyro.cli(Climb, prog="python -m experiments.memory.lag_horizon", description=__doc__))
