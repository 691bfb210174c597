"""What is being asked for? The words go one by one through a recurrence; a network decides.

    python -m experiments.intents                              (about 3 minutes on two cores)
    python -m experiments.intents --ask "what time is it"
    python -m experiments.intents --resume runs/20261124-101500-intents

Real utterances from the package home-assistant-intents, 42 intents, split by template: no sentence
form of the test is in training. Two arms: the last state of a recurrence goes into a feed-forward
network that decides, or the last state and what additive attention reads from all states.
What is above the bag of words on this one split is below it on three validation splits of the
training part (docs/data.md), so it is no claim about recurrences; and the test has been read more
than once. --ask lets all seeds of the arm with attention answer together.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import rich.box
import tyro
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from experiments.intents_ask import answer, attended, decide, picture, show
from longlag import LSTM
from longlag.command_line import cache_compilations, console, plain_errors
from longlag.data.intents import PROBES, Floor, floors, macro_f1, tokenize
from longlag.disk import replace_file, writing
from longlag.environment import provenance
from longlag.experiment import Architecture, Experiment, cell_class
from longlag.interrupt import Interruption, stop_requested
from longlag.report.sentences import size
from longlag.report.table import markdown
from longlag.run_folder import RunFolder, run_name
from longlag.runs import Loaded, Progress, carry_out, load
from longlag.tasks import Intents
from longlag.tasks.intents import Corpus
from longlag.training import Training

RUNS = Path("runs")
# Not part of what a run is: a resume may name them anew.
ELSEWHERE = ("ask", "out", "resume", "runs")


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line reads.

    Attributes:
        ask: a question to answer by the newest run; one is trained if there is none.
        cell: which recurrence: a name, or path/to/file.py:Class.
        attention: what reads all states in the second arm.
        width: of embedding, cell and blocks.
        steps: optimiser steps.
        seeds: how many seeds of each arm.
        language: a code of the package, such as en or de.
        out: the folder to make (default: runs/TIME-intents).
        resume: go on with the run in this folder.
        runs: where runs are looked for and made.
    """

    ask: str | None = None
    cell: str = "lstm"
    attention: Literal["additive", "window", "full"] = "additive"
    width: int = 64
    steps: int = 1000
    seeds: int = 3
    language: str = "en"
    out: Path | None = None
    resume: Path | None = None
    runs: Path = RUNS


def arms(options: Options) -> dict[str, Experiment]:
    """The two arms, by the name of their folder."""
    cell = LSTM if options.cell == "lstm" else cell_class(options.cell)
    experiments = (
        Experiment(
            task=Intents(language=options.language),
            cell=cell(features=options.width),  # type: ignore[call-arg]
            architecture=Architecture(
                attention=attention,  # type: ignore[arg-type]
                placement="auto" if attention == "none" else "read",
                width=options.width,
                mlp=2 * options.width,
                dropout=0.2,
            ),
            training=Training(
                steps=options.steps,
                optimizer="adamw",
                schedule="cosine",
                warmup=min(50, options.steps),
                dispatch=min(100, options.steps),
                # Nothing is decided by looking: the data of validation are those of training.
                stop_when_solved=False,
            ),
            seeds=options.seeds,
        )
        for attention in ("none", options.attention)
    )
    return {run_name(one.arm)[16:]: one for one in experiments}


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    options = _parse(argv)
    if options.ask is not None and not tokenize(options.ask):
        raise ValueError(f"--ask: expected a question in words, got {options.ask!r}")
    cache_compilations()
    if options.ask is None:
        return train(options)[0]
    run = newest(options.runs)
    if run is None:
        console.print(f"no finished run in {options.runs}; training one first", highlight=False)
        code, run = train(options)
        if code:
            return code
    show(run, _attentive(run), options.ask)
    return 0


def _parse(argv: Sequence[str]) -> Options:
    """Options that are not given are, of a run that is resumed, those it was made with."""

    def read(default: Options) -> Options:
        prog = "python -m experiments.intents"
        return tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)

    options = read(Options())
    if options.resume is None:
        return options
    if options.out is not None:
        raise ValueError(f"expected --resume or --out; got both, {options.resume}, {options.out}")
    stored = _options(options.resume)
    if stored is None:
        raise ValueError(f"expected a run of experiments.intents; {options.resume} is another")
    return read(Options(**stored))


def train(options: Options) -> tuple[int, Path]:
    """Trains and tests both arms; returns the exit code and the folder."""
    began = time.perf_counter()
    path = options.resume or options.out or options.runs / run_name("intents")
    experiments = arms(options)
    chosen = {k: v for k, v in dataclasses.asdict(options).items() if k not in ELSEWHERE}
    config = {"experiment": "intents", "options": chosen}
    config["arms"] = {name: one.config() for name, one in experiments.items()}
    if options.resume is not None:
        made = RunFolder.open(path)
        arms_made = made.config["arms"].items()
        read = {name: Experiment.from_config(one).config() for name, one in arms_made}
        made.require_same(config, {**made.config, "arms": read})
    else:
        RunFolder.create(path, config)
    _describe(next(iter(experiments.values())).task)
    with stop_requested() as stop:
        for name, experiment in experiments.items():
            if not _carry_out(name, experiment, path / name, stop):
                console.print(f"stopped; go on by --resume {path}", highlight=False)
                return stop.exit_code, path
    results = _test(experiments, path)
    results["meta"] = provenance("python -m experiments.intents", began)
    loaded = _attentive(path)
    with writing("the results", path):
        (path / "plots").mkdir(exist_ok=True)
        _save(_confusion(results["confused"]), path / "plots" / "confusion.png")
        read = picture(tokenize(PROBES[1]), attended(loaded, PROBES[1]), loaded.experiment.arm)
        _save(read, path / "plots" / "attention.png")
        replace_file(path / "report.md", _report(results))
        replace_file(path / "results.json", json.dumps(results, indent=1) + "\n")
    console.print(table(results))
    console.print(verdict(results), highlight=False)
    for probes in results["probes"].values():
        for probe in probes:
            console.print(probe, highlight=False)
    console.print(f"run folder {path}", highlight=False, soft_wrap=True)
    return 0, path


def _save(figure: plt.Figure, path: Path) -> None:  # type: ignore[name-defined]
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _report(results: dict[str, Any]) -> str:
    text = ["# What is being asked for?", "", verdict(results), ""]
    text += [markdown(COLUMNS, lines(results))]
    text += ["", *(f"- {probe}" for probes in results["probes"].values() for probe in probes), ""]
    text += [f"![{name}](plots/{name}.png)" for name in ("confusion", "attention")]
    return "\n".join(text) + "\n"


def _describe(task: Any) -> None:
    data, split = task.corpus.utterances, task.corpus.split
    console.print(
        f"{len(data):,} utterances, {len(data.intents)} intents, {len(data.sentences)} templates: "
        f"{len(split.train):,} utterances for training, {len(split.test):,} of held-out templates "
        f"for the test.\nLeft out: {len(data.ambiguous)} that two intents claim, "
        f"{len(split.straddling)} that templates of both parts give, {len(data.dropped)} templates "
        f"with lists that have no values. In training only, with fewer than two templates: "
        f"{len(split.train_only)} intents ({', '.join(split.train_only)}).",
        highlight=False,
    )


def _carry_out(name: str, experiment: Experiment, path: Path, stop: Interruption) -> bool:
    config = experiment.config()
    folder = RunFolder.open(path) if path.exists() else RunFolder.create(path, config)
    if (path / "results.json").is_file():
        return True
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Bars(*columns, TimeRemainingColumn(), console=console) as bars:
        bar = bars.add_task(name, total=experiment.training.steps, state="compiling")

        def show(progress: Progress) -> None:
            losses = [line["loss"] for line in progress.lines]
            state = f"loss {np.mean(losses):.3f}" if losses else ""
            bars.update(bar, completed=progress.step, state=state)
            for message in progress.messages:
                bars.console.print(message, highlight=False)

        return carry_out(experiment, folder, stop=stop, on_progress=show) is not None


def _test(experiments: dict[str, Experiment], path: Path) -> dict[str, Any]:
    """Scores every arm and seed, and the floors, on the held-out templates: once, at the end."""
    rows: list[dict[str, Any]] = []
    probes: dict[str, list[str]] = {}
    wrong: list[np.ndarray] = []
    task: Any = next(iter(experiments.values())).task
    corpus = task.corpus
    truth = corpus.utterances.labels[corpus.held]
    for name, experiment in experiments.items():
        loaded = load(path / name)
        ran = json.loads((path / name / "results.json").read_text(encoding="utf-8"))["rows"]
        for seed in experiment.seed_numbers:
            if ran[seed]["accuracy"] is None:
                continue  # it diverged, and said so
            tokens, mask = corpus.tokens[corpus.held], corpus.mask[corpus.held]
            said = decide(loaded.model, loaded.of_seed(seed), tokens, mask).argmax(-1)
            wrong.append(np.stack([truth, said])[:, truth != said])
            kept = ("parameters", "state_bytes", "steps", "seconds", "length")
            rows.append(
                {"task": "intents", "arm": experiment.arm, "seed": seed}
                | {"macro_f1": macro_f1(truth, said), "accuracy": float(np.mean(said == truth))}
                | {key: ran[seed][key] for key in kept}
            )
        probes[name] = [_probe(loaded, text) for text in PROBES]
    console.print("fitting the floors", highlight=False)
    for floor in _floors(corpus):
        rows.append(
            {"task": "intents", "arm": f"floor: {floor.note}", "seed": None}
            | {"macro_f1": floor.macro_f1, "accuracy": floor.accuracy}
        )
    return {"rows": rows, "probes": probes, "confused": _pairs(wrong, corpus.utterances.intents)}


@functools.cache
def _floors(corpus: Corpus) -> tuple[Floor, ...]:
    """They take as long as a seed, and depend on the corpus alone."""
    return floors(corpus.utterances, corpus.split)


def _pairs(mistakes: list[np.ndarray], intents: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of intents that all arms and seeds together take for each other most often."""
    if not mistakes:  # every seed diverged
        return []
    wrong, count = np.unique(np.concatenate(mistakes, axis=1), axis=1, return_counts=True)
    order = np.argsort(-count, kind="stable")[:12]
    return [
        {"intent": intents[wrong[0, i]], "taken_for": intents[wrong[1, i]], "count": int(count[i])}
        for i in order
    ]


def _probe(loaded: Loaded, text: str) -> str:
    task: Any = loaded.experiment.task
    utterances = task.corpus.utterances
    index = {t: i for i, t in enumerate(utterances.texts)}.get(text)
    part = "in training" if index in task.corpus.train else "of a held-out template"
    said = ", ".join(
        f"{utterances.intents[p.argmax()]} {p.max():.2f}" for p in answer(loaded, text)
    )
    return f'{loaded.experiment.arm}: "{text}" ({part}): {said}'


def table(results: dict[str, Any]) -> Table:
    """Arms and floors: median over the seeds and their range, on held-out templates."""
    made = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        made.add_column(name, no_wrap=name != "arm")
    for line in lines(results):
        made.add_row(*line)
    return made


COLUMNS = ("arm", "macro-F1", "accuracy", "params", "state", "time")


def lines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The text of the table, line by line."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["arm"] == arm]
        cost = ("", "", "")
        if rows[0]["seed"] is not None:
            seconds = np.median([row["seconds"] for row in rows])
            cost = (f"{rows[0]['parameters']:,}", size(rows[0]["state_bytes"]), f"{seconds:.0f} s")
        found.append((arm, _spread(rows, "macro_f1"), _spread(rows, "accuracy"), *cost))
    return found


def _spread(rows: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    median, low, high = (
        f"{v:.3f}".lstrip("0") for v in (np.median(values), min(values), max(values))
    )
    return median if len(values) == 1 else f"{median} {low}–{high}"


def verdict(results: dict[str, Any]) -> str:
    """Whether each arm is above the bag of words on unseen templates, in one sentence each."""
    rows = results["rows"]
    (floor,) = (r["macro_f1"] for r in rows if r["arm"] == "floor: bag of words")
    said = []
    for arm in dict.fromkeys(r["arm"] for r in rows if r["seed"] is not None):
        scores = [r["macro_f1"] for r in rows if r["arm"] == arm]
        above = sum(score > floor for score in scores)
        said.append(
            f"{arm}: {above} of {len(scores)} seeds above the bag of words (macro-F1 {floor:.3f}) "
            "on unseen templates."
        )
    return "\n".join(said)


def newest(runs: Path) -> Path | None:
    """The newest finished run of this experiment, told by its configuration."""
    found = [
        file.parent
        for file in runs.glob("*/results.json")
        if (file.parent / "config.json").is_file() and _options(file.parent) is not None
    ]
    return max(found, key=lambda run: (run / "results.json").stat().st_mtime, default=None)


def _options(run: Path) -> dict[str, Any] | None:
    """The options that a run was made with; None if it is a run of something else."""
    config = RunFolder.open(run).config
    return config.get("options") if config.get("experiment") == "intents" else None


def _attentive(run: Path) -> Loaded:
    """The arm with attention."""
    options = _options(run) or {}
    (name,) = (n for n in arms(Options(**options)) if n.endswith(options["attention"]))
    return load(run / name)


def _confusion(confused: list[dict[str, Any]]) -> plt.Figure:  # type: ignore[name-defined]
    figure, axes = plt.subplots(
        figsize=(7, 0.6 + 0.32 * max(1, len(confused))), layout="constrained"
    )
    names = [f"{pair['intent']} → {pair['taken_for']}" for pair in confused]
    axes.barh(range(len(names)), [pair["count"] for pair in confused], color="#0072B2")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("test utterances taken for another intent (all arms and seeds)")
    return figure


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
