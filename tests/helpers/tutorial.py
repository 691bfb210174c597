"""Runs the code of a tutorial in a process of its own, and draws its figures.

    python -m tests.helpers.tutorial docs/tutorials/story.md

Every warning is an error, but for those that `pyproject.toml` lets pass. `main` ends with one line
of JSON: seconds of this process on all cores, and how many figures were drawn.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import sys
import time
import tomllib
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPTION = re.compile(r"^:[\w-]+:.*$", re.MULTILINE)


def code_cells(page: Path) -> list[str]:
    """The code of each cell, on the lines that it has in the page."""
    text = page.read_text(encoding="utf-8")
    # An option of a cell is no code; its line stays, empty.
    return [
        "\n" * text[: m.start(1)].count("\n") + OPTION.sub("", m[1]) for m in CELL.finditer(text)
    ]


def lines_of_code(page: Path) -> int:
    """Lines of all cells that are neither empty nor a comment."""
    lines = (line.strip() for cell in code_cells(page) for line in cell.splitlines())
    return sum(1 for line in lines if line and not line.startswith("#"))


def run(page: Path) -> int:
    """Runs a page here; returns how many figures `plt.show()` has drawn."""
    from matplotlib import pyplot

    drawn = 0

    def show() -> None:
        nonlocal drawn
        for number in pyplot.get_fignums():
            pyplot.figure(number).canvas.draw()
            drawn += 1
        pyplot.close("all")

    shown, pyplot.show = pyplot.show, show
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for cell in code_cells(page):  # each builds on those before
            exec(compile(cell, page, "exec"), names)
    finally:
        pyplot.show = shown
    assert not pyplot.get_fignums(), f"{page.name}: a figure is drawn and not shown"
    return drawn


def main(page: str) -> None:
    os.environ["MPLBACKEND"] = "agg"
    warnings.simplefilter("error")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for line in settings["tool"]["pytest"]["ini_options"]["filterwarnings"][1:]:
        action, message, category, module = (*line.split(":"), "")[:4]
        warnings.filterwarnings(action, message, getattr(builtins, category), module)
    drawn = run(Path(page))
    print(json.dumps({"seconds": round(time.process_time(), 1), "figures": drawn}))


if __name__ == "__main__":
    main(*sys.argv[1:])
