"""The report as one HTML file that needs nothing beside it, and its plots as PNG files."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from longlag.report import statements
from longlag.report.figures import png
from longlag.report.kinds import plots
from longlag.report.rows import COLUMNS, lines_by_task
from longlag.report.statements import format_accuracy
from longlag.report.summary import FAR, Entry, summarise

__all__ = ["Plate", "html", "plate", "render", "write"]

QUESTION = "How far back can a network remember, what does attention add, and what does it cost?"

CAPTIONS = {
    "accuracy": (
        "Accuracy by arm and task",
        f"Every mark is a seed: filled at the trained lengths, hollow at {FAR} times the length. "
        "The numbers are medians; dashed, the floor.",
    ),
    "lag": (
        "How far back",
        "Lines are medians, bands the range of the seeds; dashed, the floor.",
    ),
    "learning": (
        "Learning curves",
        "Every line is a seed, and ends where its training did; grey, the other arms; dashed, the "
        "floor.",
    ),
    "loss": ("Loss", "The same runs by their loss, both axes logarithmic; dashed, the floor."),
    "attention": (
        "What is attended to",
        "Each row is a step that reads, each column a step that is read.",
    ),
    "trace": (
        "The state, unrolled",
        "Each column is a step, each row a unit, ordered by the first principal component so that "
        "like stands beside like.",
    ),
}
"""For each plot the heading, and how to read it."""


@dataclass(frozen=True)
class Plate:
    """One figure of the page.

    Attributes:
        heading: what it is about.
        legend: how to read it.
        evidence: the sentences that it supports.
        alt: what it shows, for those who cannot see it.
        wide, narrow: PNG in base64, for a page and for a phone.
        size: width and height of the wide one, in CSS pixels.
    """

    heading: str
    legend: str
    evidence: list[str]
    alt: str
    wide: str
    narrow: str
    size: tuple[int, int]


def write(folder: str | Path, results: Mapping[str, Any]) -> Path:
    """Writes `report.html` and `plots/*.png`; equal results give equal files.

    Args:
        folder: made if it does not exist; files of the same names are replaced.
        results: see `longlag.report`.

    Returns:
        the path of the page.

    Raises:
        ValueError: the results do not have the structure that they should.
    """
    entries = _entries(results)
    wide = {name: png(made, "wide") for name, made in plots(results, "wide").items()}
    path = Path(folder) / "report.html"
    (path.parent / "plots").mkdir(parents=True, exist_ok=True)
    for name, image in wide.items():
        (path.parent / "plots" / f"{name}.png").write_bytes(image)
    path.write_text(_html(results, entries, wide), encoding="utf-8")
    return path


def render(results: Mapping[str, Any]) -> str:
    """The report as HTML, without writing anything. Arguments and errors as in `write`."""
    entries = _entries(results)
    wide = {name: png(made, "wide") for name, made in plots(results, "wide").items()}
    return _html(results, entries, wide)


def _entries(results: Mapping[str, Any]) -> list[Entry]:
    return summarise(results["rows"], results.get("threshold", 0.95), results.get("roles", {}))


def _html(results: Mapping[str, Any], entries: Sequence[Entry], wide: Mapping[str, bytes]) -> str:
    narrow = {n: png(made, "narrow") for n, made in plots(results, "narrow").items()}
    plates = {
        name: plate(
            *CAPTIONS[name],
            _evidence(name, results, entries),
            _alt(name, results, entries),
            wide[name],
            narrow[name],
        )
        for name in wide
    }
    roles = results.get("roles", {})
    return html(
        "page.html.jinja",
        results.get("meta", {}),
        title=results.get("title", "longlag"),
        question=results.get("question", QUESTION),
        lead=results.get("lead", ""),
        findings=statements.findings(entries, roles),
        answers=statements.about_tasks(entries, roles),
        columns=COLUMNS,
        table=lines_by_task(entries),
        threshold=format_accuracy(results.get("threshold", 0.95)),
        plates=plates,
    )


def html(template: str, meta: Mapping[str, Any], **values: Any) -> str:
    """A page of the house.

    Args:
        template: one of this folder, that extends `base.html.jinja`.
        meta: `command, commit, device, versions, wall_seconds`, each optional, for its foot.
        values: what else it names: `title`, `question`, `lead`, and its own.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("longlag", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _keep_together
    return environment.get_template(template).render(
        meta=_footer(meta), command=meta.get("command", ""), **values
    )


def plate(
    heading: str, legend: str, evidence: list[str], alt: str, wide: bytes, narrow: bytes
) -> Plate:
    """A figure of a page, from its two PNG files."""
    wide_64, narrow_64 = (base64.b64encode(image).decode() for image in (wide, narrow))
    return Plate(heading, legend, evidence, alt, wide_64, narrow_64, _css_size(wide))


def _evidence(name: str, results: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """The sentences that a figure supports, computed from what it draws."""
    match name:
        case "accuracy":
            return statements.about_arms(entries)
        case "lag":
            return statements.about_lag(results["by_lag"], results.get("threshold", 0.95))
        case "learning":
            return statements.about_steps(entries)
        case "loss":
            return statements.about_loss(entries)
        case "attention":
            sentences = [results[name].get("caption", ""), statements.about_map(results[name])]
        case _:
            sentences = [results[name].get("caption", "")]
    return [sentence for sentence in sentences if sentence]


def _alt(name: str, results: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """What a figure shows, for those who cannot see it."""
    if name in ("attention", "trace"):
        return f"{CAPTIONS[name][0]}: heat map, {results[name]['title']}."
    trained = [entry for entry in entries if not entry.is_floor]
    if name == "accuracy":
        medians = (
            f"{entry.task}, {entry.arm} {format_accuracy(entry.accuracy.median)}"
            for entry in trained
        )
        return f"Dot plot of accuracy, medians: {'; '.join(medians)}."
    tasks = dict.fromkeys(entry.task for entry in trained)
    arms = dict.fromkeys(entry.arm for entry in trained)
    return f"{CAPTIONS[name][0]}: {', '.join(arms)} on {', '.join(tasks)}."


def _keep_together(text: str) -> Markup:
    """Prose in which a number stays on one line with its unit, and an arm with its parts."""
    return Markup(
        re.sub(r" (?=(?:KiB|MiB|GiB|B|×|steps)\b|× |\+ )|(?<=\+) ", "&nbsp;", escape(text))
    )


def _footer(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the numbers come from, in the order that a reader asks."""
    facts = [(key, str(meta[key])) for key in ("commit", "device") if meta.get(key)]
    if meta.get("versions"):
        versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
        facts.append(("versions", versions))
    if meta.get("wall_seconds") is not None:
        minutes, seconds = divmod(round(meta["wall_seconds"]), 60)
        facts.append(("wall time", f"{minutes} min {seconds} s" if minutes else f"{seconds} s"))
    return facts


def _css_size(image: bytes) -> tuple[int, int]:
    """Width and height from the header of a PNG, at half its pixels."""
    width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
    return width // 2, height // 2
