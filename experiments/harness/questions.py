"""What the scripts share that put one question to many arms: the question, and how it is run.

A question is a value: experiments by the name of their arm, and the accuracy that is asked for. Its
arms are run as a sweep (`longlag.sweep`), so that finished ones are kept and the same command goes
on where it was stopped; `python -m experiments.harness.record` makes its table from what is
committed.
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

import experiments
from experiments.harness.rates import choose_rates, folder
from experiments.harness.tables import COLUMNS, Results, Row, lines, verdict
from longlag.cli.arguments import plain_errors
from longlag.cli.listing import kind
from longlag.cli.workers import WorkersOption
from longlag.core.spec import choose
from longlag.runs import Experiment, LogName, Workers, require_log_packages, sweep
from longlag.runs.folder import nonfinite_to_none
from longlag.system.atomic_files import replace_file, writing
from longlag.system.console import console, print_table
from longlag.system.devices import leave_accelerators
from longlag.system.machine import provenance

__all__ = [
    "Arms",
    "Options",
    "Question",
    "ask",
    "command_and_folder",
    "meta",
    "module_of",
    "run_arms",
    "script",
    "show",
]

Arms = Mapping[str, Experiment]
# Arms, grid, folder and workers to the arms at their rates, and the trials: as `choose_rates`.
Choice = Callable[[Arms, Sequence[float], Path, Workers], tuple[Arms, list[Row]]]


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of every arm.

    Attributes:
        title: the question, in words.
        arms: experiments by the name of their arm; all of one task, or named by task too.
        grid: the learning rates that every arm is tried at first (`harness.rates`); empty:
            the arms' own are taken.
        threshold: the accuracy from which a seed has done it, at the longest lag it is tested at
            and all shorter ones beyond the trained one; at the trained one where there is no other.
        options: the words of a command line by which it was restricted, for the record.
        logs: where the metrics of its arms go besides (`longlag.runs.MetricLogs`).
    """

    title: str
    arms: Mapping[str, Experiment]
    threshold: float
    grid: tuple[float, ...] = ()
    options: tuple[str, ...] = ()
    logs: tuple[LogName, ...] = ()

    def restrict(
        self, arms: Sequence[str] = (), seeds: int | None = None, steps: int | None = None
    ) -> Question:
        """The same question to some arms, with other seeds or steps; None and () change nothing.

        Steps take the place of a budget of operations.
        """
        for arm in arms:
            choose(arm, self.arms, "arm")
        numbers = {"--seeds": seeds, "--steps": steps}
        options = [shlex.join(("--arms", *arms))] if arms else []
        options += [f"{name} {number}" for name, number in numbers.items() if number is not None]
        kept = {arm: job for arm, job in self.arms.items() if not arms or arm in arms}
        if seeds is not None:
            kept = {arm: dataclasses.replace(job, seeds=seeds) for arm, job in kept.items()}
        if steps is not None:
            kept = {
                arm: dataclasses.replace(
                    job, training=dataclasses.replace(job.training, steps=steps, budget=0.0)
                )
                for arm, job in kept.items()
            }
        return dataclasses.replace(self, arms=kept, options=(*self.options, *options))

    def smoke(self) -> Question:
        """The same in a few steps of one seed each, to see whether it runs."""
        short = self.restrict(seeds=1, steps=20)
        arms = {
            arm: dataclasses.replace(
                job, training=dataclasses.replace(job.training, dispatch=10, eval_size=32)
            )
            for arm, job in short.arms.items()
        }
        title = f"{self.title} (smoke: whether it runs; no number here is a result)"
        return dataclasses.replace(short, title=title, arms=arms, grid=(), options=self.options)


Size = Literal["cpu", "gpu"]


@dataclasses.dataclass(frozen=True)
class Options:
    """How a question is put.

    Attributes:
        preset: cpu (two cores), gpu (longer tasks and wider models), or smoke: a few steps of one
            seed of each arm.
        arms: some of the arms; none means all.
        seeds: of every arm, in place of the question's own.
        out: where the question's folder is made.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
        log: write the metrics of the arms to this log too, in their run folders; give the option
            twice for both. Trials of learning rates are not logged.
    """

    preset: Literal["smoke", "cpu", "gpu"] = "cpu"
    arms: tuple[str, ...] = ()
    seeds: int | None = None
    out: Path = Path("runs")
    workers: WorkersOption = 0
    log: tyro.conf.UseAppendAction[tuple[LogName, ...]] = ()

    @property
    def size(self) -> Size:
        """How large a question is; smoke is a small one, cut short."""
        return "gpu" if self.preset == "gpu" else "cpu"

    def restrict(self, question: Question) -> Question:
        """The question as these options put it."""
        require_log_packages(self.log)
        narrowed = question.restrict(self.arms, self.seeds)
        narrowed = dataclasses.replace(narrowed, logs=self.log)
        return narrowed.smoke() if self.preset == "smoke" else narrowed

    def command_and_folder(self, name: str, part: str = "") -> tuple[str, Path]:
        """The command that asks a script, or a part of it, and the folder that it leaves."""
        beyond = "" if self.preset == "cpu" else self.preset
        words = (f"python -m {module_of(name)}", part, beyond and f"--preset {beyond}")
        folders = (name, part, beyond)
        return " ".join(filter(None, words)), self.out / "-".join(filter(None, folders))


def script(
    name: str,
    doc: str | None,
    questions: Mapping[str, Callable[[Size], Question]],
    ask_options: Callable[[str], Mapping[str, Any]] = lambda part: {},
    argv: Sequence[str] | None = None,
) -> None:
    """What a script of questions does when it is run.

    Args:
        name: of the script, with dashes; folders and results are named so.
        doc: what `--help` says first.
        questions: by what they are about, and by size; under "" if there is only one.
        ask_options: what `ask` is told beside a question.
        argv: the command line; None: that of the process.
    """

    def read_parts(
        parts: tyro.conf.Positional[tuple[str, ...]] = (),
        options: tyro.conf.OmitArgPrefixes[Options] = Options(),
    ) -> tuple[tuple[str, ...], Options]:
        return parts, options

    read_parts.__doc__ = f"""Asks.

    Args:
        parts: of {", ".join(questions)}; none means all, one after another.
        options: how.
    """
    command_line: dict[str, Any] = {
        "prog": f"python -m {module_of(name)}",
        "description": doc,
        "args": argv,
    }
    with plain_errors():
        if [*questions] == [""]:
            parts, options = ("",), tyro.cli(Options, **command_line)
        else:
            parts, options = tyro.cli(read_parts, **command_line)
        for part in parts:
            choose(part, questions, "part")
        for part in parts or questions:
            question = options.restrict(questions[part](options.size))
            command, out = options.command_and_folder(name, part)
            ask(question, command, out, options.workers, **ask_options(part))


def ask(
    question: Question,
    command: str,
    out: Path,
    workers: Workers = 0,
    *,
    also: Mapping[str, Any] | Callable[[Arms, Sequence[Row], Path], Results] | None = None,
    columns: Sequence[str] | None = None,
    lines_of: Callable[[Results], Sequence[Sequence[str]]] | None = None,
    verdict_of: Callable[[Results], str] | None = None,
    choose: Choice = choose_rates,
) -> Results:
    """Runs all arms, prints the table and leaves `results.json` in `out`.

    Args:
        question: which.
        command: what the user typed, for the record; how the question was restricted is added.
        out: the folder; a run folder for each arm is in it.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
        also: more entries of `results.json`, or what makes them of the arms as they were trained,
            the rows, and `out`, where each arm's run is in `folder(arm)`.
        columns: of another table than that of `COLUMNS`.
        lines_of: its lines, in place of `lines`.
        verdict_of: what stands under it, in place of `verdict`.
        choose: how the learning rates are chosen.

    Returns:
        What `results.json` holds.
    """
    began = time.perf_counter()
    arms, rows, trials = run_arms(question, out, workers, choose)
    results = {
        "rows": rows,
        "threshold": question.threshold,
        **({"trials": trials} if trials else {}),
        **(also(arms, rows, out) if callable(also) else also or {}),
    }
    results["meta"] = meta(" ".join((command, *question.options)), began, out, [*rows, *trials])
    show(
        results,
        question.title,
        out,
        columns or COLUMNS,
        (lines_of or lines)(results),
        (verdict_of or verdict)(results),
    )
    return results


def run_arms(
    question: Question, out: Path, workers: Workers, choose: Choice = choose_rates
) -> tuple[Arms, list[Row], list[Row]]:
    """Runs all arms of a question that were not yet; arguments as those of `ask`.

    Returns:
        The arms, with the learning rates that were chosen; a row per arm, seed and lag; and the
        trials of the rates (`experiments.harness.rates`).
    """
    leave_accelerators()
    arms, trials = question.arms, []
    folders = {arm: folder(arm) for arm in arms}
    for arm, name in folders.items():
        if [*folders.values()].count(name) > 1:
            raise ValueError(f"arm {arm!r}: expected a name with a folder of its own, got {name}")
    for task in {job.task for job in arms.values()}:
        # What is fetched is fetched here, once, and not by every worker.
        jax.eval_shape(lambda task=task: task.sample(jax.random.key(0), 1))
    if question.grid:
        arms, trials = choose(arms, question.grid, out, workers)
    jobs = {folders[arm]: job for arm, job in arms.items()}
    results = sweep(jobs, out, workers, question.logs)
    rows = []
    for arm, job in arms.items():
        for row in results[folders[arm]]["rows"]:
            kept = {k: v for k, v in row.items() if k != "by_position"}
            floor = job.task.floor().accuracy
            rate = job.training.learning_rate
            rows.append(kept | {"arm": arm, "kind": _kind(job), "floor": floor, "rate": rate})
    return arms, rows, trials


def _kind(job: Experiment) -> str:
    attention = job.architecture.attention
    if job.cell is None:
        return "attention"
    return kind(type(job.cell)) + ("" if attention == "none" else " + attention")


def command_and_folder(script: str, options: Mapping[str, str], out: Path) -> tuple[str, Path]:
    """The command of a script, and the folder that it leaves.

    Args:
        script: its name.
        options: the values of options by name; one at its default is empty.
        out: where the folder is made.
    """
    used = {option: value for option, value in options.items() if value}
    words = (f"python -m {module_of(script)}", *(f"{o} {value}" for o, value in used.items()))
    return " ".join(words), out / folder("-".join((script, *used.values())))


def module_of(script: str) -> str:
    """The module of a script: "lag-horizon" is in `experiments.memory.lag_horizon`.

    Raises:
        ValueError: no module has that name, or several have it.
    """
    stem = script.replace("-", "_")
    modules = pkgutil.walk_packages(experiments.__path__, "experiments.")
    names = [info.name for info in modules if info.name.rpartition(".")[2] == stem]
    if len(names) != 1:
        raise ValueError(f"script: expected one module {stem}.py in experiments, got {names}")
    return names[0]


def meta(command: str, began: float, out: Path, rows: Sequence[Row]) -> Results:
    """What `results.json` says of where its rows come from.

    Args:
        command: that makes them again.
        began: `time.perf_counter()` when it began.
        out: the folder of the run folders.
        rows: of all that was trained, trials too.

    Returns:
        `longlag.system.machine.provenance` and `core_hours`; `resumed` if runs had begun before the
        command did, whose wall time is then that of the last part; `commits` if there are other
        ones, with the folders of the runs that began there.
    """
    origin = provenance(command, began) | {"core_hours": _core_hours(rows)}
    start = time.time() - (time.perf_counter() - began)
    commits: dict[str, list[str]] = {}
    for file in sorted(out.rglob("env.json")):
        env = json.loads(file.read_text(encoding="utf-8"))
        origin["dirty"] = origin["dirty"] or env["dirty"]
        if file.stat().st_mtime < start:
            origin["resumed"] = True
        if env["commit"] != origin["commit"]:
            at = commits.setdefault(env["commit"] or "none", [])
            at.append(str(file.parent.relative_to(out)))
    return origin | ({"commits": commits} if commits else {})


def _core_hours(rows: Sequence[Row]) -> float:
    """What training took; a seed counts once, however many lags it was tested at."""
    once = [row for row in rows if row.get("lag") == row.get("train_lag")]
    return round(sum(row["seconds"] for row in once) / 3600, 3)


def show(
    results: Results,
    title: str,
    out: Path,
    columns: Sequence[str],
    table: Sequence[Sequence[str]],
    sentences: str,
) -> None:
    """Writes `results.json`, and prints the table with what was found under it."""
    with writing("the results", out):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(
            out / "results.json",
            json.dumps(nonfinite_to_none(results), indent=1, allow_nan=False) + "\n",
        )
    print_table(columns, table, title)
    console.print(sentences, highlight=False)
    console.print(f"results {out / 'results.json'}", highlight=False, soft_wrap=True)
