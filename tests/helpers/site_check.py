"""Opens every page of the built site as a reader does, and says what is wrong with it.

python -m tests.helpers.site_check                       after `make docs`
python -m tests.helpers.site_check --shots FOLDER        and a picture of each page
python -m tests.helpers.site_check --only how-to         of these pages alone
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.helpers.devtools import Page, open_page

__all__ = ["broken_links", "check_site"]

SITE = Path(__file__).resolve().parents[2] / "build" / "docs"
WIDTHS = (1280, 390)

# Pictures below the window are loaded when they come into view.
SEEN = """(async () => {
    const images = [...document.images];
    images.forEach(image => { image.loading = "eager"; });
    await Promise.all(images.map(image => image.decode().catch(() => {})));
    const root = document.documentElement;
    const wide = [...document.querySelectorAll("article *")].filter(element => {
        if (element.getBoundingClientRect().right <= root.clientWidth + 1) return false;
        for (let box = element; box && box !== root; box = box.parentElement)
            if (getComputedStyle(box).overflowX !== "visible") return false;
        return true;
    });
    return {
        width: root.clientWidth,
        scroll: Math.max(root.scrollWidth, document.body.scrollWidth),
        wide: wide.slice(0, 3).map(element => element.outerHTML.slice(0, 120)),
        blank: images.filter(image => !image.naturalWidth).map(image => image.src),
        ids: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
        links: [...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href")),
    };
})()"""


def pages_of(site: Path) -> list[Path]:
    """The pages of a built site."""
    return sorted(page for page in site.rglob("*.html") if "_static" not in page.parts)


def check_site(page: Page, site: Path, files: list[Path], shots: Path | None) -> Iterator[str]:
    """What is wrong with these pages, a line for each fault."""
    seen: dict[Path, dict[str, Any]] = {}
    for file in files:
        for width in WIDTHS:
            page.visit(file.as_uri(), width)
            found = seen[file.resolve()] = page.evaluate(SEEN)
            name = f"{file.relative_to(site)} at {width}"
            yield from (f"{name}: {problem}" for problem in page.problems)
            outside = {r for r in page.requests if not r.startswith(("file:", "data:", "about:"))}
            yield from (f"{name}: asked for {address}" for address in sorted(outside))
            if found["scroll"] > width:
                yield f"{name}: is {found['scroll']} wide, by {found['wide']}"
            elif found["wide"]:
                yield f"{name}: cut off is {found['wide']}"
            yield from (f"{name}: no picture {source}" for source in found["blank"])
            if shots:
                _take_pictures(page, file, shots / str(file.relative_to(site))[:-5], width)
    yield from broken_links({f: (s["links"], s["ids"]) for f, s in seen.items()}, site)


def broken_links(pages: dict[Path, tuple[list[str], list[str]]], site: Path) -> Iterator[str]:
    """The links that lead nowhere, and those to other hosts that are no addresses.

    Args:
        pages: links and anchors of each page.
        site: the folder of all.
    """
    anchors = {file: set(ids) for file, (_, ids) in pages.items()}
    for file, (links, _) in pages.items():
        for link in links:
            parts = urlsplit(link)
            if parts.scheme:
                if not re.fullmatch(r"https?://[\w.-]+(:\d+)?([/?#]\S*)?|mailto:\S+@\S+", link):
                    yield f"{file.relative_to(site)}: no address: {link}"
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.is_file() or not target.is_relative_to(site):
                yield f"{file.relative_to(site)}: no file for {link}"
            elif anchor and target.suffix == ".html":
                if target not in anchors:
                    text = target.read_text(encoding="utf-8")
                    anchors[target] = set(re.findall(r'\bid="([^"]+)"', text))
                if anchor not in anchors[target]:
                    yield f"{file.relative_to(site)}: no anchor for {link}"


def _take_pictures(page: Page, file: Path, stem: Path, width: int) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.visit(file.as_uri(), width, 1400 if width > 500 else 1100, scheme)
        page.screenshot(stem.with_name(f"{stem.name}-{width}-{scheme}.png"))


def main() -> int:
    """Checks the built site; the exit code says whether anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--site", type=Path, default=SITE)
    parser.add_argument("--only", default="")
    parser.add_argument("--shots", type=Path)
    options = parser.parse_args()
    files = [f for f in pages_of(options.site) if options.only in str(f.relative_to(options.site))]
    if not files:
        raise SystemExit(f"expected built pages in {options.site}; run `make docs`")
    faults = 0
    with open_page() as page:
        for fault in check_site(page, options.site.resolve(), files, options.shots):
            print(fault)
            faults += 1
    print(f"{len(files)} pages at {' and '.join(map(str, WIDTHS))} pixels, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
