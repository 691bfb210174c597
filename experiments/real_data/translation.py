"""Translation with and without attention: dates to ISO 8601, and messages of programs to French.

    python -m experiments.real_data.translation                           (dates, 2 minutes)
    python -m experiments.real_data.translation --preset full  (to French; 1 core-hour for two arms)
    python -m experiments.real_data.translation --preset full --split package
    python -m experiments.real_data.translation --translate "2024. szeptember 25."

One encoder and decoder for all arms, the same but for what the decoder may read: the summary of the
source alone, or the whole source by additive (Bahdanau et al. 2015, arXiv 1409.0473) or
multiplicative attention (Luong et al. 2015, arXiv 1508.04025). After training every source of the
test part is answered: greedily (dates), or by a beam of four. Scores are sacrebleu's; two floors
stand beside them, the source as it stands and what the nearest source of training got. No string
(no day) of the test is in training; `--split package` holds a whole package out.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/translation, -full, -full-package: results.json, plots, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from experiments.harness.questions import Arms, Question, ask, command_and_folder
from experiments.harness.recorded import FigureText, Recorded, Table
from experiments.harness.tables import Results, Row, rows_by_arm
from experiments.real_data.sentence_scores import (
    COLUMNS,
    NO_SCORES,
    answer_test_part,
    compare_arms,
    corpus_scores,
    decode_texts,
    describe_differences,
    is_undefined,
    lines,
    newest_run,
    require_defined,
    score_texts,
    search_targets,
)
from experiments.real_data.translation_figures import alignments, draw_png, length_chart
from experiments.real_data.translation_scores import align_pieces, floors, quality_by_length
from longlag import GRU
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.data.coders import encode_texts
from longlag.data.messages import tidy
from longlag.runs import EncoderDecoder, Experiment, Loaded, load
from longlag.system import optional_packages
from longlag.system.atomic_files import writing
from longlag.system.console import console, print_table
from longlag.tasks import Dates, Translation
from longlag.tasks.pairs import Pairs, PairTask
from longlag.training import Training

DECODER_ATTENTIONS: tuple[Literal["none", "additive", "multiplicative"], ...] = (
    *("none", "additive", "multiplicative"),
)
RATES = (1e-3, 3e-3)
DID = 0.95


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
        preset: quick (dates), full (messages of programs), or smoke: a few steps of quick.
        language: to translate messages into, such as fr, de or es.
        split: what of the messages is held out: strings, or a whole package.
        arms: some of the arms; none means all.
        seeds: of every arm, in place of the question's own.
        translate: a text for the newest run; nothing is trained.
        out: where the question's folder is made, and the newest run is looked for.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """

    preset: Literal["quick", "full", "smoke"] = "quick"
    language: str = "fr"
    split: Literal["string", "package"] = "string"
    arms: tuple[str, ...] = ()
    seeds: int | None = None
    translate: str | None = None
    out: Path = Path("runs")
    workers: WorkersOption = 0

    def __post_init__(self) -> None:
        default = (Options.language, Options.split)
        if self.preset != "full" and (self.language, self.split) != default:
            raise ValueError("--language and --split: expected --preset full beside them")

    @property
    def command_and_folder(self) -> tuple[str, Path]:
        """The command, and the folder that it leaves."""
        beyond = {
            "--preset": "" if self.preset == "quick" else self.preset,
            "--language": "" if self.language == "fr" else self.language,
            "--split": "" if self.split == "string" else self.split,
        }
        return command_and_folder("translation", beyond, self.out)

    @property
    def question(self) -> Question:
        """The question as these options put it."""
        narrowed = messages(self.language, self.split) if self.preset == "full" else dates()
        narrowed = narrowed.restrict(self.arms, self.seeds)
        return narrowed.smoke() if self.preset == "smoke" else narrowed


def dates() -> Question:
    """Dates to ISO 8601: one learning rate for all arms."""
    training = Training(
        steps=1200,
        learning_rate=3e-3,
        schedule="cosine",
        warmup=50,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    arms = _arms(Dates(), 64, 0.0, training, 2)
    return Question("Does attention help to read a date?", arms, DID)


def messages(language: str, split: Literal["string", "package"]) -> Question:
    """Messages of programs, of 24 pieces at most: every arm at its best rate.

    The warm-up is long for the sake of the arms with attention: after a short one they stay at the
    frequencies of pieces, at the rate that is best for them after this one.
    """
    training = Training(
        steps=2500,
        batch_size=32,
        schedule="cosine",
        warmup=500,
        optimizer="adamw",
        weight_decay=0.01,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    arms = _arms(Translation(language=language, split=split, longest=24), 192, 0.3, training, 3)
    return Question("Does attention help to translate what programs say?", arms, DID, RATES)


def _arms(
    task: PairTask, width: int, dropout: float, training: Training, seeds: int
) -> dict[str, Experiment]:
    arms = {}
    for attention in DECODER_ATTENTIONS:
        layers = EncoderDecoder(attention=attention, width=width, dropout=dropout)
        job = Experiment(task, GRU(width), layers, training, seeds)
        arms[job.arm] = job
    return arms


def score_arms(arms: Arms, rows: Sequence[Row], out: Path, beams: int) -> Results:
    """What all arms and floors say to the test part: rows, differences, lengths; and the plots."""
    task: Any = next(iter(arms.values())).task
    pairs: Pairs = task.pairs
    test = pairs.rows["test"]
    references = [pairs.targets[i] for i in test]
    name = quality(task)
    scored_rows, qualities, looked = [], {}, {}
    for row, loaded, numbers in answer_test_part(arms, rows, out, beams):
        if numbers is None:  # it diverged, and says so
            scored_rows.append({**row, **NO_SCORES})
            continue
        arm, judged = row["arm"], score_texts(decode_texts(numbers, pairs), references)
        scored_rows.append({**row, **corpus_scores(judged, numbers)})
        qualities.setdefault(arm, []).append(judged.quality(name))
        if loaded.experiment.architecture.attention != "none" and arm not in looked:
            at = _typical_source(pairs)
            if is_undefined(numbers)[at]:
                continue
            source = pairs.inputs[test[at]][_mask(pairs)[test[at]]]
            looked[arm] = align_pieces(loaded, row["seed"], source, numbers[at])
    sentences = {arm: np.mean(of_seeds, axis=0) for arm, of_seeds in qualities.items()}
    better = compare_arms(sentences)
    for note, texts in floors(pairs, "test").items():
        judged = score_texts(texts, references)
        arm = f"floor: {note}"
        scored_rows.append({"arm": arm, "seed": None, **corpus_scores(judged)})
        sentences[arm] = judged.quality(name)
    lengths = quality_by_length(sentences, np.array([_size(task, pairs.sources[i]) for i in test]))
    with writing("the plots", out):
        (out / "plots").mkdir(exist_ok=True)
        figure = length_chart(lengths, QUALITIES[name], _unit(task))
        (out / "plots" / "by-length.png").write_bytes(draw_png(figure))
        if looked:
            (out / "plots" / "alignment.png").write_bytes(draw_png(alignments(looked)))
    return {
        "rows": scored_rows,
        "differences": better,
        "by_length": lengths,
        "quality": name,
        "unit": _unit(task),
        "pairs": {part: len(index) for part, index in pairs.rows.items()},
    }


QUALITIES = {"chrF": "chrF of a sentence", "exact": "exact answers, %"}


def quality(task: PairTask) -> str:
    """What a sentence of a task is judged by: a date is right or wrong."""
    return "exact" if isinstance(task, Dates) else "chrF"


def _unit(task: PairTask) -> str:
    return "characters" if isinstance(task, Dates) else "words"


def _size(task: PairTask, text: str) -> int:
    return len(text) if isinstance(task, Dates) else len(text.split())


def _mask(pairs: Pairs) -> np.ndarray:
    """Where there is text."""
    assert pairs.mask is not None
    return pairs.mask


def _typical_source(pairs: Pairs) -> int:
    """The first test source of the median length in pieces: the picture is not picked by eye."""
    lengths = _mask(pairs)[pairs.rows["test"]].sum(axis=1)
    return int(np.flatnonzero(lengths == np.sort(lengths)[len(lengths) // 2])[0])


def verdict(results: Results) -> str:
    """What stands under the table."""
    counts = results["pairs"]
    return (
        f"Differences ({QUALITIES[results['quality']]}) are means of the seeds, with a 95% "
        f"bootstrap interval over the {counts['test']:,} sources of the test.\n"
        f"{describe_differences(results['differences'])}\n"
        f"The models learned from {counts['train']:,} pairs.\n"
        f"Cost: {results['meta']['core_hours']:.2f} core-hours of training."
    )


def length_table(results: Results) -> Table:
    """Quality against the length of the source."""
    bins = dict.fromkeys((row["from"], row["to"], row["sources"]) for row in results["by_length"])
    columns = [f"{results['quality']} by {results['unit']} of the source"]
    columns += [f"{low}–{high} ({count:,})" for low, high, count in bins]
    table = []
    for arm, rows in rows_by_arm({"rows": results["by_length"]}).items():
        cells = (f"{row['mean']:.1f} ({row['low']:.1f}–{row['high']:.1f})" for row in rows)
        table.append((arm, *cells))
    caption = "Quality by length of the source. Brackets in the head: sources."
    return Table(columns, table, caption)


def translate(text: str, runs: Path) -> str:
    """Says a text by the first seed of every arm of the newest run, and draws what each read.

    Returns:
        What the last arm said.

    Raises:
        ValueError: no finished run, a text that is empty or longer than those of the data, or a
            model that answers NaN.
    """
    run = newest_run(runs, "translation", "--translate")
    looked, translation = {}, ""
    console.print(f"run {run}", highlight=False, soft_wrap=True)
    for path in sorted(file.parent for file in run.glob("*/results.json")):
        loaded: Loaded = load(path)
        task: Any = loaded.experiment.task
        pairs: Pairs = task.pairs
        source = tidy(text)
        if not source:
            raise ValueError(f"--translate: expected a text, got {text!r}")
        assert pairs.reader is not None
        inputs, mask = encode_texts(pairs.reader, [source], pairs.inputs.shape[1])
        seed = loaded.experiment.seed_numbers[0]
        beams = BEAMS[quality(task)]
        numbers = search_targets(
            loaded.model, loaded.of_seed(seed), inputs, mask, task.length, beams
        )
        require_defined(numbers, path)
        (translation,) = decode_texts(numbers, pairs)
        console.out(f"  {loaded.experiment.arm}: {translation}", highlight=False)
        if loaded.experiment.architecture.attention != "none":
            looked[loaded.experiment.arm] = align_pieces(loaded, seed, inputs[mask], numbers[0])
    if looked:
        file = run / "plots" / "translate.png"
        with writing("the picture", file):
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(draw_png(alignments(looked)))
        console.print(f"picture {file}", highlight=False, soft_wrap=True)
    return translation


# Of ten characters greedy search finds the best; a sentence gains by a beam.
BEAMS = {"exact": 1, "chrF": 4}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    prog = "python -m experiments.real_data.translation"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=argv)
    if options.translate is not None:
        translate(options.translate, options.out)
        return 0
    question = options.question
    optional_packages.check("sacrebleu", "scikit-learn")
    command, out = options.command_and_folder
    beams = BEAMS[quality(next(iter(question.arms.values())).task)]  # type: ignore[arg-type]
    results = ask(
        question,
        command,
        out,
        options.workers,
        also=functools.partial(score_arms, beams=beams),
        columns=COLUMNS,
        lines_of=lines,
        verdict_of=verdict,
    )
    print_table(*length_table(results))
    console.print(f"plots {out / 'plots'}", highlight=False, soft_wrap=True)
    return 0


_record = functools.partial(
    Recorded,
    order=150,
    columns=COLUMNS,
    lines=lines,
    verdict=verdict,
    further=length_table,
)
RECORDED = (
    _record(
        "translation",
        "Does attention help to read a date?",
        pictures={
            "alignment": FigureText(
                "Where each piece of the answer looked",
                "Across: the source. Down: the translation. Darker: more was read.",
                "Year, month and day are read where they stand.",
                "Weights of two attentions over the characters of one date.",
            ),
            "by-length": FigureText(
                "Against the length of the source",
                "Bins of about equal counts, with 95% bootstrap intervals.",
                "Bahdanau's own figure, on dates.",
                "Quality of each arm against the length of the source, with intervals.",
            ),
        },
    ),
    _record(
        "translation-full",
        "Does attention help to translate?",
        pictures={
            "alignment": FigureText(
                "Where each piece of a translation looked",
                "Across: the source. Down: the translation. Darker: more was read.",
                "Nouns are read where they stand. “unexpected” is left out.",
                "Weights of additive attention over the pieces of one message of a compiler.",
            ),
            "by-length": FigureText(
                "Translations against the length of the source",
                "Bins of about equal counts, with 95% bootstrap intervals.",
                "Attention is ahead at every length, and level with the nearest source of "
                "training.",
                "chrF of each arm and floor against the words of the source, with intervals.",
            ),
        },
    ),
    _record(
        "translation-full-package",
        "Does it help on a package never seen?",
        page="translation-full",
    ),
)


if __name__ == "__main__":
    with plain_errors():
        main()
