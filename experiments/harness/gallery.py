"""The gallery of results: a page a question in docs/results, made from the committed JSON.

    python -m experiments.harness.gallery             (seconds; a minute if figures have changed)

A page is prose with two generated parts. `<!-- NAME -->` has figure, table and what it counts;
`<!-- NAME source -->` has command, device, commit and versions. The prose of a question stands in
its page and nowhere else. experiments/README.md is the index: titles and first sentences of the
pages. The tables of README.md and docs/ are made as well.

A test makes all of them again. Figures are not drawn for that: each keeps the checksum of what it
draws, and is drawn again where that differs.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from PIL import Image

from experiments.harness import discovery
from experiments.harness.recorded import RESULTS, FigureText, Plot, Recorded, source_line
from longlag import report
from longlag.cli.arguments import plain_errors
from longlag.cli.listing import COLUMNS, catalogue
from longlag.report.kinds import drawn_rows
from longlag.report.rows import insert, markdown
from longlag.system.console import console

__all__ = ["Page", "block", "documents", "figure_checksum", "main", "page_of", "whole_table"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = "docs/results"
FIGURES = "figures"
INDEX = "experiments/README.md"
CATALOGUE = "docs/cells.md"
DOTS = 120
CHECKSUM = "Rows"
HEADINGS = ("Method", "Limits", "Run it again")
SKELETON = """# {title}

<!-- {name} -->
<!-- /{name} -->

## Method

## Limits

## Run it again

<!-- {name} source -->
<!-- /{name} source -->
"""
CAPTIONS = {
    "accuracy": "Accuracy of every seed. The number at the right is the median.",
    "lag": "Accuracy against {quantity}. Lines are medians, bands the range of the seeds.",
    "state": "Accuracy against bytes of state. Small marks are seeds, large marks medians.",
    "cost": "Accuracy against operations a token. Small marks are seeds, large marks medians.",
    "heat": "Median accuracy of the seeds. The colour runs from the baseline to 1.",
    "horizon": "Left: the longest lag solved, against the operations until then. Right: the same "
    "lag against the bytes of state at it. Lines and large marks are medians, small marks seeds. "
    "Arms with attention are dashed and hollow. Equal lags are drawn a little apart.",
}
FLOOR = "The dashed line is the baseline (floor)."
WITHOUT_FLOOR = ("heat", "horizon")


class Page(NamedTuple):
    """The prose of a page.

    Attributes:
        title: its heading.
        answer: the paragraphs under it, to the first generated part.
        sections: the prose under `HEADINGS`, generated parts left out.
    """

    title: str
    answer: str
    sections: dict[str, str]


def main() -> int:
    """Makes all pages, figures, the index, and the tables of other documents, where they differ."""
    discovery.require_known()
    for question in discovery.recorded_questions().values():
        plot = _plot(question)
        if plot is not None:
            _draw(question.name, plot)
    for file, text in documents().items():
        path = ROOT / file
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            console.print(f"wrote {file}")
    return 0


def documents() -> dict[str, str]:
    """Every document with generated parts, by its path, as it has to be.

    Raises:
        ValueError: a document has half of its markers, or a page another title than its question.
    """
    questions = discovery.recorded_questions()
    made: dict[str, str] = {}
    for question in questions.values():
        for file in question.documents:
            made[file] = _insert(file, made.get(file), question.name, whole_table(question))
    for name, questions_of_page in _pages().items():
        file = f"{PAGES}/{name}.md"
        if (ROOT / file).is_file():
            made[file] = (ROOT / file).read_text(encoding="utf-8")
        else:
            made[file] = SKELETON.format(name=name, title=questions[name].title)
        if not made[file].startswith(f"# {questions[name].title}\n"):
            raise ValueError(f"{file}: expected the title {questions[name].title!r}")
        for question in questions_of_page:
            for marker, text in block(question).items():
                made[file] = _insert(file, made[file], marker, text)
    made[INDEX] = _insert(INDEX, None, "index", _index(made))
    made[CATALOGUE] = _insert(CATALOGUE, None, "catalogue", markdown(COLUMNS, catalogue()))
    return made


def page_of(text: str) -> Page:
    """The prose of a page of the gallery, read from its Markdown.

    Raises:
        ValueError: it has another structure, or a part is empty.
    """
    title, _, rest = text.partition("\n")
    answer, _, below = rest.partition("<!-- ")
    parts = re.split(r"^## (.*)\n", below, flags=re.MULTILINE)
    sections = {
        heading: re.sub(r"<!-- ([\w -]+) -->.*?<!-- /\1 -->", "", prose, flags=re.DOTALL).strip()
        for heading, prose in zip(parts[1::2], parts[2::2])
    }
    missing = [heading for heading in HEADINGS if not sections.get(heading)]
    if not answer.strip() or missing:
        what = ", ".join(["the answer"] * (not answer.strip()) + missing)
        raise ValueError(f"{title}: expected prose for {what}; got none")
    return Page(title.removeprefix("# "), " ".join(answer.split()), sections)


def block(question: Recorded) -> dict[str, str]:
    """The generated parts of a question's page, by their markers."""
    results = question.results()
    if results is None:
        return {question.name: "Not recorded yet."}
    section = question.section(results)
    further = section.further
    pictures = [_picture(question.name, *item) for item in question.pictures.items()]
    plot = _plot(question)
    if plot is not None:
        pictures.insert(0, _generated_picture(question, plot))
    parts = [
        *pictures[:1],
        markdown(section.columns, section.rows),
        _bullets([*section.findings.split("\n"), section.note]),
        *([further.caption, markdown(further.columns, further.rows)] if further else []),
        *pictures[1:],
    ]
    made = {question.name: "\n\n".join(filter(None, parts))}
    if not question.combines:
        made[f"{question.name} source"] = "\n\n".join(_sources(question.name, results["meta"]))
    return made


def whole_table(question: Recorded) -> str:
    """What a document that is no page of the gallery shows of a question, in Markdown."""
    results = question.results()
    if results is None:
        return "Not recorded yet."
    made = question.section(results)
    under = f"{source_line(results['meta'])} {made.note}".strip()
    parts = [markdown(made.columns, made.rows), made.findings, under]
    return "\n\n".join(filter(None, parts))


def figure_checksum(plot: Plot) -> str:
    """What tells whether a committed figure draws these results."""
    drawn = json.dumps([plot.kind, drawn_rows(plot.results, plot.kind), plot.options])
    return hashlib.sha256(drawn.encode()).hexdigest()[:16]


def committed_checksum(name: str) -> str | None:
    """The checksum in a committed figure, or None if there is no figure."""
    path = ROOT / PAGES / FIGURES / f"{name}.png"
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.info.get(CHECKSUM)


def _draw(name: str, plot: Plot) -> None:
    checksum = figure_checksum(plot)
    if committed_checksum(name) == checksum:
        return
    path = ROOT / PAGES / FIGURES / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = report.figure(plot.results, plot.kind, **plot.options)
    path.write_bytes(report.png(drawn, dots=DOTS, marks={CHECKSUM: checksum}))
    console.print(f"drew {PAGES}/{FIGURES}/{name}.png")


def _pages() -> dict[str, list[Recorded]]:
    """The questions of each page, of which one has results at least."""
    pages: dict[str, list[Recorded]] = {}
    for question in discovery.recorded_questions().values():
        if question.page_name is not None:
            pages.setdefault(question.page_name, []).append(question)
    return {
        name: questions
        for name, questions in pages.items()
        if any(question.results() is not None for question in questions)
    }


def _plot(question: Recorded) -> Plot | None:
    results = question.results()
    return None if results is None or question.page_name is None else question.plot(results)


def _index(made: dict[str, str]) -> str:
    """A line a page: its question, linked, and the first sentence of its answer."""
    rows = []
    for name in _pages():
        title, _, rest = made[f"{PAGES}/{name}.md"].partition("\n")
        answer = " ".join(rest.partition("<!-- ")[0].split())
        first = re.split(r"(?<=[.!?])\s+(?=[A-Z])", answer)[0].replace("**", "")
        rows.append((f"[{title.removeprefix('# ')}](../{PAGES}/{name}.md)", first))
    return markdown(("question", "answer"), rows)


def _generated_picture(question: Recorded, plot: Plot) -> str:
    caption = plot.caption or CAPTIONS[plot.kind].format(
        quantity=plot.options.get("quantity", "lag").partition(",")[0]
    )
    rows = drawn_rows(plot.results, plot.kind)
    if plot.kind not in WITHOUT_FLOOR and any("floor" in row for row in rows):
        caption += f" {FLOOR}"
    if plot.kind == "accuracy" and plot.options.get("far", 1) != 1:
        caption += f" Hollow marks: {plot.options['far']:.3g} times the trained lag."
    title = question.title if question.title.endswith("?") else f"{question.title}."
    return _image(f"{FIGURES}/{question.name}.png", f"{title} {caption}", caption)


def _picture(name: str, file: str, text: FigureText) -> str:
    folder = "../" * len(Path(PAGES).parts) + RESULTS.relative_to(RESULTS.parents[1]).as_posix()
    caption = f"{text.heading}. {text.sentence} {text.legend}"
    return _image(f"{folder}/{name}/{file}.png", text.alt, caption)


def _image(path: str, alt: str, caption: str) -> str:
    alt = alt.replace("[", "(").replace("]", ")")
    return f"![{alt}]({path})\n\n*{caption}*"


def _bullets(sentences: list[str]) -> str:
    kept = [sentence for sentence in sentences if sentence]
    return "\n".join(f"- {sentence}" for sentence in kept)


def _sources(name: str, meta: dict[str, Any]) -> Iterator[str]:
    """Where results come from: those of the question, then those of arms that were added."""
    changed = " with uncommitted changes" if meta.get("dirty") else ""
    others = [f"`{commit[:10]}` ({len(runs)} runs)" for commit, runs in _commits(meta).items()]
    first = f"`{(meta['commit'] or 'none')[:10]}`"
    versions = ", ".join(f"{package} {version}" for package, version in meta["versions"].items())
    arms = f" ({', '.join(meta['arms'])})" if meta.get("arms") else ""
    wall = "since it was resumed" if meta.get("resumed") else "in all"
    lines = [
        f"Data: [`{name}/cpu.json`](../../experiments/results/{name}/cpu.json){arms}",
        f"Command: `{meta['command']}`",
        f"Commit: {', '.join([first, *others])}{changed}",
        f"Device: {meta['device']}, {meta['wall_seconds']:,.0f} s {wall}",
        f"Versions: {versions}",
    ]
    yield "\n".join(f"- {line}" for line in lines)
    for more in meta.get("added", ()):
        yield from _sources(name, more)


def _commits(meta: dict[str, Any]) -> dict[str, list[str]]:
    return meta.get("commits", {})


def _insert(file: str, text: str | None, marker: str, made: str) -> str:
    """A document with a generated part at its markers; those of an unrecorded one may be missing.

    Raises:
        ValueError: the markers are not there.
    """
    text = (ROOT / file).read_text(encoding="utf-8") if text is None else text
    if made == "Not recorded yet." and f"<!-- {marker} -->" not in text:
        return text
    try:
        return insert(text, marker, made)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.harness.gallery", description=__doc__))
