"""One page with every question: figures, what they show, and the tables, from what is committed.

    python -m experiments.harness.report                    (seconds)
    python -m experiments.harness.report --out somewhere/report.html

Reads experiments/results and leaves runs/report/report.html, which needs nothing beside it.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import tyro

from experiments.harness.committed import FLAGSHIP, RESULTS, TABLES, committed, section
from experiments.harness.report_figures import PICTURES
from experiments.harness.tables import by_arm, tested, trained
from experiments.memory.attention_vs_recurrence import AXES
from longlag.cli.arguments import plain_errors
from longlag.report.charts import Point, heat_map, lines
from longlag.report.collection import Part, part, write_collection
from longlag.report.figures import Layout
from longlag.report.page import plate
from longlag.report.style import styles
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.system.machine import provenance

TITLES = {
    "demo": "What does attention add to a recurrence?",
    FLAGSHIP: "Is attention needed at all?",
    **{f"{FLAGSHIP}-{axis}": asked.title for axis, asked in AXES.items()},
    "selective-copy": "Does a gate need to see the state?",
    "lag-horizon": "How far back?",
    "recall-capacity": "How much recall does a byte of state buy?",
    "length-generalisation": "How far beyond the trained length?",
    "length-generalisation-million": "As far as a million bits?",
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
            provenance("python -m experiments.harness.report", began),
        )
    console.print(f"report {out}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.harness.report", description=__doc__))
