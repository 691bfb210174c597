"""One page with every question: figures, what they show, and the tables, from what is committed.

    python -m experiments.report                    (seconds)
    python -m experiments.report --out somewhere/report.html

Reads experiments/results and leaves runs/report/report.html, which needs nothing beside it.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import tyro

from experiments.attention_vs_recurrence import AXES
from experiments.committed import FLAGSHIP, RESULTS, TABLES, committed, section
from experiments.tables import by_arm, tested, trained
from longlag.command_line import console, plain_errors
from longlag.disk import writing
from longlag.environment import provenance
from longlag.report.charts import Point, heat_map, lines
from longlag.report.collection import Part, part, write_collection
from longlag.report.page import CAPTIONS, plate
from longlag.report.plots import Layout
from longlag.report.style import styles

TITLES = {
    "demo": "What does attention add to a recurrence?",
    FLAGSHIP: "Is attention needed at all?",
    **{f"{FLAGSHIP}-{axis}": asked.title for axis, asked in AXES.items()},
    "selective-copy": "Does a gate need to see the state?",
    "lag-horizon": "How far back?",
    "recall-capacity": "How much recall does a byte of state buy?",
    "length-generalisation": "How far beyond the trained length?",
    "state-tracking-parity": "Who tracks parity?",
    "state-tracking-cycle": "Who counts round a cycle?",
    "state-tracking-s3": "Who multiplies permutations of three?",
    "state-tracking-a5": "Who multiplies even permutations of five?",
    "attention-kinds": "Which attention?",
    "family-hold": "Which cells hold?",
    "family-recall": "Which attentions look up?",
    "family-parity": "Which cells track parity?",
    "intents": "What is being asked for?",
    "intents-quick": "What is being asked for, after a few minutes?",
    "language": "How many bits does the next byte cost?",
    "language-quick": "How many bits does the next byte cost, after a few minutes?",
    "language-enwik8": "How many bits does the next byte of Wikipedia cost, after an hour?",
    "speech": "Who speaks?",
    "spoken-digits": "Which digits are said?",
    "spoken-digits-quick": "Which digits are said, after a few minutes?",
    "translation": "Does attention help to read a date?",
    "translation-full": "Does attention help to translate?",
    "translation-full-package": "Does it help on a package never seen?",
    "captions": "Does attention help to caption a picture?",
    "captions-quick": "Does attention help to caption a picture, after a few minutes?",
}
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Figures = dict[Layout, Any]


def parts() -> list[Part]:
    """A part for every question with committed results, in the order of the record."""
    found: list[Part] = []
    for question in TABLES:
        said = section(question)
        # Agreement with others is no result about recurrence; it has a page in docs.
        if said is None or question == "agreement":
            continue
        heading = TITLES.get(
            question, f"Published, and ours: {question.removeprefix('reproduce-')}"
        )
        found.append(
            part(
                heading,
                [line for line in said.found.split("\n") if line],
                said.columns,
                said.rows,
                said.source.replace("`", ""),
                **(FIGURES[question]() if question in FIGURES else {}),
            )
        )
        if said.further:
            found.append(part(f"{heading} {said.about}", [], *said.further))
        found += FURTHER[question]() if question in FURTHER else []
        found += pictures(question)
    return found


class Picture(NamedTuple):
    """What is said of a committed picture.

    Attributes:
        heading: over it.
        legend: how to read it.
        sentence: what it shows.
        alt: for those who cannot see it.
    """

    heading: str
    legend: str
    sentence: str
    alt: str


def _of_the_demo(name: str, sentence: str) -> Picture:
    heading, legend = CAPTIONS[name]
    return Picture(
        heading, legend, sentence, f"{heading}: heat map of one test sequence of the demo."
    )


def _of_distance(sentence: str) -> Picture:
    return Picture(
        "Where attention could help",
        "Bits of the byte that ends an 8-gram, by how long ago that 8-gram was seen.",
        sentence,
        "Bits of the next byte against the distance to the last time its 8-gram was seen.",
    )


def _of_captions(heading: str, sentence: str) -> Picture:
    return Picture(
        heading,
        "Eight pictures of the test, evenly over it; a copy for each word that was said, faded "
        "where nothing was read.",
        sentence,
        "Emoji, each with a copy for every word of its caption, showing the regions read.",
    )


# By question and by the name of the file beside its results.
PICTURES: Mapping[str, Mapping[str, Picture]] = {
    "demo": {
        "attention": _of_the_demo(
            "attention", "The step where a key comes again reads the value that followed it."
        ),
        "trace": _of_the_demo(
            "trace",
            "The units of a state that tracks parity change sign together, at the ones.",
        ),
    },
    "intents": {
        "confusion": Picture(
            "Which intents are taken for which",
            "Rows: what an utterance asks for; columns: what it was taken for, in % of the row.",
            "What is left of the diagonal was lost on sentence forms that were not in training.",
            "Confusion matrix of the arm with attention over all held-out templates.",
        ),
        "reading": Picture(
            "Which words are read",
            "What the attention reads of each word, in utterances of held-out templates; left, "
            "what each was taken for.",
            "The first utterance of the median length of each of six intents, picked by no one.",
            "Words of six utterances, coloured by the weight that the attention gives them.",
        ),
    },
    "language": {
        "distance": _of_distance(
            "The recurrence alone is ahead within the attention's reach, too, where it could copy."
        ),
    },
    "language-quick": {
        "distance": _of_distance(
            "Within the attention's reach it could be copied; after so little reading it is not."
        ),
    },
    "language-enwik8": {
        "distance": _of_distance(
            "Within its reach attention needs a half to two thirds of the bits; beyond, nearly all."
        ),
    },
    "translation": {
        "alignment": Picture(
            "Where each piece of the answer looked",
            "Across: the source; down: what was said of it; the darker the more was read.",
            "Year, month and day are read where they stand.",
            "Weights of two attentions over the characters of one date.",
        ),
        "by-length": Picture(
            "Against the length of the source",
            "Bins of about equal counts, with 95% bootstrap intervals.",
            "Bahdanau's own figure, on dates.",
            "Quality of each arm against the length of the source, with intervals.",
        ),
    },
    "translation-full": {
        "alignment": Picture(
            "Where each piece of a translation looked",
            "Across: the source; down: what was said of it; the darker the more was read.",
            "Nouns are read where they stand; “unexpected” is left out.",
            "Weights of additive attention over the pieces of one message of a compiler.",
        ),
        "by-length": Picture(
            "Translations against the length of the source",
            "Bins of about equal counts, with 95% bootstrap intervals.",
            "Attention is ahead at every length, and level with the nearest source of training.",
            "chrF of each arm and floor against the words of the source, with intervals.",
        ),
    },
    "speech": {
        "heard": Picture(
            "How much has to be heard",
            "Accuracy on the standard test by how many steps of an utterance are heard at most; "
            "the line is the floor.",
            "Sixteen steps are nearly as good as all.",
            "Accuracy of each arm against the steps heard: flat from about sixteen steps on.",
        ),
    },
    "spoken-digits-quick": {
        "heard": Picture(
            "When each digit is written",
            "The human voice of each language says 4, then 7, and none is written right: the "
            "probability of every digit by time.",
            "Nobody told where a digit is: each is written in one short peak.",
            "Probability of each digit over time for five voices, with narrow peaks.",
        ),
    },
    "captions": {
        "attended": _of_captions(
            "Where each word of a caption looked",
            "Of two people with two tones, “dark” and “medium-dark” read each its own face.",
        ),
    },
    "captions-quick": {
        "attended": _of_captions(
            "Where each word looked, after a few minutes",
            "The tone itself mostly reads faces and hands, now and then a hat or clothes.",
        ),
    },
}


def pictures(question: str) -> list[Part]:
    """The pictures that were committed beside a question's results."""
    made = []
    for name, (heading, legend, sentence, alt) in PICTURES.get(question, {}).items():
        image = (RESULTS / question / f"{name}.png").read_bytes()
        made.append(Part(heading, [], plate=plate(heading, legend, [sentence], alt, image, image)))
    return made


def flagship() -> Mapping[str, Any]:
    """Arms against axes: the median accuracy where the axis is measured."""
    values: dict[str, dict[str, float]] = {}
    floors: dict[str, float] = {}
    for axis, asked in AXES.items():
        results = committed(f"{FLAGSHIP}-{axis}")
        if results is None:
            continue
        for arm, rows in by_arm(results).items():
            plain, _, convolution = arm.partition(", ")
            column = f"{axis} with {convolution}" if convolution else axis
            counted = tested(rows) if asked.beyond else trained(rows)
            far = max(row["lag"] for row in counted)
            accuracy = [row["accuracy"] or 0.0 for row in counted if row["lag"] == far]
            values.setdefault(plain, {})[column] = statistics.median(accuracy)
            floors[column] = rows[0]["floor"]
    figures: Figures = {layout: heat_map(values, floors, layout) for layout in LAYOUTS}
    return {
        "figures": figures,
        "legend": "Median accuracy of the seeds, the colour from each task's floor to 1; "
        "`track` at four times the trained length.".replace("`", ""),
        "alt": _alt(values),
    }


def against_length() -> Mapping[str, Any]:
    """Accuracy against the length of the string."""
    results = committed("length-generalisation")
    assert results is not None
    rows = [row | {"accuracy": row["right"] / row["sequences"]} for row in results["rows"]]
    return _lines(
        _series(rows, "arm", "length"),
        "length of the string, in bits",
        floor=0.5,
        trained_at=rows[0]["train_length"],
    )


def against_lag() -> Mapping[str, Any]:
    """Recall against the lag."""
    results = committed("lag-horizon")
    assert results is not None
    rows = [row for row in results["rows"] if not row["probe"]]
    return _lines(_series(rows, "arm", "lag"), "lag, in steps", floor=rows[0]["floor"])


def against_bytes() -> Mapping[str, Any]:
    """Recall against the bytes of state."""
    results = committed("recall-capacity")
    assert results is not None
    family = re.compile(r"^[^,\d]+?(?=,| of )")
    rows = [row | {"family": family.search(row["arm"])[0]} for row in results["rows"]]  # type: ignore[index]
    return _lines(
        _series(rows, "family", "state_bytes"),
        "bytes of state of one sequence",
        floor=rows[0]["floor"],
    )


def languages() -> list[Part]:
    """Accuracy against the length, a figure for each regular language."""
    results = committed("reproduce-chomsky")
    assert results is not None
    by_language: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        language, _, arm = row["arm"].partition(", ")
        by_language.setdefault(language, []).append(row | {"arm": arm})
    return [
        part(
            f"Beyond the trained lengths: {language}",
            [_best_seeds(rows)],
            **_lines(
                _series(tested(rows), "arm", "length"),
                "length of the string",
                floor=rows[0]["floor"],
                trained_at=rows[0]["train_length"],
            ),
        )
        for language, rows in by_language.items()
    ]


def _best_seeds(rows: Sequence[dict[str, Any]]) -> str:
    """The best seed of every arm by its mean over the lengths tested."""
    best = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        of_seed: dict[int, list[float]] = {}
        for row in tested([row for row in rows if row["arm"] == arm]):
            of_seed.setdefault(row["seed"], []).append(row["accuracy"] or 0.0)
        best.append(f"{arm} {100 * max(map(statistics.fmean, of_seed.values())):.1f}%")
    return f"The best seed of each, over the lengths: {', '.join(best)}."


def _series(rows: Sequence[Mapping[str, Any]], name: str, quantity: str) -> dict[str, list[Point]]:
    """Medians and ranges over the seeds, by name and quantity."""
    found: dict[str, list[Point]] = {}
    for arm in dict.fromkeys(row[name] for row in rows):
        mine = [row for row in rows if row[name] == arm]
        for x in sorted({row[quantity] for row in mine}):
            here = [row["accuracy"] or 0.0 for row in mine if row[quantity] == x]
            if x:  # a logarithmic axis has no zero
                point = Point(x, statistics.median(here), min(here), max(here))
                found.setdefault(arm, []).append(point)
    return found


def _lines(series: Mapping[str, Sequence[Point]], quantity: str, **marks: Any) -> dict[str, Any]:
    look = styles(series, {})
    figures = {layout: lines(series, look, quantity, layout, **marks) for layout in LAYOUTS}
    said = "; ".join(f"{arm} {points[-1].middle:.2f}" for arm, points in series.items())
    return {
        "figures": figures,
        "legend": "Lines are medians, bands the range of the seeds; dashed, the floor.",
        "alt": f"Accuracy against {quantity}, at the end: {said}.",
    }


def _alt(values: Mapping[str, Mapping[str, float]]) -> str:
    said = (
        f"{arm} {', '.join(f'{task} {accuracy:.2f}' for task, accuracy in of.items())}"
        for arm, of in values.items()
    )
    return f"Heat map of accuracy: {'; '.join(said)}."


FIGURES = {
    FLAGSHIP: flagship,
    "length-generalisation": against_length,
    "lag-horizon": against_lag,
    "recall-capacity": against_bytes,
}
# Parts of the page beside the question's own.
FURTHER = {"reproduce-chomsky": languages}


def main(out: Path = Path("runs/report/report.html")) -> int:
    """Writes the page.

    Args:
        out: the file.
    """
    began = time.perf_counter()
    made = parts()
    with writing("the report", out):
        write_collection(
            out,
            "longlag: results",
            "How far back can a network remember, what does attention add, and what does it cost?",
            "Every number comes from a committed file that names commit, device and versions; "
            "what failed stands beside what worked.",
            made,
            provenance("python -m experiments.report", began),
        )
    console.print(f"report {out}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.report", description=__doc__))
