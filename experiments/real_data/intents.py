"""What is being asked for? The words are read one by one, and a network decides.

    python -m experiments.real_data.intents                     (quick: 80 seconds on two cores)
    python -m experiments.real_data.intents --preset full       (five folds, 0.7 core-hours)
    python -m experiments.real_data.intents --language de
    python -m experiments.real_data.intents --ask "what time is it"      (a minute, then seconds)

Real utterances from the package home-assistant-intents, over the intents with at least three
sentence templates. Cross-validation by template: no form of a test sentence is in training. A
bidirectional encoder reads, and a network decides by its last states alone, or also by what an
attention reads of all. Both are trained once more on the same words in an order of chance: what a
recurrence gains by order is the difference of the two, since a model of ordered words that is
tested on shuffled ones also fails because it never saw such. The floors are logistic regressions of
a bag of words and of bigrams. quick holds out one of the five folds.

Nothing is chosen by looking: steps, rate and widths were fixed beforehand. (An earlier test, one
split of the same templates, was read more than once; docs/data.md.) --ask answers by a model of its
own, with attention, trained on all templates of all intents. Some of the other languages with ten
intents or more of three templates: af ar bg ca cs da de de-CH el es eu fi fr gl hi hr hu it.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/intents, -full (and the language): results.json, plots/confusion.png and reading.png,
and a run folder for each arm and fold; --ask leaves runs/intents-all.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from experiments.harness.questions import Question, ask, command_and_folder
from experiments.harness.recorded import FigureText, Recorded, Table
from experiments.harness.tables import Results, rows_by_arm, spread, time_of
from experiments.real_data.intents_ask import answer
from experiments.real_data.intents_pooled import SHUFFLED, arm, pool_folds
from experiments.real_data.intents_scores import MEASURES
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.core.spec import choose
from longlag.report.statements import format_bytes
from longlag.runs import EncoderDecoder, Experiment, cell_class
from longlag.system import optional_packages
from longlag.system.console import console, print_table
from longlag.tasks import Intents
from longlag.training import Training

FOLDS = 5
WIDTH = 64


class Preset(NamedTuple):
    """How much is run.

    Attributes:
        steps: optimiser steps of every run.
        seeds: of every arm and fold.
        held: how many of the folds are held out, one after another.
    """

    steps: int
    seeds: int
    held: int


PRESETS = {
    "smoke": Preset(20, 1, 1),
    "quick": Preset(1000, 2, 1),
    "full": Preset(1000, 2, FOLDS),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How the question is put.

    Attributes:
        preset: quick, full (all folds), or smoke: does it run?
        ask: a question to answer, by a model of all templates, which is trained if there is none.
        language: a code of the package, such as en or de.
        cell: which recurrence: a name, or path/to/file.py:Class.
        attention: what reads all states in the arms that have it.
        arms: some of the arms; none means all.
        out: where the folder is made, and looked for.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """

    preset: Literal["quick", "full", "smoke"] = "quick"
    ask: str | None = None
    language: str = "en"
    cell: str = "lstm"
    attention: Literal["additive", "multiplicative", "full"] = "additive"
    arms: tuple[str, ...] = ()
    out: Path = Path("runs")
    workers: WorkersOption = 0

    def command_and_folder(self) -> tuple[str, Path]:
        """The command, and the folder that it leaves: `--ask` has one for all presets."""
        kind = "preset" if self.ask is None else "ask"
        beyond = {
            f"--{f.name}": "all" if f.name == "ask" else getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name in (kind, "language", "cell", "attention")
            and getattr(self, f.name) != f.default
        }
        return command_and_folder("intents", beyond, self.out)

    def job(self, preset: Preset, attention: str, **task: Any) -> Experiment:
        """An arm.

        Args:
            preset: how long it is trained.
            attention: or "none".
            task: what of `Intents` is not as usual.
        """
        return Experiment(
            Intents(language=self.language, **task),
            cell_class(self.cell)(features=WIDTH),  # type: ignore[call-arg]
            EncoderDecoder(attention=attention, width=WIDTH, dropout=0.2),  # type: ignore[arg-type]
            Training(
                steps=preset.steps,
                optimizer="adamw",
                schedule="cosine",
                warmup=min(50, preset.steps),
                dispatch=min(100, preset.steps),
                # Nothing is decided by looking: the data of validation are those of training.
                stop_when_solved=False,
            ),
            preset.seeds,
        )

    @property
    def names(self) -> tuple[str, str]:
        """Of the arms that read words in order: without attention, and with it."""
        preset = PRESETS[self.preset]
        plain, attentive = (self.job(preset, how).arm for how in ("none", self.attention))
        return plain, attentive

    @property
    def question(self) -> Question:
        """The arms on all folds; their names begin with that of `arm`."""
        preset = PRESETS[self.preset]
        known = [name + order for order in ("", SHUFFLED) for name in self.names]
        for name in self.arms:
            choose(name, known, "arm")
        jobs = {}
        for fold in range(preset.held):
            for shuffled in (False, True):
                for attention in ("none", self.attention):
                    job = self.job(preset, attention, fold=fold, folds=FOLDS, shuffled=shuffled)
                    if not self.arms or arm(job) in self.arms:
                        jobs[f"{arm(job)}, fold {fold}"] = job
        return Question("What is being asked for?", jobs, Training.solved)


COLUMNS = (*("arm", "macro-F1", "95%", "by template", "by utterance", "params", "state", "time"),)


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm and floor: medians over the seeds, their range in brackets.

    "95%" is the interval of macro-F1 over the templates.
    """
    interval = {
        row["arm"]: f"{row['low']:.3f}–{row['high']:.3f}"
        for row in results["scores"]
        if row["measure"] == "macro_f1"
    }
    table = []
    for of_arm, rows in rows_by_arm(results).items():
        cost = ("", "", "")
        if rows[0]["seed"] is not None:
            cost = (
                f"{rows[0]['parameters']:,}",
                format_bytes(rows[0]["state_bytes"]),
                time_of(rows),
            )
        f1, template, utterance = (spread(rows, measure, 3) for measure in MEASURES)
        table.append((of_arm, f1, interval.get(of_arm, ""), template, utterance, *cost))
    return table


def difference_table(results: Results) -> Table:
    """All differences with their intervals."""
    called = dict(zip(MEASURES, COLUMNS[1:2] + COLUMNS[3:5]))
    cells: dict[str, list[str]] = {}
    for row in results["differences"]:
        cells.setdefault(f"{row['arm']} − {_strip_floor(row['than'])}", []).append(
            _format_difference(row)
        )
    lines = [(pair, *of_pair) for pair, of_pair in cells.items()]
    caption = "Differences between two arms, with their 95% intervals."
    return Table(("difference", *called.values()), lines, caption)


def _strip_floor(name: str) -> str:
    return name.removeprefix("floor: ")


def _format_difference(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})".replace("-", "−")


def verdict(results: Results) -> str:
    """What stands under the table: every difference in macro-F1, whichever sign."""
    data = results["data"]
    sentences = [
        f"Pooled over {data['held']} of {data['folds']} folds: {data['utterances']:,} utterances "
        f"of {data['templates']} templates of {data['intents']} intents ({data['language']}), each "
        "answered by models that never saw its template.",
        "Differences in macro-F1, of the means of the seeds, with 95% bootstrap intervals over the "
        "templates:",
    ]
    for row in results["differences"]:
        if row["measure"] == "macro_f1":
            if row["low"] <= 0 <= row["high"]:
                word = "not significant"
            else:
                word = "ahead" if row["mean"] > 0 else "behind"
            sentences.append(
                f"{row['arm']} − {_strip_floor(row['than'])}: {_format_difference(row)}, {word}."
            )
    sentences.append(f"Cost: {results['meta']['core_hours']:.2f} core-hours of training.")
    return "\n".join(sentences)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m experiments.real_data.intents"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=argv)
    if options.ask is not None:
        job = options.job(PRESETS["full"], options.attention, fold=-1)
        answer(options.ask, job, options.command_and_folder()[1], options.workers)
        return 0
    question = options.question
    optional_packages.check("scikit-learn")
    command, out = options.command_and_folder()
    plain, attentive = options.names
    results = ask(
        question,
        command,
        out,
        options.workers,
        also=functools.partial(pool_folds, plain=plain, attentive=attentive),
        columns=COLUMNS,
        lines_of=lines,
        verdict_of=verdict,
    )
    print_table(*difference_table(results))
    console.print(f"plots {out / 'plots'}", highlight=False, soft_wrap=True)
    return 0


_record = functools.partial(
    Recorded,
    order=10,
    columns=COLUMNS,
    lines=lines,
    verdict=verdict,
    further=difference_table,
)
RECORDED = (
    _record(
        "intents",
        "What is being asked for?",
        pictures={
            "confusion": FigureText(
                "Which intents are taken for which",
                "Rows: what an utterance asks for. Columns: what it was taken for, in % of the "
                "row.",
                "What is left of the diagonal was lost on sentence forms that were not in "
                "training.",
                "Confusion matrix of the arm with attention over all held-out templates.",
            ),
            "reading": FigureText(
                "Which words are read",
                "What the attention reads of each word, in utterances of held-out templates. Left: "
                "what each was taken for.",
                "The first utterance of the median length of each of six intents, picked by no "
                "one.",
                "Words of six utterances, coloured by the weight that the attention gives them.",
            ),
        },
    ),
    _record("intents-quick", "What is being asked for, after a few minutes?", page="intents"),
)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
