"""One table, task by task, for the terminal and for the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import rich.box
from rich.table import Table
from rich.text import Text

from longlag.report.statements import score, size
from longlag.report.summary import FAR, Cell, Spread

__all__ = ["COLUMNS", "Line", "insert", "lines", "markdown", "table"]

COLUMNS = ("arm", "trained at", f"{FAR} × lag", "solved", "params", "state", "time")

Verdict = Literal["solved", "partly", "failed", ""]
STYLES = {"solved": "bold green", "partly": "yellow", "failed": "red", "": "dim italic"}
_BLANK = ("", "", "")


@dataclass(frozen=True)
class Line:
    """One printed row.

    Attributes:
        arm: name of the arm, or "floor".
        is_floor: whether it was not trained.
        accuracy: median accuracy and range of the seeds at the trained lengths, with its verdict.
        far: the same at `FAR` times the lag; blank where it was not tested.
        outcome: how many seeds solved it and in how many steps, or "not within N steps"; for a
            floor, who it is.
        verdict: on the outcome; "partly" for what was solved and does not extrapolate.
        exact_match: median share of sequences with every answer right; on the page only.
        interval: Wilson's 95% interval of the success rate.
        parameters, state, time: the costs, in units that a person reads.
    """

    arm: str
    is_floor: bool
    accuracy: tuple[str, str, Verdict]
    far: tuple[str, str, Verdict]
    outcome: str
    verdict: Verdict = ""
    exact_match: str = ""
    interval: str = ""
    parameters: str = ""
    state: str = ""
    time: str = ""


def lines(cells: Sequence[Cell]) -> dict[str, list[Line]]:
    """The text of the table: from a heading, one per task, to its lines."""
    by_heading: dict[str, list[Line]] = {}
    tested = {cell.task: cell.far_length for cell in cells if cell.far_length and not cell.is_floor}
    for cell in cells:
        heading = _heading(cell, tested.get(cell.task))
        by_heading.setdefault(heading, []).append(_line(cell, cell.task in tested))
    return by_heading


def table(cells: Sequence[Cell]) -> Table:
    """The table for the terminal; an outcome wraps in a narrow one, numbers do not.

    Args:
        cells: from `summarise`. A cell shows the median and, where they differ, the range of the
            seeds.
    """
    made = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for name in COLUMNS:
        costs = name in COLUMNS[-3:]
        # What was solved may wrap between words; numbers may not.
        made.add_column(name, justify="right" if costs else "left", no_wrap=name not in ("solved",))
    for heading, group in lines(cells).items():
        if made.row_count:
            made.add_row()
        task, _, rest = heading.partition(" · ")
        made.add_row(Text.assemble((task, "bold")), *[Text(part) for part in rest.split(" · ")])
        for line in group:
            made.add_row(
                Text(line.arm, STYLES[""] if line.is_floor else ""),
                _accuracy(line.accuracy),
                _accuracy(line.far),
                Text(line.outcome, STYLES[line.verdict]),
                line.parameters,
                line.state.replace(" ", "").removesuffix("iB"),  # 12.5K, for the width
                line.time,
            )
    return made


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    text = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    return "\n".join([*text, *("| " + " | ".join(row) + " |" for row in rows)])


def insert(text: str, marker: str, made: str) -> str:
    """The text with the table between its markers `<!-- marker -->` and `<!-- /marker -->`.

    Raises:
        ValueError: the markers are not there.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"expected the markers {begin} and {end} in the text; got none")
    return pattern.sub(lambda _: f"{begin}\n{made}\n{end}", text)


def _heading(cell: Cell, far_length: int | None) -> str:
    far = f" · {far_length:,} steps" if far_length else ""
    return f"{cell.task} · {cell.length:,} steps{far}"


def _line(cell: Cell, tested: bool) -> Line:
    far_verdict: Verdict = "solved" if 2 * cell.far_solved > cell.seeds else "failed"
    near = _spread(cell.accuracy, "solved" if cell.solves else "failed")
    far = _spread(cell.far_accuracy, far_verdict) if cell.far_accuracy and tested else _BLANK
    if cell.is_floor:
        return Line("floor", True, (near[0], "", ""), (far[0], "", ""), cell.arm)
    low, high = cell.success_interval
    return Line(
        arm=cell.arm,
        is_floor=False,
        accuracy=near,
        far=far,
        outcome=_outcome(cell),
        verdict="partly" if cell.extrapolates is False else near[2],
        exact_match=score(cell.exact_match),
        interval=f"{score(low)}–{score(high)}",
        parameters=f"{cell.parameters:,}",
        state=size(cell.state_bytes),
        time=f"{cell.seconds:,.1f} s" if cell.seconds < 10 else f"{cell.seconds:,.0f} s",
    )


def _spread(spread: Spread, verdict: Verdict) -> tuple[str, str, Verdict]:
    low, high = score(spread.range[0]), score(spread.range[1])
    return score(spread.median), "" if low == high else f"{low}–{high}", verdict


def _outcome(cell: Cell) -> str:
    rate = f"{cell.solved}/{cell.seeds}"
    if not cell.solves:
        others = ", the others" if cell.solved else ""
        text = f"{rate}{others} not within {cell.budget:,} steps"
    elif cell.steps:
        text = f"{rate} in {cell.steps.median:,.0f} steps"
    else:
        text = f"{rate} within {cell.budget:,} steps"
    text = ", ".join((text, *cell.flaws))
    if cell.far_flaws:
        text += f", at {FAR} × lag {' and '.join(cell.far_flaws)}"
    if cell.extrapolates is False:
        text += ", does not extrapolate"
    return text


def _accuracy(shown: tuple[str, str, Verdict]) -> Text:
    median, spread, verdict = shown
    return Text.assemble((f"{median:<4} ", STYLES[verdict]), (spread, "dim"))
