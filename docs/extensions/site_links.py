"""Lets a page keep the links that work on GitHub.

A link to a file outside `docs/`, or from a file that a page includes, is written from the folder of
its own file. Here it becomes the page that includes the file, or a download of the file. A link to
a folder becomes its text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
# Files outside docs/ that are pages of the site.
PAGES = {
    "README.md": "index",
    "CONTRIBUTING.md": "how-to/extend",
    "CHANGELOG.md": "changelog",
    "benchmarks/README.md": "benchmarks",
    "experiments/README.md": "results",
}
LINK = re.compile(r"(?P<text>!?\[[^\]\n]*\])\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")
# A block of code, or a piece of code in a line.
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def rewrite(text: str, folder: Path) -> str:
    """The text of a file in `folder`, its links written from the root of the site."""
    pieces = CODE.split(text)
    links = [
        piece if i % 2 else LINK.sub(lambda match: _link(match, folder), piece)
        for i, piece in enumerate(pieces)
    ]
    return "".join(links)


def _link(match: re.Match[str], folder: Path) -> str:
    text, target, anchor = match["text"], match["target"], match["anchor"] or ""
    if re.match(r"[a-z]+:", target) or target.startswith("/"):
        return match[0]
    file = Path(os.path.normpath(folder / target))
    if not file.is_relative_to(ROOT) or not file.exists():
        return match[0]  # Sphinx warns of it
    if file.is_dir():
        return text[1:-1]
    name = file.relative_to(ROOT).as_posix()
    if name in PAGES:
        return f"{text}(/{PAGES[name]}.md{anchor})"
    return f"{text}(/{os.path.relpath(file, ROOT / 'docs')}{anchor})"


def _page(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = rewrite(source[0], Path(app.env.doc2path(docname)).parent)


def _included(app: Sphinx, file: Path, docname: str, source: list[str]) -> None:
    del docname
    source[0] = rewrite(source[0], (Path(app.srcdir) / file).resolve().parent)


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the extension to Sphinx."""
    app.connect("source-read", _page)
    app.connect("include-read", _included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
