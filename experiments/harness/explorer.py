"""The explorer of results: one HTML file in which a reader chooses task, arms and axes.

    python -m experiments.harness.explorer            (writes docs/results/explorer.html)
    python -m experiments.harness.explorer --out site/explorer.html

It holds all committed rows of trained arms, and Vega-Lite itself, so it asks no network. Small
marks are seeds, large ones medians. A mark tells its arm, task, seed, commit and command. The
choice stands in the address, so that it can be linked: #task=...&arms=A|B&x=...&y=...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import tyro
import vl_convert

from experiments.harness.discovery import recorded_questions
from longlag.cli.arguments import plain_errors
from longlag.report.style import MARKERS, PALETTE
from longlag.system.atomic_files import replace_file
from longlag.system.console import console

__all__ = ["AXES", "chart", "main", "rows"]

AXES = {
    "accuracy": "accuracy",
    "lag": "lag or length tested, in steps",
    "operations": "operations a token",
    "training": "operations of the training, forward, for one sequence a step",
    "state": "bytes of state of one sequence",
    "parameters": "parameters",
    "seconds": "seconds of training",
    "solved": "steps until solved",
    "horizon": "horizon, the longest lag solved",
}
"""The quantities to choose for an axis, and their labels."""

SHAPES = {
    "o": "circle",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "square",
    "h": "triangle-right",
}


def rows() -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """The rows of all trained arms, and the source of each question.

    Returns:
        `task` (the question's name), `arm`, `seed`, `times` (the lag as a multiple of the trained
        one) and the quantities of `AXES` that a row has; `commit` and `command` by task and arm.
    """
    made, sources = [], {}
    for question in recorded_questions().values():
        results = None if question.combines else question.results()
        if results is None or question.page_name is None:
            continue
        several = len({row.get("task") for row in results["rows"]}) > 1
        for row in results["rows"]:
            if row.get("seed") is None or row.get("probe"):
                continue
            name = question.name
            if several and question.name == "demo":
                name += f": {row['task']}"
            made.append({"task": name, **_quantities(row)})
            sources.setdefault(f"{name}|{row['arm']}", _source(results["meta"], row["arm"]))
    return made, sources


def _quantities(row: dict[str, Any]) -> dict[str, Any]:
    accuracy = row.get("accuracy")
    if accuracy is None and "right" in row:
        accuracy = row["right"] / row["sequences"]
    lag = row.get("lag", row.get("length"))
    trained = row.get("train_lag", row.get("train_length"))
    operations = row.get("flops_per_token")
    length, steps = row.get("train_length"), row.get("steps")
    training = operations * length * steps if operations and length and steps else None
    values = {
        "accuracy": accuracy,
        "lag": lag,
        "operations": operations,
        "training": row.get("spent") if isinstance(row.get("spent"), int | float) else training,
        "state": row.get("state_bytes"),
        "parameters": row.get("parameters"),
        "seconds": row.get("seconds"),
        "solved": row.get("solved_at"),
        "horizon": row.get("horizon"),
        "times": lag / trained if lag and trained else 1,
    }
    known = {key: value for key, value in values.items() if value is not None}
    return {"arm": row["arm"], "seed": row["seed"], **known}


def _source(meta: dict[str, Any], arm: str) -> dict[str, str]:
    of_arm = next((one for one in meta.get("added", ()) if arm in one["arms"]), meta)
    return {"commit": (of_arm["commit"] or "none")[:10], "command": of_arm["command"]}


def chart() -> alt.LayerChart:
    """The chart: the page sets its fields `px` and `py`, its titles and its rows."""
    arm = alt.Color("arm:N", legend=None, scale=alt.Scale(range=list(PALETTE)))
    shape = alt.Shape(
        "arm:N", legend=None, scale=alt.Scale(range=[SHAPES[marker] for marker in MARKERS])
    )
    x = alt.X("px:Q", axis=alt.Axis(tickCount=6, format="~s", labelOverlap=True))
    y = alt.Y("py:Q", axis=alt.Axis(tickCount=6, format="~s"))
    hover = [alt.Tooltip(f"{key}:N") for key in ("arm", "task", "seed", "commit", "command")]
    hover[3:3] = [alt.Tooltip("px:Q", title="x"), alt.Tooltip("py:Q", title="y")]
    seeds = alt.Chart().mark_point(filled=True, size=36, opacity=0.5)
    seeds = seeds.encode(x=x, y=y, color=arm, shape=shape, tooltip=hover)
    middle = alt.Chart().transform_aggregate(
        px="median(px)", py="median(py)", groupby=["arm", "lag", "task"]
    )
    line = middle.mark_line(strokeWidth=1.4).encode(x=x, y=y, color=arm)
    shown = [alt.Tooltip("arm:N"), alt.Tooltip("px:Q", title="median x")]
    shown.append(alt.Tooltip("py:Q", title="median y"))
    median = middle.mark_point(filled=True, size=110, opacity=1, stroke="white", strokeWidth=0.7)
    median = median.encode(x=x, y=y, color=arm, shape=shape, tooltip=shown)
    drawn: Any = alt.layer(line, seeds, median, data=alt.Data(name="rows"))
    return drawn.properties(width="container", height=420).configure_axis(
        gridColor="#eceef0", labelColor="#626973", titleColor="#1b1e23", titleFontWeight="normal"
    )


def main(out: Path = Path("docs/results/explorer.html"), results: str = "") -> int:
    """Writes the page.

    Args:
        out: the file.
        results: the address of the page of all results, to link to; empty for no link.
    """
    made, sources = rows()
    titles = {
        name: question.title
        for name, question in recorded_questions().items()
        if question.page_name
    }
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader(Path(__file__).parent),
                jinja2.PackageLoader("longlag", "report"),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("explorer.html.jinja").render(
        meta=[],
        command="",
        results=results,
        title="longlag: explorer of results",
        question="Choose a task, arms and axes",
        lead="Small marks are seeds, large marks medians. Point at a mark to see where it is from.",
        # Its stub forgets that the snippet has a default.
        library=vl_convert.javascript_bundle(),  # pyright: ignore[reportCallIssue]
        # No text of the data may end the script.
        data=json.dumps(
            {"rows": made, "sources": sources, "axes": AXES, "titles": titles,
             "spec": chart().to_dict(validate=False), "palette": PALETTE},
            separators=(",", ":"),
        ).replace("</", "<\\/"),
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page)
    console.print(f"explorer {out}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.harness.explorer", description=__doc__))
