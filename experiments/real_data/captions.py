"""Does attention help to caption a picture? Emoji, 32 x 32, to their names.

    python -m experiments.real_data.captions --preset quick     (5 minutes on two cores)
    python -m experiments.real_data.captions                    (0.8 core-hours)
    python -m experiments.real_data.captions --language fr
    python -m experiments.real_data.captions --caption 🚀     (one emoji, or the path of a picture)

One encoder of convolutions and one LSTM decoder for both arms, which differ in what the decoder may
read: the mean of the regions alone, or each region by attention too (Xu et al. 2015, "Show, Attend
and Tell", arXiv 1502.03044). The test is of combinations that were not learned, of parts that were:
a role in another gender, an emoji in another tone of skin. Scores are sacrebleu's and exact names;
the floor is the name of the nearest picture of training. Intervals are over roles, since the
pictures of one are alike.

Finished arms are kept. The same command resumes the others.
Leaves runs/captions, -quick, -fr: results.json, plots, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from experiments.harness.questions import Arms, Question, ask, command_and_folder
from experiments.harness.recorded import Recorded, Table
from experiments.harness.tables import Results, Row, rows_by_arm
from experiments.real_data.captions_figures import Seen, figure_text, sheet
from experiments.real_data.sentence_scores import (
    COLUMNS,
    NO_SCORES,
    align,
    answer_test_part,
    compare_arms,
    corpus_scores,
    decode_texts,
    describe_differences,
    interval,
    is_undefined,
    lines,
    newest_run,
    require_defined,
    score_texts,
    search_targets,
)
from experiments.real_data.translation_figures import draw_png
from longlag import LSTM
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.data import emoji
from longlag.data.coders import STOP
from longlag.runs import Captioner, Experiment, Loaded, load
from longlag.system import optional_packages
from longlag.system.atomic_files import writing
from longlag.system.console import console, print_table
from longlag.tasks import Captions
from longlag.tasks.pairs import Pairs
from longlag.training import Training

DID = 0.95
SHOWN = 8  # pictures of the test on the sheet


class Preset(NamedTuple):
    """How much is run.

    Attributes:
        steps: optimiser steps of every run.
        width: of the model.
        seeds: of every arm.
        rate: the learning rate of all arms, if `grid` is empty.
        grid: learning rates that are tried.
    """

    steps: int
    width: int
    seeds: int
    rate: float
    grid: tuple[float, ...]


PRESETS = {
    "quick": Preset(3000, 64, 2, 3e-3, ()),
    "full": Preset(6000, 96, 3, 3e-3, (1e-3, 3e-3)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
        preset: quick, full (what is committed), or smoke: a few steps of quick.
        language: of the names, such as en, fr or ja.
        arms: some of the arms; none means all.
        seeds: of every arm, in place of the preset's own.
        caption: an emoji, or the path of a picture, for the newest run; nothing is trained.
        out: where the question's folder is made, and the newest run is looked for.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """

    preset: Literal["quick", "full", "smoke"] = "full"
    language: str = "en"
    arms: tuple[str, ...] = ()
    seeds: int | None = None
    caption: str | None = None
    out: Path = Path("runs")
    workers: WorkersOption = 0

    @property
    def command_and_folder(self) -> tuple[str, Path]:
        """The command, and the folder that it leaves."""
        beyond = {
            "--preset": "" if self.preset == "full" else self.preset,
            "--language": "" if self.language == "en" else self.language,
        }
        return command_and_folder("captions", beyond, self.out)

    @property
    def question(self) -> Question:
        """The question as these options put it."""
        narrowed = question(PRESETS["full" if self.preset == "full" else "quick"], self.language)
        narrowed = narrowed.restrict(self.arms, self.seeds)
        return narrowed.smoke() if self.preset == "smoke" else narrowed


def question(preset: Preset, language: str = "en") -> Question:
    """Two arms, without and with attention."""
    task = Captions(language=language)
    training = Training(
        steps=preset.steps,
        batch_size=32,
        learning_rate=preset.rate,
        schedule="cosine",
        warmup=50,
        optimizer="adamw",
        weight_decay=0.01,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    arms = {}
    for attention in ("none", "additive"):
        layers = Captioner(attention=attention, width=preset.width, dropout=0.1)
        job = Experiment(task, LSTM(preset.width), layers, training, preset.seeds)
        arms[job.arm] = job
    return Question("Does attention help to caption a picture?", arms, DID, preset.grid)


QUALITIES = {"exact": "Exact names, %", "chrF": "chrF of a name"}
KINDS = {"gender": "a role in another gender", "tone": "another tone of skin"}
FLOOR = "floor: nearest picture of training"


def score_arms(arms: Arms, rows: Sequence[Row], out: Path) -> Results:
    """What both arms and the floor say to the test part; draws the sheet."""
    task: Any = next(iter(arms.values())).task
    pairs: Pairs = task.pairs
    test = pairs.rows["test"]
    references = [pairs.targets[i] for i in test]
    roles = np.array([emoji.decompose(pairs.sources[i]).role for i in test])
    scored_rows, judged, seen = [], {}, []
    for row, loaded, numbers in answer_test_part(arms, rows, out, beams=1):
        if numbers is None:  # it diverged, and says so
            scored_rows.append({**row, **NO_SCORES})
            continue
        scores = score_texts(decode_texts(numbers, pairs), references)
        judged.setdefault(row["arm"], []).append(scores)
        scored_rows.append({**row, **corpus_scores(scores, numbers)})
        if is_undefined(numbers).any():
            continue
        if loaded.experiment.architecture.attention != "none" and not seen:
            for at in _spaced_places(len(test)):
                picture = pairs.inputs[test[at]]
                seen.append(attend(loaded, row["seed"], picture, numbers[at], references[at]))
    nearest_scores = score_texts([pairs.targets[i] for i in nearest_pictures(pairs)], references)
    scored_rows.append({"arm": FLOOR, "seed": None, **corpus_scores(nearest_scores)})
    differences, by_kind, held = [], [], kinds(pairs)
    for name in QUALITIES:
        quality = {
            arm: np.mean([one.quality(name) for one in of_seeds], axis=0)
            for arm, of_seeds in judged.items()
        }
        differences += [{"quality": name, **row} for row in compare_arms(quality, roles)]
        for arm, values in {**quality, FLOOR: nearest_scores.quality(name)}.items():
            for kind in KINDS:
                there = held == kind
                by_kind.append(
                    {"quality": name, "arm": arm, "kind": kind, "pictures": int(there.sum())}
                    | interval(values[there], roles[there])._asdict()
                )
    if seen:
        _draw(seen, out / "plots" / "attended.png")
    return {
        "rows": scored_rows,
        "differences": differences,
        "by_kind": by_kind,
        "roles": len(np.unique(roles)),
        "pairs": {part: len(index) for part, index in pairs.rows.items()},
    }


def _spaced_places(count: int) -> list[int]:
    """Places of the test part: what is shown is not picked by eye."""
    return np.linspace(0, count - 1, SHOWN).round().astype(int).tolist()


def _draw(seen: Sequence[Seen], file: Path) -> None:
    with writing("the picture", file):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(draw_png(sheet(seen)))
    console.print(f"picture {file}", highlight=False, soft_wrap=True)


def kinds(pairs: Pairs) -> np.ndarray:
    """What is new in each picture of the test, of `KINDS`."""
    learned = {emoji.decompose(pairs.sources[i])[:2] for i in pairs.rows["train"]}
    made = (emoji.decompose(pairs.sources[i])[:2] for i in pairs.rows["test"])
    return np.array(["tone" if one in learned else "gender" for one in made])


def nearest_pictures(pairs: Pairs) -> np.ndarray:
    """For each picture of the test that of training with the least squared distance in pixels."""
    known, tested = (
        pairs.inputs[pairs.rows[part]].reshape(len(pairs.rows[part]), -1).astype(np.float64)
        for part in ("train", "test")
    )
    # |a - b|² but for |a|², which is the same for all b.
    far = (known**2).sum(axis=1) - 2 * tested @ known.T
    return pairs.rows["train"][far.argmin(axis=1)]


def attend(loaded: Loaded, seed: int, picture: np.ndarray, numbers: np.ndarray, title: str) -> Seen:
    """Which regions each word read.

    Args:
        loaded: a run with attention.
        seed: whose parameters.
        picture: `[32, 96]` uint8.
        numbers: `[L]` int32, `STOP` from its end on.
        title: what stands over the picture.
    """
    task: Any = loaded.experiment.task
    weights, pieces = align(loaded, seed, task.to_model_inputs(picture), numbers)
    pieces = pieces[pieces != STOP]
    writer = task.pairs.writer
    # A word is several pieces, the first of which begins with a ▁.
    begun = [i for i, n in enumerate(pieces) if i == 0 or writer.name_of(int(n)).startswith("▁")]
    words = [slice(*ends) for ends in itertools.pairwise([*begun, len(pieces)])]
    grid = loaded.model.source.grid
    return Seen(
        picture.reshape(emoji.SIDE, emoji.SIDE, 3),
        title,
        [writer.decode(pieces[word].tolist()) for word in words],
        np.array([weights[word].mean(axis=0) for word in words]).reshape(-1, grid, grid),
    )


def verdict(results: Results) -> str:
    """What stands under the table."""
    counts, sentences = results["pairs"], []
    for name, what in QUALITIES.items():
        of_name = [row for row in results["differences"] if row["quality"] == name]
        if of_name:
            sentences.append(f"{what}: {describe_differences(of_name)}")
    return (
        "Differences are means of the seeds with a 95% bootstrap interval over the "
        f"{results['roles']} roles of the {counts['test']:,} pictures of the test.\n"
        + "\n".join(sentences)
        + f"\nThe models learned from {counts['train']:,} pictures.\n"
        f"Cost: {results['meta']['core_hours']:.2f} core-hours of training."
    )


def kind_table(results: Results) -> Table:
    """Exact names by what is new in a picture."""
    rows = [row for row in results["by_kind"] if row["quality"] == "exact"]
    counts = {row["kind"]: row["pictures"] for row in rows}
    columns = ["exact, %", *(f"{KINDS[kind]} ({count:,})" for kind, count in counts.items())]
    table = []
    for arm, of_arm in rows_by_arm({"rows": rows}).items():
        cells = (f"{row['mean']:.1f} ({row['low']:.1f}–{row['high']:.1f})" for row in of_arm)
        table.append((arm, *cells))
    return Table(columns, table, "Exact names by what is new (so many pictures).")


def describe(text: str, runs: Path) -> str:
    """Says a picture by the first seed of both arms of the newest run, and draws what was read.

    Args:
        text: an emoji, or the path of a picture.
        runs: where the folders of this experiment are.

    Returns:
        What the last arm said.

    Raises:
        ValueError: no finished run, neither an emoji of the font nor a picture, or a model that
            answers NaN.
    """
    run = newest_run(runs, "captions", "--caption")
    picture = _picture(text).reshape(emoji.SIDE, -1)
    seen, caption = [], ""
    console.print(f"run {run}", highlight=False, soft_wrap=True)
    for path in sorted(file.parent for file in run.glob("*/results.json")):
        loaded = load(path)
        job: Any = loaded.experiment
        pairs: Pairs = job.task.pairs
        if not caption:
            console.out(_find_in_data(text, pairs), highlight=False)
        seed = job.seed_numbers[0]
        shown = job.task.to_model_inputs(picture[None])
        numbers = search_targets(
            loaded.model, loaded.of_seed(seed), shown, None, job.task.length, 1
        )
        require_defined(numbers, path)
        (caption,) = decode_texts(numbers, pairs)
        console.out(f"  {job.arm}: {caption}", highlight=False)
        if job.architecture.attention != "none":
            seen.append(attend(loaded, seed, picture, numbers[0], job.arm))
    if seen:
        _draw(seen, run / "plots" / "caption.png")
    return caption


def _picture(text: str) -> np.ndarray:
    """The picture of an emoji, or in a file: `[32, 32, 3]` uint8."""
    if Path(text).is_file():
        return emoji.reduce_picture(Path(text).read_bytes())
    picture = emoji.pictures().get(emoji.strip_selectors(text.strip()))
    if picture is None:
        raise ValueError(f"--caption: expected an emoji or the path of a picture, got {text!r}")
    return picture


def _find_in_data(text: str, pairs: Pairs) -> str:
    """What is known of a picture beforehand."""
    sequence = emoji.strip_selectors(text.strip())
    if sequence not in pairs.sources:
        return "in no part of the data"
    at = pairs.sources.index(sequence)
    (part,) = (part for part, rows in pairs.rows.items() if at in rows)
    return f"in the {part} part: {pairs.targets[at]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    prog = "python -m experiments.real_data.captions"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=argv)
    if options.caption is not None:
        describe(options.caption, options.out)
        return 0
    optional_packages.check("sacrebleu")
    command, out = options.command_and_folder
    results = ask(
        options.question,
        command,
        out,
        options.workers,
        also=score_arms,
        columns=COLUMNS,
        lines_of=lines,
        verdict_of=verdict,
    )
    print_table(*kind_table(results))
    return 0


def _record(name: str, title: str, heading: str, sentence: str, page: str = "") -> Recorded:
    shown: dict[str, Any] = {"columns": COLUMNS, "lines": lines, "verdict": verdict}
    more: dict[str, Any] = {"further": kind_table, "page": page}
    pictures = {"attended": figure_text(heading, sentence)}
    return Recorded(name, title, 160, **shown, **more, pictures=pictures)


RECORDED = (
    _record(
        "captions",
        "Does attention help to caption a picture?",
        "Where each word of a caption looked",
        "Of two people with two tones, “dark” and “medium-dark” read each its own face.",
    ),
    _record(
        "captions-quick",
        "Does attention help to caption a picture, after a few minutes?",
        "Where each word looked, after a few minutes",
        "The tone itself mostly reads faces and hands, now and then a hat or clothes.",
        page="captions",
    ),
)


if __name__ == "__main__":
    with plain_errors():
        main()
