"""A figure by one call: what it draws of the rows, and the three files that it is saved to."""

from __future__ import annotations

import csv
import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import imread

from experiments.memory import horizon
from longlag import report
from longlag.report.style import PLAIN
from tests.helpers.made_up_results import made_up_results

# The horizon of each of three seeds: TEST DATA, not a measurement.
HORIZONS = {
    "LSTM": (16, 16, 8),
    "GRU": (32, 64, 32),
    "mLSTM": (0, 0, 0),
    "LSTM + attention": (64, 128, 64),
    "attention only, rotary": (8, 0, 8),
}


def made_up_horizons() -> dict[str, Any]:
    """Rows and frontiers as `experiments.memory.horizon` writes them."""
    rows, frontiers = [], []
    for arm, lags in HORIZONS.items():
        for seed, reached in enumerate(lags):
            trained = max(reached, 8)
            for times in (1, 2, 4, 16):
                rows.append(
                    {
                        "arm": arm,
                        "seed": seed,
                        "lag": times * trained,
                        "train_lag": trained,
                        "accuracy": 1 / times,
                        "horizon": reached,
                        "state_bytes": 512 + times * trained * ("attention" in arm),
                        "spent": 1e12,
                    }
                )
            solved = [lag for lag in (8, 16, 32, 64, 128) if lag <= reached]
            frontiers += [
                {"arm": arm, "seed": seed, "lag": lag, "spent": lag * 1e9} for lag in solved
            ]
    return {"rows": rows, "frontiers": frontiers}


def large_marks(ax: Any) -> list[Any]:
    """The marks of medians, in the order of the arms."""
    return [marks for marks in ax.collections if marks.get_sizes()[0] > 20]


@pytest.mark.parametrize("kind", ["accuracy", "lag"])
def test_a_figure_is_saved_for_print_for_the_screen_and_as_rows(tmp_path: Path, kind: str):
    results = made_up_results()
    path = tmp_path / "paper" / "figure.1"  # what follows a dot is no suffix
    report.figure(results, kind, save=path)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        f"figure.1.{suffix}" for suffix in ("csv", "pdf", "png")
    ]
    assert (tmp_path / "paper" / "figure.1.pdf").read_bytes().startswith(b"%PDF")
    picture = imread(tmp_path / "paper" / "figure.1.png")
    assert picture.std() > 0.01
    drawn = results["rows" if kind == "accuracy" else "by_lag"]
    with (tmp_path / "paper" / "figure.1.csv").open(newline="") as file:
        saved = list(csv.DictReader(file))
    assert len(saved) == len(drawn)
    for line, row in zip(saved, drawn, strict=True):
        written = {key: "" if value is None else str(value) for key, value in row.items()}
        assert written.items() <= line.items()


def test_equal_results_are_saved_as_equal_files(tmp_path: Path):
    for name in "ab":
        report.figure(made_up_horizons(), "horizon", save=tmp_path / name)
    for suffix in ("csv", "pdf", "png"):
        one, other = (tmp_path / f"{name}.{suffix}" for name in "ab")
        assert one.read_bytes() == other.read_bytes(), suffix


def test_the_horizon_is_drawn_against_operations_and_against_the_state_at_it():
    left, right = report.figure(made_up_horizons(), "horizon").axes
    assert "operations" in left.get_xlabel() and "bytes of state" in right.get_xlabel()
    solved = [arm for arm, lags in HORIZONS.items() if statistics.median(lags)]
    for arm, line, end in zip(solved, left.lines, large_marks(left), strict=True):
        middle = statistics.median(HORIZONS[arm])
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        # It steps up when the second of three seeds solves a lag, and stays until the budget ends.
        assert x[-1] == 1e12 and x[np.argmax(y)] == middle * 1e9
        assert 2**-0.31 < y[-1] / middle < 2**0.31 and end.get_offsets()[0][1] == y[-1]
    for arm, marks in zip(HORIZONS, large_marks(right), strict=True):
        x, y = marks.get_offsets()[0]
        bytes_of = [512 + max(lag, 8) * ("attention" in arm) for lag in HORIZONS[arm]]
        assert x == statistics.median(bytes_of)
        # Who solved nothing stands under the shortest lag, at a mark of that name.
        assert 2**-0.31 < y / (statistics.median(HORIZONS[arm]) or 4) < 2**0.31
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert labels == ["none", "8", "16", "32", "64", "128"]


def test_arms_of_one_recurrence_have_one_colour_and_attention_is_dashed_and_hollow():
    left, right = report.figure(made_up_horizons(), "horizon").axes
    marks = dict(zip(HORIZONS, large_marks(right), strict=True))
    colors = {arm: to_hex(mark.get_edgecolor()[0]) for arm, mark in marks.items()}
    assert colors["LSTM"] == colors["LSTM + attention"]
    assert colors["attention only, rotary"] == PLAIN.color
    assert len(set(colors.values())) == len(HORIZONS) - 1
    hollow = {arm for arm, mark in marks.items() if to_hex(mark.get_facecolor()[0]) == "#ffffff"}
    assert hollow == {arm for arm in HORIZONS if "attention" in arm}
    (key,) = left.figure.legends
    dashed = {line.get_label() for line in key.get_lines() if line.get_linestyle() == "--"}
    assert dashed == hollow


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_a_horizon_of_many_arms_keeps_its_texts_apart(layout: Any):
    one = made_up_horizons()
    results: dict[str, list[Any]] = {"rows": [], "frontiers": []}
    for arm in horizon.arms("copy", "cpu"):
        for entry, rows in results.items():
            rows += [{**row, "arm": arm} for row in one[entry] if row["arm"] == "LSTM + attention"]
    figure = report.figure(results, "horizon", layout)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for ax in figure.axes[: 1 if layout == "wide" else 2]:  # the wide ones share their lags
        boxes = [t.get_window_extent(renderer) for t in ax.get_yticklabels()]
        assert all(a.y1 < b.y0 for a, b in itertools.pairwise(boxes)) and len(boxes) > 3
    (key,) = figure.legends
    inside = key.get_window_extent(renderer)
    assert figure.bbox.x0 <= inside.x0 and inside.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= inside.y0 and inside.y1 <= figure.bbox.y1
    assert all(not inside.overlaps(ax.get_window_extent(renderer)) for ax in figure.axes)


def test_where_nothing_was_solved_the_horizon_is_drawn_all_the_same():
    results = made_up_horizons()
    results["rows"] = [row for row in results["rows"] if row["arm"] == "mLSTM"]
    left, right = report.figure({**results, "frontiers": []}, "horizon").axes
    assert not left.lines and len(large_marks(right)) == 1
    assert left.get_yticklabels()[0].get_text() == "none"


def test_results_without_frontiers_are_refused():
    with pytest.raises(ValueError, match=r"horizon.*expected results with 'frontiers'"):
        report.figure({"rows": made_up_horizons()["rows"]}, "horizon")
    with pytest.raises(ValueError, match="expected results with 'rows'"):
        report.figure({"rows": [], "frontiers": []}, "horizon")


def test_the_page_of_the_question_draws_the_horizon():
    plot = horizon.figure(made_up_horizons())
    assert plot.kind == "horizon"
    assert len(report.figure(plot.results, plot.kind, **plot.options).axes) == 2
