"""One table, task by task, for the terminal and for the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import rich.box
from rich.table import Table
from rich.text import Text

from longlag.report.statements import format_accuracy, format_bytes
from longlag.report.summary import FAR, Entry, Spread

__all__ = ["COLUMNS", "Line", "insert", "lines_by_task", "markdown", "table"]

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


def lines_by_task(entries: Sequence[Entry]) -> dict[str, list[Line]]:
    """The text of the table: from a heading, one per task, to its lines."""
    by_heading: dict[str, list[Line]] = {}
    tested = {
        entry.task: entry.far_length for entry in entries if entry.far_length and not entry.is_floor
    }
    for entry in entries:
        heading = _heading(entry, tested.get(entry.task))
        by_heading.setdefault(heading, []).append(_line(entry, entry.task in tested))
    return by_heading


def table(entries: Sequence[Entry]) -> Table:
    """The table for the terminal; an outcome wraps in a narrow one, numbers do not.

    Args:
        entries: from `summarise`. A field shows the median and, where they differ, the range of the
            seeds.
    """
    made = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for name in COLUMNS:
        costs = name in COLUMNS[-3:]
        # What was solved may wrap between words; numbers may not.
        made.add_column(name, justify="right" if costs else "left", no_wrap=name not in ("solved",))
    for heading, group in lines_by_task(entries).items():
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


def _heading(entry: Entry, far_length: int | None) -> str:
    far = f" · {far_length:,} steps" if far_length else ""
    return f"{entry.task} · {entry.length:,} steps{far}"


def _line(entry: Entry, tested: bool) -> Line:
    far_verdict: Verdict = "solved" if 2 * entry.far_solved > entry.seeds else "failed"
    near = _spread(entry.accuracy, "solved" if entry.solves else "failed")
    far = _spread(entry.far_accuracy, far_verdict) if entry.far_accuracy and tested else _BLANK
    if entry.is_floor:
        return Line("floor", True, (near[0], "", ""), (far[0], "", ""), entry.arm)
    low, high = entry.success_interval
    return Line(
        arm=entry.arm,
        is_floor=False,
        accuracy=near,
        far=far,
        outcome=_outcome(entry),
        verdict="partly" if entry.extrapolates is False else near[2],
        exact_match=format_accuracy(entry.exact_match),
        interval=f"{format_accuracy(low)}–{format_accuracy(high)}",
        parameters=f"{entry.parameters:,}",
        state=format_bytes(entry.state_bytes),
        time=f"{entry.seconds:,.1f} s" if entry.seconds < 10 else f"{entry.seconds:,.0f} s",
    )


def _spread(spread: Spread, verdict: Verdict) -> tuple[str, str, Verdict]:
    low, high = format_accuracy(spread.range[0]), format_accuracy(spread.range[1])
    return format_accuracy(spread.median), "" if low == high else f"{low}–{high}", verdict


def _outcome(entry: Entry) -> str:
    rate = f"{entry.solved}/{entry.seeds}"
    if not entry.solves:
        others = ", the others" if entry.solved else ""
        text = f"{rate}{others} not within {entry.budget:,} steps"
    elif entry.steps:
        text = f"{rate} in {entry.steps.median:,.0f} steps"
    else:
        text = f"{rate} within {entry.budget:,} steps"
    text = ", ".join((text, *entry.flaws))
    if entry.far_flaws:
        text += f", at {FAR} × lag {' and '.join(entry.far_flaws)}"
    if entry.extrapolates is False:
        text += ", does not extrapolate"
    return text


def _accuracy(shown: tuple[str, str, Verdict]) -> Text:
    median, spread, verdict = shown
    return Text.assemble((f"{median:<4} ", STYLES[verdict]), (spread, "dim"))
