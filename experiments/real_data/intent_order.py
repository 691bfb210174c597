"""Which device does a command act on first? The order of its words decides, and not the words.

    python -m experiments.real_data.intent_order                   (0.4 core-hours)
    python -m experiments.real_data.intent_order --arms LSTM "attention only"
    python -m experiments.real_data.intent_order --preset smoke    (does it run?)

Commands about two devices, from the templates of home-assistant-intents and 24 frames of ours
(docs/data.md): negation, "instead of", two actions, "after" and "before". Each has a partner with
the same words and the other answer. So no bag of words is right in more than half of them.

Two parts are held out: combinations of a trained frame with two names that it never had, and whole
frames. The models read causally and answer at the last word. Mixers have equal parameters. Each arm
has its best learning rate, chosen on further commands of the training's frames and names. The
held-out parts are read once, at the end.

Finished arms are kept. The same command resumes.

Leaves runs/intent-order: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.harness.bootstrap import bootstrap
from experiments.harness.questions import Arms, Question, Size, script
from experiments.harness.rates import GRID, folder
from experiments.harness.recorded import Recorded, Table
from experiments.harness.tables import Results, Row, rows_by_arm, spread, time_of
from longlag import GRU, LSTM, MinGRU
from longlag.cells import Elman, FeedForward
from longlag.core.cell import Cell
from longlag.data.intent_order import FAMILIES, FRAMES
from longlag.data.intents import fit_bags
from longlag.models import likeliest_class
from longlag.report.statements import format_bytes
from longlag.runs import Architecture, Experiment, load
from longlag.system import optional_packages
from longlag.system.console import console
from longlag.tasks import IntentOrder
from longlag.training import Training

DID = 0.95
# The parts that training never sees, as the table calls them.
HELD_OUT = {"combinations": "new combinations", "frames": "new frames"}
FAMILY_OF = {frame: family for family, frames in FAMILIES.items() for frame in frames}
WORDS = "floor: bag of words"
# Beside every arm with the bag of words.
COMPARED = (
    ("GRU", "LSTM"),
    ("minGRU", "LSTM"),
    ("LSTM + attention", "LSTM"),
    ("attention only", "LSTM"),
    ("attention only", "LSTM + attention"),
)


def question(size: Size) -> Question:
    """Recurrences, attention, and both, on one fold of the frames."""
    small = size == "cpu"
    width = 32 if small else 128
    cells: dict[str, tuple[Cell | None, Literal["none", "full"]]] = {
        "feed-forward": (FeedForward(width), "none"),
        "Elman": (Elman(width), "none"),
        "GRU": (GRU(width), "none"),
        "LSTM": (LSTM(width), "none"),
        "minGRU": (MinGRU(width), "none"),
        "LSTM + attention": (LSTM(width), "full"),
        "attention only": (None, "full"),
    }
    training = Training(
        steps=900 if small else 10_000,
        batch_size=32 if small else 128,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    arms = {
        name: Experiment(
            IntentOrder(),
            cell,
            Architecture(
                attention,
                width=width,
                depth=2,
                mlp=2 * width,
                mixer_parameters=8 * width * width,
            ),
            training,
            seeds=5,
        )
        for name, (cell, attention) in cells.items()
    }
    return Question("Which device does a command act on first?", arms, DID, GRID)


QUESTIONS = {"": question}


@functools.partial(jax.jit, static_argnums=0)
def _answers(model: Any, params: Any, tokens: Any, mask: Any) -> jax.Array:
    return likeliest_class(model.apply(params, tokens, mask=mask)[1])


def score_held_out(arms: Arms, rows: Sequence[Row], out: Path) -> Results:
    """What every arm, seed and floor says to all commands of the held-out parts.

    Args:
        arms: as they were trained.
        rows: of the arms.
        out: the folder; each arm's run is in `folder(arm)`.

    Returns:
        `scores`, by arm and seed (None for a floor) and part: `right`, the share of the commands of
        each frame that is right, and `both`, the share of its pairs with both right; None for a
        seed that diverged. `differences`, of the means of the seeds, with their intervals.
    """
    task = next(iter(arms.values())).task
    assert isinstance(task, IntentOrder)
    parts = {part: dataclasses.replace(task, part=part) for part in HELD_OUT}
    scores: list[Row] = []
    for arm, job in arms.items():
        loaded = load(out / folder(arm))
        whole = {row["seed"] for row in rows if row["arm"] == arm and row["accuracy"] is not None}
        for part, held in parts.items():
            tokens, mask = held.corpus.tokens[held.rows], held.corpus.mask[held.rows]
            for seed in job.seed_numbers:
                score: Row = {"arm": arm, "seed": seed, "part": part, "right": None, "both": None}
                if seed in whole:
                    answers = np.asarray(_answers(loaded.model, loaded.of_seed(seed), tokens, mask))
                    score |= score_answers(held, answers[np.arange(len(mask)), mask.sum(1) - 1])
                scores.append(score)
    console.print("fitting the floors", highlight=False)
    scores += score_floors(task)
    return {"scores": scores, "differences": [*find_differences(scores)]}


def score_answers(held: IntentOrder, answers: np.ndarray) -> Row:
    """The shares by frame of the answers `[N]` to all commands of a part."""
    commands, rows = held.corpus.commands, held.rows
    right = answers == commands.labels[rows]
    frames = commands.frames[rows]
    both = right.reshape(-1, 2).all(1)
    return {
        "right": {FRAMES[f]: float(right[frames == f].mean()) for f in np.unique(frames)},
        "both": {FRAMES[f]: float(both[frames[::2] == f].mean()) for f in np.unique(frames)},
    }


def score_floors(task: IntentOrder) -> list[Row]:
    """The rows of `scores` of classifiers that know words, and words with their neighbours."""
    texts, labels = task.corpus.commands.texts, task.corpus.commands.labels
    parts = [dataclasses.replace(task, part=part) for part in HELD_OUT]
    held = np.concatenate([part.rows for part in parts])
    answers = fit_bags([texts[i] for i in task.rows], labels[task.rows], [texts[i] for i in held])
    scores = []
    for name, of_all in answers.items():
        for part, of_part in zip(parts, np.split(of_all, [len(parts[0].rows)])):
            row = {"arm": f"floor: {name}", "seed": None, "part": part.part}
            scores.append(row | score_answers(part, of_part))
    return scores


def find_differences(scores: Sequence[Row]) -> Iterator[Row]:
    """How far one arm is ahead of another, with an interval over the frames.

    In each resample the frames of the part are drawn anew, and both arms are scored on the same
    ones by the means of their seeds. Other seeds are not in the interval.

    Args:
        scores: from `score_held_out`.

    Yields:
        `arm, than, part, mean, low, high`; nothing of an arm with a seed that diverged.
    """
    means: dict[tuple[str, str], np.ndarray] = {}
    for arm, part in dict.fromkeys((score["arm"], score["part"]) for score in scores):
        of_arm = [s["right"] for s in scores if (s["arm"], s["part"]) == (arm, part)]
        if all(of_arm):
            means[arm, part] = np.mean([[*right.values()] for right in of_arm], axis=0)
    names = dict.fromkeys(arm for arm, _ in means)
    for arm, than in (*((arm, WORDS) for arm in names if arm != WORDS), *COMPARED):
        for part in HELD_OUT:
            if {(arm, part), (than, part)} <= means.keys():
                ahead = means[arm, part] - means[than, part]
                interval = bootstrap(lambda w: (w @ ahead) / w.sum(1), len(ahead))  # noqa: B023
                yield {"arm": arm, "than": than, "part": part, **interval._asdict()}


COLUMNS = ("arm", "held out", "all", *FAMILIES, "both of a pair", "rate", "params", "state", "time")


def lines(results: Results) -> list[tuple[str, ...]]:
    """Two lines of `COLUMNS` for every arm and floor, one for each part that is held out.

    Each is a mean over the frames, the median over the seeds with their range in brackets.
    """
    trained = rows_by_arm(results)
    table = []
    for arm in dict.fromkeys(score["arm"] for score in results["scores"]):
        cost = ("",) * 4
        if rows := trained.get(arm):
            state = format_bytes(rows[0]["state_bytes"])
            rate = f"{rows[0]['rate']:g}" if "rate" in rows[0] else ""
            cost = (rate, f"{rows[0]['parameters']:,}", state, time_of(rows))
        for part, name in HELD_OUT.items():
            scores = [s for s in results["scores"] if (s["arm"], s["part"]) == (arm, part)]
            shares = [_shares(score) for score in scores]
            cells = [spread(shares, key, 3) for key in ("all", *FAMILIES, "both")]
            table.append((arm, name, *cells, *cost))
            cost = ("",) * 4
    return table


def _shares(score: Row) -> Row:
    """Means over all frames, and over those of each family."""
    if score["right"] is None:
        return dict.fromkeys(("all", *FAMILIES, "both"))
    shares = {"all": score["right"].values(), "both": score["both"].values()}
    for family in FAMILIES:
        shares[family] = [s for frame, s in score["right"].items() if FAMILY_OF[frame] == family]
    return {key: float(np.mean([*values])) for key, values in shares.items()}


def difference_table(results: Results) -> Table:
    """All differences with their intervals."""
    cells: dict[str, list[str]] = {}
    for row in results["differences"]:
        pair = f"{row['arm']} − {row['than']}".replace("floor: ", "")
        cells.setdefault(pair, []).append(_format_difference(row))
    lines = [(pair, *cell) for pair, cell in cells.items()]
    caption = "Differences between two arms, with their 95% intervals."
    return Table(("difference", *HELD_OUT.values()), lines, caption)


def _format_difference(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})".replace("-", "−")


def verdict(results: Results) -> str:
    """What stands under the table: against the bag of words, on each part that is held out."""
    sentences = []
    for part, name in HELD_OUT.items():
        groups: dict[str, list[str]] = {"ahead": [], "not significant": [], "behind": []}
        for row in results["differences"]:
            if (row["than"], row["part"]) == (WORDS, part):
                apart = "ahead" if row["low"] > 0 else "behind" if row["high"] < 0 else None
                groups[apart or "not significant"].append(row["arm"].removeprefix("floor: "))
        sentences += [
            f"Against the bag of words on {name}, {word}: {', '.join(arms)}."
            for word, arms in groups.items()
            if arms
        ]
    return (
        "\n".join(sentences) + "\nBy 95% bootstrap intervals over the frames, of which "
        f"{_count_frames(results, 'combinations')} were trained and "
        f"{_count_frames(results, 'frames')} were not.\n"
        f"Cost: {results['meta']['core_hours']:.2f} core-hours."
    )


def _count_frames(results: Results, part: str) -> int:
    return next(len(s["right"]) for s in results["scores"] if s["right"] and s["part"] == part)


def ask_options(part: str) -> Mapping[str, Any]:
    """What `ask` is told beside the question."""
    del part
    optional_packages.check("scikit-learn")
    return {
        "also": score_held_out,
        "columns": COLUMNS,
        "lines_of": lines,
        "verdict_of": verdict,
    }


RECORDED = (
    Recorded(
        *("intent-order", "Which device does a command act on first?", 12),
        columns=COLUMNS,
        lines=lines,
        verdict=verdict,
        further=difference_table,
    ),
)


if __name__ == "__main__":
    script("intent-order", __doc__, QUESTIONS, ask_options)
