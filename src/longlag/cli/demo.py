"""Compare five models, with and without attention, on three memory tasks.

    longlag demo        (or: make demo)

Takes about 4 minutes on two cores. Recall asks for a value by its key. Parity asks for one bit of
state over a whole string. Selective copying asks for a few symbols among noise. All models (arms)
are equally deep: attention replaces a block. Arms that fail get at least five times the steps that
LSTM + full needed. The table says "not within N steps" of them.

Writes runs/demo with results.json, report.html, plots/, and a run folder for each arm and task.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longlag import report
from longlag.cells import LSTM, FeedForward
from longlag.cli.arguments import call
from longlag.cli.workers import WorkersOption
from longlag.runs import Architecture, Experiment, floor_rows, load, sweep
from longlag.system.atomic_files import replace_file, writing
from longlag.system.console import console
from longlag.system.devices import leave_accelerators
from longlag.system.machine import environment, provenance
from longlag.tasks import Parity, Recall, SelectiveCopy
from longlag.training import Training, evaluation_batch

__all__ = ["experiments", "main", "run_demo"]

WIDTH = 48
HEADS = 2
ARMS = {
    "feed-forward": (FeedForward(WIDTH), "none"),
    "LSTM": (LSTM(WIDTH), "none"),
    "LSTM + additive": (LSTM(WIDTH), "additive"),
    "LSTM + full": (LSTM(WIDTH), "full"),
    "attention only": (None, "full"),
}
ROLES = {
    "feed-forward": "feed-forward",
    "LSTM": "recurrence",
    "LSTM + additive": "both",
    "LSTM + full": "both",
    "attention only": "attention",
}
# Steps at most: five times what LSTM + full, an arm with both, takes in the median, or more.
TASKS = {
    "recall": (Recall(length=32, pairs=4, vocab=66), 900),
    "parity": (Parity(min_length=1, max_length=40), 1500),
    "selective-copy": (SelectiveCopy(length=32, items=4, vocab=8), 1100),
}
SEEDS = 3
# The arms that take longest come first.
SLOWEST = ("attention only", "LSTM + additive", "LSTM", "LSTM + full", "feed-forward")


def experiments(steps: int | None = None) -> dict[tuple[str, str], Experiment]:
    """The experiments of the demo, by task and arm.

    Args:
        steps: in place of the steps that each task is given, for a test.
    """
    return {
        (task_name, arm): Experiment(
            task=task,
            cell=cell,
            architecture=Architecture(
                attention=attention,  # type: ignore[arg-type]
                width=WIDTH,
                heads=HEADS if attention == "full" else Architecture.heads,
            ),
            training=Training(
                steps=steps or budget, dispatch=25, batch_size=32, learning_rate=3e-3, eval_size=256
            ),
            seeds=SEEDS,
        )
        for task_name, (task, budget) in TASKS.items()
        for arm, (cell, attention) in ARMS.items()
    }


def main(argv: Sequence[str]) -> int:
    """Runs `longlag demo` and returns the exit code."""
    return call(run_demo, argv, "longlag demo", __doc__ or "")


def run_demo(
    out: Path = Path("runs/demo"), steps: int | None = None, workers: WorkersOption = 0
) -> int:
    """Runs the demo.

    Args:
        out: the folder. An earlier demo there is replaced at the end.
        steps: optimiser steps of every arm, in place of the demo's own.
        workers: number of processes, each with its own core or accelerator. 0 means all of them.
            Or the address of a Dask scheduler (docs/sweeps.md).
    """
    leave_accelerators()
    began = time.perf_counter()
    _refuse_others(out)
    aside = _folder_beside(out)
    jobs = experiments(steps)
    order = sorted(jobs, key=lambda job: SLOWEST.index(job[1]))
    swept = sweep({_folder(*job): jobs[job] for job in order}, aside, workers)
    runs = {job: swept[_folder(*job)] for job in jobs}
    for (_, arm), run in runs.items():
        for row in (*run["rows"], *run["by_lag"], *run["curves"]):
            row["arm"] = arm

    rows = [row for run in runs.values() for row in run["rows"]]
    for task_name in TASKS:
        rows += floor_rows(jobs[task_name, "LSTM"])
    results = {
        "rows": rows,
        "roles": ROLES,
        "curves": [curve for run in runs.values() for curve in run["curves"]],
        "by_lag": [point for run in runs.values() for point in run["by_lag"]],
        "attention": _attention_map(aside / _folder("recall", "LSTM + full")),
        "trace": _trace(aside / _folder("parity", "LSTM")),
        "threshold": 0.95,
        "title": "longlag demo",
        "question": "How far back can a network remember, and what does attention add?",
        "lead": f"Five arms of two blocks, width {WIDTH}, {SEEDS} seeds each, on three memory "
        "tasks that pull apart. A block is replaced, never added: all arms are equally deep.",
        "meta": provenance("make demo", began),
    }
    with writing("the results", aside):
        replace_file(aside / "results.json", json.dumps(results, indent=1) + "\n")
        report.write(aside, results)
        _replace(out, aside)
    entries = report.summarise(rows, results["threshold"], ROLES)
    console.print(report.table(entries))
    for sentence in (*report.findings(entries, ROLES), "", *report.about_tasks(entries, ROLES)):
        console.print(sentence, highlight=False)
    console.print(f"\nreport  {out / 'report.html'}", highlight=False)
    console.print(f"results {out / 'results.json'}", highlight=False)
    return 0


def _refuse_others(out: Path) -> None:
    """Only an earlier demo is replaced; it has results and, unlike a run, no configuration."""
    if os.path.lexists(out) and (
        not (out / "results.json").is_file() or (out / "config.json").exists()
    ):
        raise ValueError(
            f"expected a new folder, or that of an earlier demo; {out} is neither and is left as "
            "it is"
        )


def _folder_beside(out: Path) -> Path:
    """The folder that the demo builds; an interrupted demo of the same code goes on in it."""
    aside = out.parent / f".{out.name}.partial"
    now = {k: v for k, v in environment().items() if k != "argv"}
    mark = aside / "env.json"
    with writing("the demo", aside):
        same = mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == now
        if not same or now["dirty"] is not False:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            replace_file(mark, json.dumps(now) + "\n")
    return aside


def _replace(out: Path, aside: Path) -> None:
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _folder(task_name: str, arm: str) -> str:
    return f"{task_name}-{arm}".replace(" + ", "-").replace(" ", "-").lower()


def _attention_map(run: Path) -> dict[str, Any]:
    """What the attention of the middle block reads in one test sequence of recall."""
    loaded = load(run)
    batch = evaluation_batch(loaded.experiment.task, 8, "test")
    seen = loaded.model.probe(loaded.of_seed(), batch.inputs, mask=batch.mask)
    weights = next(value for name, value in seen.items() if name.endswith("weights"))[0]
    tokens = [str(token) if token else "·" for token in batch.inputs[0].tolist()]
    return {
        "weights": weights.tolist(),
        "tokens": tokens,
        "title": "What the attention block reads (recall, LSTM + full, one test sequence)",
        "caption": "Rows are readers, columns what is read, averaged over heads. The first eight "
        "tokens are key and value in turn; where a key comes again, the answer is its value.",
    }


def _trace(run: Path) -> dict[str, Any]:
    """The hidden state of the last recurrence, unrolled over one test string of parity."""
    loaded = load(run)
    batch = evaluation_batch(loaded.experiment.task, 64, "test")
    longest = int(batch.mask.sum(1).argmax())
    steps = int(batch.mask[longest].sum())
    seen = loaded.model.probe(loaded.of_seed(), batch.inputs, mask=batch.mask)
    states = seen["0/1/inner/outputs"][:steps, longest]
    return {
        "states": states.tolist(),
        "tokens": [str(bit) for bit in batch.inputs[longest, :steps].tolist()],
        "title": "The hidden state unrolled over a bit string (parity, LSTM, second block)",
        "caption": "Each column is one step and the bit read there, each row one hidden unit.",
    }
