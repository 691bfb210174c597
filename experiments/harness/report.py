"""One page with every question: figures, what they show, and the tables, from what is committed.

    python -m experiments.harness.report                    (seconds)
    python -m experiments.harness.report --out somewhere/report.html

Reads experiments/results and leaves runs/report/report.html, which needs nothing beside it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tyro

from experiments.harness.discovery import recorded_questions, require_known
from experiments.harness.recorded import RESULTS, Recorded
from longlag.cli.arguments import plain_errors
from longlag.report.collection import Chapter, chapter, write_collection
from longlag.report.page import plate
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.system.machine import provenance

__all__ = ["chapters"]


def chapters() -> list[Chapter]:
    """The parts of every question with committed results, in the order of the record."""
    require_known()
    return [
        one
        for question in recorded_questions().values()
        if question.on_the_page
        for one in _chapters_of(question)
    ]


def _chapters_of(question: Recorded) -> list[Chapter]:
    """The table and figure of a question, its second table, more figures, and its pictures."""
    results = question.results()
    if results is None:
        return []
    section = question.section(results)
    first = chapter(
        question.title,
        [line for line in section.findings.split("\n") if line],
        section.columns,
        section.rows,
        section.source.replace("`", ""),
        **(question.figure(results) if question.figure else {}),
    )
    further = []
    if section.further:
        further.append(chapter(f"{question.title} {section.about}", [], *section.further))
    more = question.chapters(results) if question.chapters else []
    return [first, *further, *more, *_picture_chapters(question)]


def _picture_chapters(question: Recorded) -> list[Chapter]:
    """The pictures that are committed beside the results of a question."""
    made = []
    for name, (heading, legend, sentence, alt) in question.pictures.items():
        image = (RESULTS / question.name / f"{name}.png").read_bytes()
        made.append(
            Chapter(heading, [], plate=plate(heading, legend, [sentence], alt, image, image))
        )
    return made


def main(out: Path = Path("runs/report/report.html")) -> int:
    """Writes the page.

    Args:
        out: the file.
    """
    began = time.perf_counter()
    made = chapters()
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
