"""Put a published protocol to our cells, and set our numbers beside theirs.

    python -m experiments.published.reproduce --list
    python -m experiments.published.reproduce chomsky                     (cpu: 1.9 core-hours)
    python -m experiments.published.reproduce zoology-64x4 --preset smoke (seconds: does it run?)
    python -m experiments.published.reproduce cpustudy-selcopy --arms "4 items, GRU"

A protocol is a frozen specification: task, sizes, data, lengths, budget, optimiser, seeds, metric.
"paper" is the paper's own and wants a GPU; "cpu" keeps what makes the task hard and says what it
shrank; "smoke" takes a few steps of that. A published number stands beside ours by the paper's own
rule (often the best seed), with our median and range and the share of seeds in the columns after
it. Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/reproduce-PROTOCOL-PRESET: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.table import Table

from experiments.harness import tables
from experiments.harness.questions import ask
from experiments.harness.recorded import Plot, Recorded, plot_accuracy
from experiments.harness.tables import far_rows, rows_by_arm
from experiments.published.protocols import METRICS, PROTOCOLS
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.core.spec import choose
from longlag.report import flaws
from longlag.system.console import console

Preset = Literal["smoke", "cpu", "paper"]

COLUMNS = (
    "arm",
    "published",
    "by their rule",
    "median",
    "solved",
    "floor",
    "steps",
    "params",
    "time",
)


def lines(name: str, results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: means over the lengths tested, in the metric's unit.

    Of an arm with several learning rates, the rule takes all seeds of all rates; the rest of the
    line is that of the rate with the best median.
    """
    protocol = PROTOCOLS[name]
    metric = METRICS[protocol.metric]
    write = lambda value: "" if value is None else f"{value:{metric.form}}"  # noqa: E731
    plain = {line[0]: dict(zip(tables.COLUMNS, line)) for line in tables.lines(results)}
    arms = rows_by_arm(results)
    rates: dict[str, dict[str, list[float]]] = {}
    for arm, rows in arms.items():
        seeds: dict[int, list[float]] = {}
        for row in far_rows(rows):
            seeds.setdefault(row["seed"], []).append(metric.of(row))
        means = [statistics.fmean(of_seed) for of_seed in seeds.values()]
        rates.setdefault(_remove_rate(arm, rows), {})[arm] = means
    table = []
    for plain_name, of_rate in rates.items():
        arm = metric.best(of_rate, key=lambda rate: statistics.median(of_rate[rate]))
        means, line = of_rate[arm], plain[arm]
        if "mean of the seeds" in protocol.rule:
            by_rule = statistics.fmean(means)
        else:
            by_rule = metric.best(value for of_seeds in of_rate.values() for value in of_seeds)
        middle = f"{write(statistics.median(means))} ({write(min(means))}–{write(max(means))})"
        if protocol.at_most is not None:
            held = sum(value <= protocol.at_most for value in means)
            line |= {"solved": f"{held}/{len(means)}"}
        table.append(
            (
                arm,
                write(protocol.published.get(plain_name)),
                write(by_rule),
                ", ".join((middle, *flaws(_rows_of_seeds(far_rows(arms[arm]))))),
                line["solved"],
                write(metric.floor(arms[arm][0], results)),
                *(line[column] for column in ("steps", "params", "time")),
            )
        )
    return table


def _rows_of_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row of each seed for `flaws`: NaN at one length is NaN. The metric shows other losses."""
    seeds: dict[int, dict[str, Any]] = {}
    for row in rows:
        of_seed = seeds.setdefault(row["seed"], {"nan": 0.0, "accuracy": row["accuracy"]})
        of_seed["nan"] = max(of_seed["nan"], row.get("nan", 0.0))
    return [*seeds.values()]


def _remove_rate(arm: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of an arm without the learning rate that the preset "paper" ends it with."""
    return arm.removesuffix(f", {rows[0]['rate']:g}") if "rate" in rows[0] else arm


def verdict(name: str, results: dict[str, Any]) -> str:
    """What stands under the table."""
    protocol = PROTOCOLS[name]
    counted = tables.verdict(results)
    if protocol.at_most is not None:
        hours = results["meta"]["core_hours"]
        counted = (
            f"A seed has solved the task if its error is at most {protocol.at_most:g}.\n"
            f"Cost: {hours:.2f} core-hours."
        )
    shrunk = "" if results["preset"] == "paper" else f" Smaller here: {protocol.shrunk}."
    return "\n".join(
        (
            f"Published: {protocol.source}.",
            f"Their rule: {protocol.rule}. {METRICS[protocol.metric].unit}.",
            f"Preset: {results['preset']}.{shrunk}",
            f"Departures: {protocol.departures}.",
            counted,
        )
    )


def main(
    protocols: tyro.conf.Positional[tuple[str, ...]] = (),
    list: bool = False,
    preset: Preset = "cpu",
    arms: tuple[str, ...] = (),
    out: Path = Path("runs"),
    workers: WorkersOption = 0,
) -> int:
    """Runs one protocol or several.

    Args:
        protocols: which; none: with the preset smoke all of them, else they are listed.
        list: say which there are.
        preset: smoke, cpu or paper.
        arms: some of the arms; none means all.
        out: where the folder reproduce-PROTOCOL-PRESET of each is made.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """
    if list or (not protocols and preset != "smoke"):
        table = Table("protocol", "source", "arms", "cpu leaves out")
        for name, known in PROTOCOLS.items():
            table.add_row(name, known.source, str(len(known.question("cpu").arms)), known.shrunk)
        console.print(table)
        return 0
    for name in protocols:
        choose(name, PROTOCOLS, "protocol")
    for name in protocols or PROTOCOLS:
        question = PROTOCOLS[name].question("paper" if preset == "paper" else "cpu")
        question = question.restrict(arms)
        question = question.smoke() if preset == "smoke" else question
        command = f"python -m experiments.published.reproduce {name}"
        ask(
            question,
            command if preset == "cpu" else f"{command} --preset {preset}",
            out / f"reproduce-{name}-{preset}",
            workers,
            also={"preset": preset, "floor": next(iter(question.arms.values())).task.floor().loss},
            columns=COLUMNS,
            lines_of=functools.partial(lines, name),
            verdict_of=functools.partial(verdict, name),
        )
    return 0


def figure(name: str, results: dict[str, Any]) -> Plot:
    """Accuracy of every seed, or against the length where an arm is tested at many."""
    if name != "chomsky":
        return plot_accuracy(results)
    rows = []
    for row in results["rows"]:
        language, _, arm = row["arm"].partition(", ")
        of_length = {"lag": row["length"], "train_lag": row["train_length"]}
        rows.append(row | {"task": language, "arm": arm} | of_length)
    return Plot("lag", {"rows": rows}, {"quantity": "length of the string"})


TITLES = {
    "cpustudy-selcopy": "Published and reproduced: selective copy by GRU and minGRU",
    "chomsky": "Published and reproduced: the regular languages of the Chomsky hierarchy",
    "zoology-64x4": "Published and reproduced: recall of four pairs among 64 tokens",
    "adding-400": "Published and reproduced: the sum of two of 400 numbers",
}
RECORDED = tuple(
    Recorded(
        *(f"reproduce-{name}", TITLES.get(name, f"Published and reproduced: {name}"), 60),
        columns=COLUMNS,
        lines=functools.partial(lines, name),
        verdict=functools.partial(verdict, name),
        figure=functools.partial(figure, name),
    )
    for name in PROTOCOLS
)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(
            tyro.cli(main, prog="python -m experiments.published.reproduce", description=__doc__)
        )
