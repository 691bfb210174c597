"""Which digits are said? Learned from synthetic voices in five languages, heard from human ones.

    python -m experiments.real_data.spoken_digits --preset quick      (3 minutes on two idle cores)
    python -m experiments.real_data.spoken_digits                     (estimated: 0.6 core-hours)
    python -m experiments.real_data.spoken_digits --hear fr 47    (the human voice says 4, then 7)

A demonstration: 50 human recordings, ten digits by one voice a language. The 95% interval of a rate
near a half is 13 points to each side. The loss is that of connectionist temporal classification
(Graves et al. 2006). Everything goes through a telephone's codec (`longlag.data.spoken_digits`).
The floor is a classifier of a recording's six parts.
Finished arms are kept. The same command resumes the others.
Leaves runs/spoken-digits, -quick: results.json, plots/heard.png, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.table import Table

from experiments.harness.questions import Question, ask, command_and_folder
from experiments.harness.rates import folder
from experiments.harness.recorded import FigureText, Recorded
from experiments.harness.tables import Results, Row, near_rows, rows_by_arm, time_of
from longlag import GRU
from longlag.cells import FeedForward
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.core.cell import Cell
from longlag.data import spoken_digits
from longlag.data.spoken_digits import LANGUAGES
from longlag.models import NO_CLASS, likeliest_class
from longlag.report.style import house_style
from longlag.report.summary import flaws, wilson
from longlag.runs import AnyArchitecture, Architecture, Experiment, Loaded, Transcriber, load
from longlag.system import optional_packages
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.tasks import SpokenDigits
from longlag.training import Training, evaluate, evaluation_batch, transcript

RECORDINGS = 10 * len(LANGUAGES)
WIDTH = 96
DROPOUT = 0.3
TASK = SpokenDigits(2)
# What is drawn of each language: the same two digits, neither first nor last.
SHOWN = (4, 7)


class Preset(NamedTuple):
    """How much is run.

    Attributes:
        steps: optimiser steps of every run.
        seeds: of every arm.
        arms: which.
    """

    steps: int
    seeds: int
    arms: tuple[str, ...]


PRESETS = {
    "smoke": Preset(20, 1, ("GRU both ways", "GRU both ways + full")),
    "quick": Preset(600, 2, ("GRU both ways", "GRU both ways + full")),
    "full": Preset(3000, 3, ("GRU both ways", "GRU both ways + full", "GRU", "feed-forward")),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How the question is put.

    Attributes:
        preset: quick, full, or smoke: does it run?
        arms: some of the arms; none means all.
        hear: a language and digits, such as fr 47: the arm with the most human recordings right
            hears them from the human voice, and its answer is shown; nothing is trained.
        out: where the folder is made, and looked for.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """

    preset: Literal["quick", "full", "smoke"] = "full"
    arms: tuple[str, ...] = ()
    hear: tuple[str, str] | None = None
    out: Path = Path("runs")
    workers: WorkersOption = 0


Arms = Mapping[str, Experiment]


def question(preset: Preset) -> Question:
    """Arms of two layers; the attention is the second one of its arm."""
    both, full = (Transcriber(kind, WIDTH, dropout=DROPOUT) for kind in ("none", "full"))
    one = Architecture(width=WIDTH, dropout=DROPOUT)
    arms: dict[str, tuple[Cell, AnyArchitecture]] = {
        "GRU both ways": (GRU(WIDTH // 2), both),
        "GRU both ways + full": (GRU(WIDTH // 2), full),
        "GRU": (GRU(WIDTH), one),
        "feed-forward": (FeedForward(WIDTH), one),
    }
    training = Training(
        steps=preset.steps,
        batch_size=64,
        learning_rate=3e-3,
        optimizer="adamw",
        schedule="cosine",
        warmup=preset.steps // 10,
        dispatch=preset.steps // 4,
        eval_size=512,
        stop_when_solved=False,
    )
    jobs = {
        arm: Experiment(TASK, *arms[arm], training, seeds=preset.seeds, test_lags=(1,))
        for arm in preset.arms
    }
    return Question("Which digits are said?", jobs, 0.95)


def chances(
    loaded: Loaded, seed: int, voice: Sequence[int] | np.ndarray, digits: np.ndarray
) -> np.ndarray:
    """Probabilities of the blank and the digits while human voices speak: `[B, T, 11]`.

    Args:
        loaded: a run.
        seed: of it.
        voice: `[B]`, of `LANGUAGES`.
        digits: `[B, N]`.
    """
    task = SpokenDigits(digits.shape[1], part="test")
    inputs, mask = task.utterances(jnp.asarray(voice, jnp.int32), jnp.asarray(digits, jnp.int32))
    probabilities = np.array(jax.nn.softmax(loaded.predict(inputs, mask=mask, seed=seed)))
    probabilities[~np.asarray(mask)] = np.eye(11)[0]
    return probabilities


NAN = "NaN"


def transcribe(of_steps: np.ndarray) -> list[str]:
    """What is written of each sequence, from `chances`; `NAN` where they are NaN."""
    rows = transcript(of_steps, np.ones(of_steps.shape[:2], bool))  # type: ignore[arg-type]
    named = {0: "", NO_CLASS: NAN} | {digit + 1: str(digit) for digit in range(10)}
    return ["".join(named[c] for c in row.tolist()) for row in np.asarray(rows)]


def extra_results(arms: Arms, rows: Sequence[Row], out: Path) -> Results:
    """What is said beside the rows: the answer to every recording, other synthetic voices, floors.

    Leaves the picture.
    """
    del rows
    voice, digits = np.repeat(range(len(LANGUAGES)), 10), np.tile(range(10), len(LANGUAGES))
    answers: dict[str, list[list[str]]] = {}
    synthetic: dict[str, list[float]] = {}
    runs = {arm: load(out / folder(arm)) for arm in arms}
    held = evaluation_batch(TASK, 512, "validation")
    for arm, job in arms.items():
        loaded = runs[arm]
        answers[arm] = [
            transcribe(chances(loaded, seed, voice, digits[:, None])) for seed in job.seed_numbers
        ]
        evaluation = evaluate(loaded.model, TASK, job.training, loaded.params, held)
        synthetic[arm] = [round(float(share), 4) for share in evaluation.accuracy]
    arm = best_arm(answers)
    path = out / "plots" / "heard.png"
    with writing("the picture", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        chances_figure(runs[arm], arm).savefig(path, dpi=150)
    console.print(f"picture {path}", highlight=False, soft_wrap=True)
    return {"answers": answers, "synthetic": synthetic, "floors": floors()}


def _count_right(of_seeds: Sequence[Sequence[str]]) -> list[int]:
    """How many of the recordings each seed wrote down right."""
    return [sum(text == str(i % 10) for i, text in enumerate(answers)) for answers in of_seeds]


def floors() -> list[Row]:
    """Who knows no recurrence: the share of synthetic voices, and of human recordings, right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    spoken = spoken_digits.load()
    named = np.arange(10)
    train, *tested = (
        (np.concatenate([six_parts(part, v) for v in range(len(part))]), np.tile(named, len(part)))
        for part in (spoken.train, spoken.validation, spoken.test)
    )
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=1000)).fit(*train)
    shares = [float(fitted.score(*part)) for part in tested]
    anyone = TASK.floor()
    return [
        {"floor": "any digit", "synthetic": anyone.accuracy, "human": anyone.accuracy},
        {"floor": "logistic regression on six parts", "synthetic": shares[0], "human": shares[1]},
    ]


def six_parts(part: spoken_digits.DigitRecordings, voice: int) -> np.ndarray:
    """A voice's ten recordings, the loud part of each as the means of six equal parts.

    Returns:
        `[10, 192]`.
    """
    means = []
    for sound, length in zip(part.features[voice], part.lengths[voice]):
        frames = sound[:length].astype(np.float32).reshape(-1, spoken_digits.BANDS)
        loudness = frames.mean(axis=1)
        loud = np.flatnonzero(loudness > loudness.max() - 9)
        frames = frames[loud[0] : loud[-1] + 1] - frames[loud[0] : loud[-1] + 1].mean(axis=0)
        means.append(np.concatenate([six.mean(axis=0) for six in np.array_split(frames, 6)]))
    return np.stack(means)


def chances_figure(loaded: Loaded, arm: str) -> Figure:
    """The probability of every digit while the human voice of each language says two."""
    voices = range(len(LANGUAGES))
    seed = loaded.experiment.seed_numbers[0]
    of_steps = chances(loaded, seed, voices, np.tile(SHOWN, (len(LANGUAGES), 1)))
    ends = [int(np.flatnonzero(row[:, 0] != 1)[-1]) + 1 for row in of_steps]
    with house_style():
        figure = Figure(figsize=(7.2, 6.4), layout="constrained")
        panels = figure.subplots(len(LANGUAGES), 1, sharex=True, sharey=True)
        seconds = np.arange(max(ends)) * spoken_digits.STACKED / 100
        for ax, language, row, text in zip(panels, LANGUAGES, of_steps, transcribe(of_steps)):
            for digit in range(10):
                chance = row[: max(ends), digit + 1]
                (line,) = ax.plot(seconds, chance, lw=1.4)
                if chance.max() > 0.3:
                    peak = int(chance.argmax())
                    ax.annotate(
                        str(digit), (seconds[peak], min(chance[peak], 0.8)),
                        xytext=(4, 0), textcoords="offset points", color=line.get_color(),
                    )  # fmt: skip
            spoken = " ".join(map(str, SHOWN))
            ax.set_ylabel(language, rotation=0, ha="right", va="center")
            ax.set_title(f"said {spoken}, written {' '.join(text) or 'nothing'}", loc="left")
            ax.set_ylim(0, 1.05)
        panels[-1].set_xlabel(f"seconds ({arm}, seed {seed})")
    return figure


COLUMNS = (
    *("arm", "synthetic voices", "human, of 50", "95% of one seed", *LANGUAGES),
    *("two digits, human", "params", "time"),
)


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm and floor: the median seed, the range in brackets.

    The interval is Wilson's for the median seed; the languages have the recordings that are right
    of ten, by the mean of the seeds.
    """
    table: list[tuple[str, ...]] = []
    for arm, rows in rows_by_arm(results).items():
        answers = results["answers"][arm]
        right = _count_right(answers)
        middle = statistics.median(right)
        low, high = wilson(round(middle), RECORDINGS)
        span = f" ({min(right)}–{max(right)})" if min(right) < max(right) else ""
        of_ten = [
            statistics.fmean(
                sum(texts[10 * i + digit] == str(digit) for digit in range(10)) for texts in answers
            )
            for i in range(len(LANGUAGES))
        ]
        both = statistics.median(row["exact_match"] or 0.0 for row in near_rows(rows))
        undefined = [any(NAN in one for one in of_seed) for of_seed in answers]
        flawed = flaws(
            row | ({"nan": 1} if nan else {}) for row, nan in zip(near_rows(rows), undefined)
        )
        table.append(
            (
                arm,
                f"{statistics.median(results['synthetic'][arm]):.2f}",
                ", ".join((f"{middle:g}{span}", *flawed)),
                f"{low:.2f}–{high:.2f}",
                *(f"{count:.1f}" for count in of_ten),
                f"{both:.2f}",
                f"{rows[0]['parameters']:,}",
                time_of(near_rows(rows)),
            )
        )
    for floor in results["floors"]:
        human = f"{RECORDINGS * floor['human']:.0f}"
        blank = ("",) * (len(COLUMNS) - 3)
        table.append((f"floor: {floor['floor']}", f"{floor['synthetic']:.2f}", human, *blank))
    return table


def best_arm(answers: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """The arm whose median seed has the most recordings right."""
    return max(answers, key=lambda arm: statistics.median(_count_right(answers[arm])))


def verdict(results: Results) -> str:
    """What was heard, and how little that says."""
    arm = best_arm(results["answers"])
    right = statistics.median(_count_right(results["answers"][arm]))
    floor = max(results["floors"], key=lambda row: row["human"])
    of_floor = round(RECORDINGS * floor["human"])
    than = "as many as" if right == of_floor else "more than" if right > of_floor else "fewer than"
    return (
        f"Of {RECORDINGS} recordings {arm} writes down the most right, {right:g}. That is "
        f"{than} the {of_floor} that the {floor['floor']} names.\n"
        "Nothing is claimed of the order of arms. Near a half an interval is 13 points to each "
        f"side.\nCost: {results['meta']['core_hours']:.2f} core-hours."
    )


def hear(out: Path, language: str, digits: str) -> None:
    """Shows what every seed of the best arm writes while a human voice says digits.

    Raises:
        ValueError: another language, or something else than digits.
        FileNotFoundError: the question was not asked yet.
    """
    if language not in LANGUAGES:
        raise ValueError(f"--hear: expected a language of {', '.join(LANGUAGES)}, got {language!r}")
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"--hear: expected digits such as 47, got {digits!r}")
    file = out / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"--hear: expected {file}; run without --hear first")
    arm = best_arm(json.loads(file.read_text(encoding="utf-8"))["answers"])
    loaded = load(out / folder(arm))
    title = f"the human voice of {language} says {' '.join(digits)} ({arm})"
    table = Table("seed", "written", "each at", title=title, title_justify="left", box=None)
    for seed in loaded.experiment.seed_numbers:
        spoken = np.array([[int(digit) for digit in digits]])
        (of_steps,) = chances(loaded, seed, [LANGUAGES.index(language)], spoken)
        named = np.asarray(likeliest_class(of_steps))
        new = np.flatnonzero((named > 0) & (named != np.append(0, named[:-1])))
        when = (f"{named[i] - 1} at {i * spoken_digits.STACKED / 100:.2f} s" for i in new)
        table.add_row(f"{seed}", transcribe(of_steps[None])[0] or "nothing", ", ".join(when))
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m experiments.real_data.spoken_digits"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=argv)
    beyond = "" if options.preset == "full" else options.preset
    command, out = command_and_folder("spoken_digits", {"--preset": beyond}, options.out)
    if options.hear is not None:
        hear(out, *options.hear)
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
    )
    return 0


HEARD = FigureText(
    "When each digit is written",
    "The human voice of each language says 4, then 7, and none is written right: the "
    "probability of every digit by time.",
    "Nobody told where a digit is: each is written in one short peak.",
    "Probability of each digit over time for five voices, with narrow peaks.",
)
SHOW: dict[str, Any] = {"columns": COLUMNS, "lines": lines, "verdict": verdict}
IN_MINUTES = "Which digits are said, after a few minutes?"
RECORDED = (
    Recorded("spoken-digits", "Which digits are said?", 30, **SHOW),
    Recorded(
        *("spoken-digits-quick", IN_MINUTES, 30),
        **SHOW,
        pictures={"heard": HEARD},
        page="spoken-digits",
    ),
)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
