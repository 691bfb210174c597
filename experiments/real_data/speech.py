"""Who speaks? Nine men say the same two vowels, and the last step names the speaker.

    python -m experiments.real_data.speech --preset quick        (2 minutes on two idle cores)
    python -m experiments.real_data.speech                       (0.2 core-hours)
    python -m experiments.real_data.speech --predict 7   (one utterance of the test, step by step)

This is speaker identification and no speech recognition: all say /ae/. Real recordings, 270 for
training and 370 for the test (`longlag.data.japanese_vowels`). Cell and learning rate are chosen by
cross-validation within the training part; the standard test is read once, at the end. Beside the
networks stand two classifiers of an utterance's mean, which know no order at all.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/speech: results.json, plots/heard.png, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.bar import Bar
from rich.table import Table

from experiments.harness.questions import Question, ask, command_and_folder
from experiments.harness.rates import folder
from experiments.harness.recorded import FigureText, Recorded
from experiments.harness.tables import Results, Row, rows_by_arm, time_of
from longlag import GRU, LSTM, MinGRU, report
from longlag.cells import FeedForward
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.data import japanese_vowels
from longlag.models import likeliest_class
from longlag.report.summary import flaws, wilson
from longlag.runs import Architecture, Experiment, Loaded, Workers, load, sweep
from longlag.system import optional_packages
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.tasks import JapaneseVowels
from longlag.training import Training

CLAIM = 0.96
WIDTH = 64
TEST = sum(japanese_vowels.TEST)


class Preset(NamedTuple):
    """How much is run.

    Attributes:
        steps: optimiser steps of every run.
        seeds: of every arm.
        folds: of the cross-validation, one seed each.
        rates: learning rates that are tried.
    """

    steps: int
    seeds: int
    folds: int
    rates: tuple[float, ...]


PRESETS = {
    "smoke": Preset(20, 1, 2, (3e-3,)),
    "quick": Preset(300, 2, 3, (1e-3, 3e-3)),
    "full": Preset(600, 5, 5, (1e-3, 3e-3, 1e-2)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How the question is put.

    Attributes:
        preset: quick, full (what is committed), or smoke: does it run?
        arms: some of the arms; none means all.
        predict: the arm that was chosen hears this utterance of the test part, from 0, and its
            answer after every step is shown; nothing is trained.
        out: where the folder is made, and looked for.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """

    preset: Literal["quick", "full", "smoke"] = "full"
    arms: tuple[str, ...] = ()
    predict: int | None = None
    out: Path = Path("runs")
    workers: WorkersOption = 0


def question(preset: Preset) -> Question:
    """Five arms of two blocks; the attention is the second one of its arm."""
    arms = {
        "LSTM": (LSTM(WIDTH), "none"),
        "GRU": (GRU(WIDTH), "none"),
        "LSTM + additive": (LSTM(WIDTH), "additive"),
        "minGRU": (MinGRU(WIDTH), "none"),
        "feed-forward": (FeedForward(WIDTH), "none"),
    }
    training = Training(
        steps=preset.steps,
        batch_size=32,
        optimizer="adamw",
        schedule="cosine",
        warmup=preset.steps // 10,
        dispatch=preset.steps // 2,
        eval_size=TEST,  # an evaluation set of a part's size or larger is all of it
        stop_when_solved=False,
    )
    jobs = {
        arm: Experiment(
            JapaneseVowels(folds=preset.folds),
            cell,
            Architecture(attention=attention, width=WIDTH, dropout=0.3),  # type: ignore[arg-type]
            training,
            seeds=preset.seeds,
        )
        for arm, (cell, attention) in arms.items()
    }
    return Question("Who speaks?", jobs, CLAIM, preset.rates)


Arms = Mapping[str, Experiment]


def cross_validate(
    arms: Arms, grid: Sequence[float], out: Path, workers: Workers
) -> tuple[Arms, list[Row]]:
    """Every arm at the rate with the fewest errors on held-out folds; of equal ones, by the loss.

    Arguments and results are those of `experiments.lib.rates.choose_rates`; each fold is one seed,
    that no table uses.
    """
    jobs, named = {}, {}
    for rate in grid:
        for arm, job in arms.items():
            task: Any = job.task
            for fold in range(task.folds):
                name = f"{folder(arm)}-{rate:g}-{fold}"
                training = dataclasses.replace(job.training, learning_rate=rate)
                held = dataclasses.replace(task, fold=fold)
                jobs[name] = dataclasses.replace(job, task=held, training=training, seeds=1)
                named.setdefault((arm, rate), []).append(name)
    results = sweep(jobs, out / "folds", workers)
    trials = []
    for (arm, rate), names in named.items():
        rows = [results[name]["rows"][0] for name in names]
        whole = all(row["loss"] is not None for row in rows)
        trials.append(
            {"arm": arm, "rate": rate, "seconds": round(sum(r["seconds"] for r in rows), 2)}
            | {"accuracy": statistics.fmean(row["accuracy"] or 0.0 for row in rows)}
            | {"loss": statistics.fmean(row["loss"] for row in rows) if whole else None}
        )
    chosen = {arm: best_trial([t for t in trials if t["arm"] == arm]) for arm in arms}
    at_rate = {
        arm: dataclasses.replace(
            job,
            training=dataclasses.replace(job.training, learning_rate=chosen[arm]["rate"]),
            first_seed=job.first_seed + 1,
        )
        for arm, job in arms.items()
    }
    return at_rate, [t | {"chosen": t is chosen[t["arm"]]} for t in trials]


def best_trial(trials: Sequence[Row]) -> Row:
    """The trial with the most right; of equal ones that of the least loss."""
    whole = [trial for trial in trials if trial["loss"] is not None]
    return max(whole or trials, key=lambda t: (round(t["accuracy"], 6), -(t["loss"] or 0.0)))


@functools.partial(jax.jit, static_argnums=0)
def _chances(model: Any, params: Any, cepstra: Any, mask: Any) -> jax.Array:
    return jax.nn.softmax(model.apply(params, cepstra, mask=mask)[1])


def step_chances(loaded: Loaded, seed: int) -> np.ndarray:
    """Probabilities of the speakers after every step of every test utterance: `[370, 29, 9]`."""
    test = JapaneseVowels(part="test").utterances
    return np.asarray(_chances(loaded.model, loaded.of_seed(seed), test.cepstra, test.mask))


def extra_results(arms: Arms, rows: Sequence[Row], out: Path) -> Results:
    """What is said beside the rows: the floors, and accuracy by the steps heard, with a picture."""
    del rows
    test = japanese_vowels.load().test
    heard_of: dict[str, list[list[float]]] = {}
    for arm, job in arms.items():
        loaded = load(out / folder(arm))
        # An utterance that has ended keeps its last answer.
        steps = np.minimum(np.arange(japanese_vowels.LONGEST), test.lengths[:, None] - 1)
        heard_of[arm] = []
        for seed in job.seed_numbers:
            predicted = np.take_along_axis(
                np.asarray(likeliest_class(step_chances(loaded, seed))), steps, axis=1
            )
            right = (predicted == test.speakers[:, None]).mean(axis=0)
            heard_of[arm].append([round(share, 4) for share in right.tolist()])
    path = out / "plots" / "heard.png"
    with writing("the picture", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        heard_figure(heard_of).savefig(path, dpi=150)
    console.print(f"picture {path}", highlight=False, soft_wrap=True)
    return {"floors": floors(), "heard": heard_of}


def heard_figure(heard_of: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Accuracy on the test against the steps heard, of every arm."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "lag": steps,
            "accuracy": share,
            "floor": JapaneseVowels().floor().accuracy,
        }
        for arm, of_seeds in heard_of.items()
        for seed, shares in enumerate(of_seeds)
        for steps, share in enumerate(shares, start=1)
    ]
    return report.figure({"rows": rows}, "lag", quantity="steps heard, at most")


def floors() -> list[Row]:
    """What knows no order, fitted on the training part: accuracy on the standard test."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    classifiers: dict[str, Callable[[], Any]] = {
        "logistic regression on the mean": lambda: LogisticRegression(max_iter=1000),
        "nearest neighbour of the mean": lambda: KNeighborsClassifier(1),
    }
    floor = JapaneseVowels().floor()
    rows: list[Row] = [{"floor": floor.note, "accuracy": floor.accuracy, "held out": None}]
    folds = PRESETS["full"].folds
    for name, classifier in classifiers.items():
        standard = _accuracy(classifier, JapaneseVowels())
        held = [_accuracy(classifier, JapaneseVowels(fold, folds)) for fold in range(folds)]
        rows.append({"floor": name, "accuracy": standard, "held out": statistics.fmean(held)})
    return rows


def _accuracy(classifier: Callable[[], Any], task: JapaneseVowels) -> float:
    """The share of what `task` holds out for its test that is answered right."""
    train, held = task.utterances, task.evaluation_task("test").utterances
    means = [part.cepstra.sum(axis=1) / part.lengths[:, None] for part in (train, held)]
    fitted = classifier().fit(means[0], train.speakers)
    return float((fitted.predict(means[1]) == held.speakers).mean())


COLUMNS = ("arm", "held out", "test", "95% of one seed", "errors", "rate", "params", "time")


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm and floor: the median seed, the range in brackets.

    "held out" is the accuracy in the cross-validation; the interval is Wilson's, for the utterances
    of the test that the median seed answers right.
    """
    trials = {trial["arm"]: trial for trial in results.get("trials", []) if trial["chosen"]}
    table: list[tuple[str, ...]] = []
    for arm, rows in rows_by_arm(results).items():
        right = sorted(row["accuracy"] or 0.0 for row in rows)
        middle = statistics.median(right)
        errors = "–".join(dict.fromkeys(f"{TEST * (1 - r):.0f}" for r in (right[-1], right[0])))
        span = f" ({right[0]:.3f}–{right[-1]:.3f})" if right[0] < right[-1] else ""
        held = f"{trials[arm]['accuracy']:.3f}" if arm in trials else ""
        cost = (f"{rows[0]['rate']:g}", f"{rows[0]['parameters']:,}", time_of(rows))
        accuracy = ", ".join((f"{middle:.3f}{span}", *flaws(rows)))
        table.append((arm, held, accuracy, _interval(middle), errors, *cost))
    for floor in results["floors"]:
        right = floor["accuracy"]
        held = "" if floor["held out"] is None else f"{floor['held out']:.3f}"
        one = (_interval(right), f"{TEST * (1 - right):.0f}") if held else ("", "")
        table.append((f"floor: {floor['floor']}", held, f"{right:.3f}", *one, "", "", ""))
    return table


def _interval(rate: float) -> str:
    low, high = wilson(round(rate * TEST), TEST)
    return f"{low:.3f}–{high:.3f}"


def chosen_arm(results: Results) -> str:
    """The arm of the best cross-validation."""
    return best_trial([trial for trial in results["trials"] if trial["chosen"]])["arm"]


def verdict(results: Results) -> str:
    """Which arm was chosen, and whether it does what was claimed before it was measured."""
    arm = chosen_arm(results)
    right = [row["accuracy"] or 0.0 for row in rows_by_arm(results)[arm]]
    middle = statistics.median(right)
    outcome = "met" if middle >= CLAIM else "not met"
    if len(right) < PRESETS["full"].seeds:
        outcome = "too few to tell"
    floor = max(results["floors"], key=lambda row: row["accuracy"])
    lead = round(TEST * (middle - floor["accuracy"]))
    than = f"{abs(lead)} utterances of {TEST} {'more' if lead >= 0 else 'fewer'} than by"
    return (
        f"Cross-validation within the training part chose {arm}.\n"
        f"The claim was a median of five seeds of at least {CLAIM} on the standard test. "
        f"The median of {len(right)} is {middle:.3f}: {outcome}.\n"
        f"That is {than} {floor['floor']}, which knows no order.\n"
        "The task is speaker identification: all say the same.\n"
        f"Cost: {results['meta']['core_hours']:.2f} core-hours."
    )


def show_utterance(out: Path, number: int) -> None:
    """Shows what the seeds of the chosen arm, by their mean, say after every step of an utterance.

    Args:
        out: where the question was asked.
        number: of the utterance in the test part, from 0.

    Raises:
        ValueError: there is no such utterance, or the models answer NaN.
        FileNotFoundError: the question was not asked yet.
    """
    if number not in range(TEST):
        raise ValueError(f"--predict: expected an utterance from 0 to {TEST - 1}, got {number}")
    file = out / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"--predict: expected {file}; run without --predict first")
    arm = chosen_arm(json.loads(file.read_text(encoding="utf-8")))
    loaded = load(out / folder(arm))
    seeds = loaded.experiment.seed_numbers
    chances = np.mean([step_chances(loaded, seed)[number] for seed in seeds], axis=0)
    if np.isnan(chances).any():
        raise ValueError(
            f"--predict: expected finite answers; a seed of {out / folder(arm)} has NaN"
        )
    test = japanese_vowels.load().test
    title = f"test utterance {number}: speaker {test.speakers[number] + 1} is speaking ({arm})"
    table = Table("step", "named", "", "chance", title=title, title_justify="left", box=None)
    for step, of_step in enumerate(chances[: test.lengths[number]], start=1):
        bar = Bar(1, 0, float(of_step.max()), width=40)
        table.add_row(f"{step}", f"speaker {of_step.argmax() + 1}", bar, f"{of_step.max():.2f}")
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = tyro.cli(
        Options, prog="python -m experiments.real_data.speech", description=__doc__, args=argv
    )
    beyond = "" if options.preset == "full" else options.preset
    command, out = command_and_folder("speech", {"--preset": beyond}, options.out)
    if options.predict is not None:
        show_utterance(out, options.predict)
        return 0
    optional_packages.check("scikit-learn")
    ask(
        question(PRESETS[options.preset]).restrict(options.arms),
        command,
        out,
        options.workers,
        also=extra_results,
        columns=COLUMNS,
        lines_of=lines,
        verdict_of=verdict,
        choose=cross_validate,
    )
    return 0


RECORDED = (
    Recorded(
        *("speech", "Who speaks?", 20),
        columns=COLUMNS,
        lines=lines,
        verdict=verdict,
        pictures={
            "heard": FigureText(
                "How much has to be heard",
                "Accuracy on the standard test by how many steps of an utterance are heard at "
                "most. The line is the floor.",
                "Sixteen steps are nearly as good as all.",
                "Accuracy of each arm against the steps heard: flat from about sixteen steps on.",
            ),
        },
    ),
)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
