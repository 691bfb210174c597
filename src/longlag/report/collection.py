"""A page of many questions: for each a figure, the sentences it supports, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from longlag.report.figures import Layout, png
from longlag.report.page import Plate, html, plate

__all__ = ["Chapter", "chapter", "write_collection"]


@dataclass(frozen=True)
class Chapter:
    """What the page says of one question.

    Attributes:
        heading: the question.
        sentences: what the results say.
        columns: of the table.
        rows: of the table; none where there is none.
        source: command, device and commit.
        plate: its figure, which has the sentences then.
    """

    heading: str
    sentences: Sequence[str]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    source: str = ""
    plate: Plate | None = None


def chapter(
    heading: str,
    sentences: Sequence[str],
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    source: str = "",
    figures: Mapping[Layout, Figure] | None = None,
    legend: str = "",
    alt: str = "",
) -> Chapter:
    """Makes a chapter of the page, see `Chapter`.

    Args:
        heading: the question.
        sentences: what the results say.
        columns: of the table; those that are empty in every row are left out.
        rows: of the table.
        source: command, device and commit.
        figures: the figure for a page and for a phone, "wide" and "narrow".
        legend: how to read it.
        alt: what it shows, for those who cannot see it.
    """
    used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    made = None
    if figures:
        images = (png(figures["wide"], "wide"), png(figures["narrow"], "narrow"))
        made = plate(heading, legend, list(sentences), alt, *images)
    return Chapter(
        heading,
        sentences,
        [columns[i] for i in used],
        [[row[i] for i in used] for row in rows],
        source,
        made,
    )


def write_collection(
    path: Path,
    title: str,
    question: str,
    lead: str,
    chapters: Sequence[Chapter],
    meta: Mapping[str, Any],
) -> None:
    """Writes one HTML file that needs nothing beside it.

    Args:
        path: of the file; its folder is made.
        title: of the page.
        question: its headline.
        lead: the paragraph under that.
        chapters: in their order.
        meta: see `longlag.report.page.html`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    page = html(
        "collection.html.jinja", meta, title=title, question=question, lead=lead, chapters=chapters
    )
    path.write_text(page, encoding="utf-8")
