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

Finished arms are kept, and the same command goes on where it was stopped.

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

from experiments.harness.questions import Arms, Question, ask, named
from experiments.harness.recorded import Recorded
from experiments.harness.tables import Found, by_arm
from experiments.real_data.captions_figures import Seen, sheet, text_around
from experiments.real_data.sentence_scores import (
    COLUMNS,
    NO_FIGURES,
    answers,
    apart,
    difference,
    figures,
    interval,
    is_undefined,
    lines,
    looked_at,
    newest,
    require_defined,
    say,
    score,
    tell,
)
from experiments.real_data.translation_figures import drawn
from longlag import LSTM
from longlag.cli.arguments import plain_errors
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
        workers: processes, each pinned to one core; 0 means one per core.
    """

    preset: Literal["quick", "full", "smoke"] = "full"
    language: str = "en"
    arms: tuple[str, ...] = ()
    seeds: int | None = None
    caption: str | None = None
    out: Path = Path("runs")
    workers: int = 0

    @property
    def named(self) -> tuple[str, Path]:
        """The command, and the folder that it leaves."""
        beyond = {
            "--preset": "" if self.preset == "full" else self.preset,
            "--language": "" if self.language == "en" else self.language,
        }
        return named("captions", beyond, self.out)

    @property
    def question(self) -> Question:
        """The question as these options put it."""
        asked = question(PRESETS["full" if self.preset == "full" else "quick"], self.language)
        asked = asked.restricted(self.arms, self.seeds)
        return asked.smoke() if self.preset == "smoke" else asked


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


def scored(arms: Arms, rows: Sequence[Found], out: Path) -> Found:
    """What both arms and the floor say to the test part; draws the sheet."""
    task: Any = next(iter(arms.values())).task
    pairs: Pairs = task.pairs
    test = pairs.rows["test"]
    references = [pairs.targets[i] for i in test]
    roles = np.array([emoji.decompose(pairs.sources[i]).role for i in test])
    found, judged, seen = [], {}, []
    for row, loaded, said in answers(arms, rows, out, beams=1):
        if said is None:  # it diverged, and says so
            found.append({**row, **NO_FIGURES})
            continue
        judged.setdefault(row["arm"], []).append(score(tell(said, pairs), references))
        found.append({**row, **figures(judged[row["arm"]][-1], said)})
        if is_undefined(said).any():
            continue
        if loaded.experiment.architecture.attention != "none" and not seen:
            for at in _evenly(len(test)):
                picture = pairs.inputs[test[at]]
                seen.append(attended(loaded, row["seed"], picture, said[at], references[at]))
    nearest_said = score([pairs.targets[i] for i in nearest(pairs)], references)
    found.append({"arm": FLOOR, "seed": None, **figures(nearest_said)})
    differences, by_kind, held = [], [], kinds(pairs)
    for name in QUALITIES:
        quality = {
            arm: np.mean([one.quality(name) for one in of_seeds], axis=0)
            for arm, of_seeds in judged.items()
        }
        differences += [{"quality": name, **row} for row in difference(quality, roles)]
        for arm, values in {**quality, FLOOR: nearest_said.quality(name)}.items():
            for kind in KINDS:
                there = held == kind
                by_kind.append(
                    {"quality": name, "arm": arm, "kind": kind, "pictures": int(there.sum())}
                    | interval(values[there], roles[there])._asdict()
                )
    if seen:
        _draw(seen, out / "plots" / "attended.png")
    return {
        "rows": found,
        "differences": differences,
        "by_kind": by_kind,
        "roles": len(np.unique(roles)),
        "pairs": {part: len(index) for part, index in pairs.rows.items()},
    }


def _evenly(count: int) -> list[int]:
    """Places of the test part: what is shown is not picked by eye."""
    return np.linspace(0, count - 1, SHOWN).round().astype(int).tolist()


def _draw(seen: Sequence[Seen], file: Path) -> None:
    with writing("the picture", file):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(drawn(sheet(seen)))
    console.print(f"picture {file}", highlight=False, soft_wrap=True)


def kinds(pairs: Pairs) -> np.ndarray:
    """What is new in each picture of the test, of `KINDS`."""
    learned = {emoji.decompose(pairs.sources[i])[:2] for i in pairs.rows["train"]}
    made = (emoji.decompose(pairs.sources[i])[:2] for i in pairs.rows["test"])
    return np.array(["tone" if one in learned else "gender" for one in made])


def nearest(pairs: Pairs) -> np.ndarray:
    """For each picture of the test that of training with the least squared distance in pixels."""
    known, asked = (
        pairs.inputs[pairs.rows[part]].reshape(len(pairs.rows[part]), -1).astype(np.float64)
        for part in ("train", "test")
    )
    # |a - b|² but for |a|², which is the same for all b.
    far = (known**2).sum(axis=1) - 2 * asked @ known.T
    return pairs.rows["train"][far.argmin(axis=1)]


def attended(loaded: Loaded, seed: int, picture: np.ndarray, said: np.ndarray, title: str) -> Seen:
    """Which regions each word read.

    Args:
        loaded: a run with attention.
        seed: whose parameters.
        picture: `[32, 96]` uint8.
        said: `[L]` int32, `STOP` from its end on.
        title: what stands over the picture.
    """
    task: Any = loaded.experiment.task
    weights, pieces = looked_at(loaded, seed, task.to_model_inputs(picture), said)
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


def verdict(results: Found) -> str:
    """What stands under the table."""
    counts, said = results["pairs"], []
    for name, what in QUALITIES.items():
        of_name = [row for row in results["differences"] if row["quality"] == name]
        if of_name:
            said.append(f"{what}: {apart(of_name)}")
    return (
        "Differences are means of the seeds with a 95% bootstrap interval over the "
        f"{results['roles']} roles of the {counts['test']:,} pictures of the test. "
        f"{' '.join(said)} Learned from {counts['train']:,} pictures. "
        f"{results['meta']['core_hours']:.2f} core-hours of training."
    )


def kind_table(results: Found) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Exact names by what is new in a picture, columns first."""
    rows = [row for row in results["by_kind"] if row["quality"] == "exact"]
    counts = {row["kind"]: row["pictures"] for row in rows}
    columns = ["exact, %, by what is new"]
    columns += [f"{KINDS[kind]} ({count:,})" for kind, count in counts.items()]
    table = []
    for arm, of_arm in by_arm({"rows": rows}).items():
        cells = (f"{row['mean']:.1f} ({row['low']:.1f}–{row['high']:.1f})" for row in of_arm)
        table.append((arm, *cells))
    return columns, table


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
    run = newest(runs, "captions", "--caption")
    picture = _picture(text).reshape(emoji.SIDE, -1)
    seen, said = [], ""
    console.print(f"run {run}", highlight=False, soft_wrap=True)
    for path in sorted(file.parent for file in run.glob("*/results.json")):
        loaded = load(path)
        job: Any = loaded.experiment
        pairs: Pairs = job.task.pairs
        if not said:
            console.out(_known(text, pairs), highlight=False)
        seed = job.seed_numbers[0]
        shown = job.task.to_model_inputs(picture[None])
        numbers = say(loaded.model, loaded.of_seed(seed), shown, None, job.task.length, 1)
        require_defined(numbers, path)
        (said,) = tell(numbers, pairs)
        console.out(f"  {job.arm}: {said}", highlight=False)
        if job.architecture.attention != "none":
            seen.append(attended(loaded, seed, picture, numbers[0], job.arm))
    if seen:
        _draw(seen, run / "plots" / "caption.png")
    return said


def _picture(text: str) -> np.ndarray:
    """The picture of an emoji, or in a file: `[32, 32, 3]` uint8."""
    if Path(text).is_file():
        return emoji.reduce_picture(Path(text).read_bytes())
    found = emoji.pictures().get(emoji.strip_selectors(text.strip()))
    if found is None:
        raise ValueError(f"--caption: expected an emoji or the path of a picture, got {text!r}")
    return found


def _known(text: str, pairs: Pairs) -> str:
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
    command, out = options.named
    results = ask(
        options.question,
        command,
        out,
        options.workers,
        also=scored,
        columns=COLUMNS,
        lines_of=lines,
        verdict_of=verdict,
    )
    print_table(*kind_table(results))
    return 0


def _recorded(name: str, title: str, heading: str, sentence: str) -> Recorded:
    shown: dict[str, Any] = {"columns": COLUMNS, "lines": lines, "verdict": verdict}
    more: dict[str, Any] = {"further": kind_table, "about": "By what is new"}
    pictures = {"attended": text_around(heading, sentence)}
    return Recorded(name, title, 160, **shown, **more, pictures=pictures)


RECORDED = (
    _recorded(
        "captions",
        "Does attention help to caption a picture?",
        "Where each word of a caption looked",
        "Of two people with two tones, “dark” and “medium-dark” read each its own face.",
    ),
    _recorded(
        "captions-quick",
        "Does attention help to caption a picture, after a few minutes?",
        "Where each word looked, after a few minutes",
        "The tone itself mostly reads faces and hands, now and then a hat or clothes.",
    ),
)


if __name__ == "__main__":
    with plain_errors():
        main()
