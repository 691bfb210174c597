"""Numbers, words and the table of the report: they say what the rows say, and no more."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from longlag import report
from longlag.report import statements
from longlag.report.rows import lines_by_task
from tests.helpers.made_up_results import ROLES, entries_of, made_up_results, row

# The numbers


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(3, 3, 0.43850, 1.0), (0, 3, 0.0, 0.56150), (50, 100, 0.40383, 0.59617)],
)
def test_wilson_equals_published_intervals(successes, trials, low, high):
    np.testing.assert_allclose(report.wilson(successes, trials), (low, high), atol=1e-5)


@pytest.mark.parametrize("bad", [(4, 3), (-1, 3), (0, 0)])
def test_wilson_refuses_impossible_counts(bad):
    with pytest.raises(ValueError, match=f"got {bad[0]} of {bad[1]}"):
        report.wilson(*bad)


def test_a_cell_holds_median_quartiles_range_and_the_seeds_that_solved():
    accuracies = [0.2, 1.0, 0.96, 0.97, 0.4]
    rows = [
        row(seed=i, accuracy=a, budget=900, solved_at=100 * i if a > 0.9 else None)
        for i, a in enumerate(accuracies)
    ]
    (cell,) = report.summarise(rows, 0.95)
    assert cell.accuracy == report.Spread(0.96, (0.4, 0.97), (0.2, 1.0))
    assert (cell.solved, cell.seeds, cell.solves, cell.budget) == (3, 5, True, 900)
    assert cell.steps is not None and cell.steps.median == 200  # of seeds 1, 2 and 3
    assert cell.far_accuracy is None and cell.extrapolates is None
    (stricter,) = report.summarise(rows, 0.965)
    assert (stricter.solved, stricter.solves) == (2, False)


def test_a_seed_that_diverged_did_not_solve_and_does_not_hide():
    rows = [row(seed=0, accuracy=1.0), row(seed=1, accuracy=None), row(seed=2, accuracy=np.nan)]
    (cell,) = report.summarise(rows)
    assert (cell.diverged, cell.solved, cell.solves) == (2, 1, False)
    assert cell.accuracy.median == 1.0  # of the one that is left, beside the count
    assert report.about_tasks([cell], {}) == [
        "On recall (trained to length 32, 3 seeds), LSTM reached 1.00 (2 of 3 seeds diverged), "
        "not within 500 steps in 2 of 3 seeds."
    ]
    shown = "".join(line.outcome for line in lines_by_task([cell])["recall · 32 steps"])
    assert shown == "1/3, the others not within 500 steps, 2 diverged"


def test_answers_that_are_nan_are_named_beside_the_accuracy():
    lengths = ((32, [0.2, 0.0, 0.0]), (128, [0.0, 1.0, 0.0]))
    rows = [
        row(seed=seed, length=length, train_length=32, accuracy=1 - nan, loss=None if nan else 1.0)
        | ({"nan": nan} if nan else {})
        for length, shares in lengths
        for seed, nan in enumerate(shares)
    ]
    rows[1] |= {"loss": None}  # recorded before NaN was counted, or an infinite loss
    (cell,) = report.summarise(rows)
    assert (cell.diverged, cell.solved, cell.accuracy.range) == (0, 2, (0.8, 1.0))
    assert report.about_tasks([cell], {}) == [
        "On recall (trained to length 32, 3 seeds), LSTM reached 1.00 (1 of 3 seeds answered NaN "
        "and 1 of 3 seeds without a finite loss) within 500 steps (and 1.00 (1 of 3 seeds answered "
        "NaN) at length 128)."
    ]
    (shown,) = lines_by_task([cell])["recall · 32 steps · 128 steps"]
    assert shown.outcome == (
        "2/3 within 500 steps, 1 answered NaN, 1 without a finite loss, at 4 × lag 1 answered NaN"
    )


def test_the_far_test_is_found_by_lag_where_the_length_is_not_a_multiple():
    rows = [
        row(length=120, train_length=120, lag=100, train_lag=100, accuracy=1.0),
        row(length=420, train_length=120, lag=400, train_lag=100, accuracy=0.1),
        row(length=480, train_length=120, lag=460, train_lag=100, accuracy=0.7),
    ]
    (cell,) = report.summarise(rows)
    assert (cell.far_length, cell.extrapolates) == (420, False)
    assert cell.far_accuracy is not None and cell.far_accuracy.median == 0.1


def test_arms_keep_the_order_asked_for_and_floors_come_last():
    rows = [row(arm="floor: chance", seed=None, seconds=None), row(arm="B"), row(arm="A")]
    assert [c.arm for c in report.summarise(rows)] == ["B", "A", "chance"]
    assert [c.arm for c in report.summarise(rows, arms=["A"])] == ["A", "B", "chance"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"task": "recall"}], "lacks .*'accuracy'"),
        ([row(train_length=32), row(train_length=64)], r"one train_length, got \[32, 64\]"),
        ([row(train_length=16)], r"LSTM: expected a row of length 16, got \[32\]"),
    ],
)
def test_rows_that_cannot_be_summarised_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        report.summarise(rows)


# The words


def test_answers_state_what_the_rows_say():
    recall, parity, copy = report.about_tasks(entries_of(made_up_results()), ROLES)
    assert recall.startswith(
        "On recall (trained to length 32, 3 seeds, floor .06), the recurrence alone (LSTM) reached "
        ".59, not within 1,500 steps. With attention, LSTM + additive reached .99 in a median of "
        "160 steps and LSTM + full reached 1.00 in a median of 100 steps."
    )
    assert "the recurrence alone (LSTM) reached 1.00 in a median of 100 steps (and 1.00" in parity
    # It failed where it was trained, so nothing can be said of extrapolation.
    assert "Attention alone reached .53, not within 1,500 steps." in parity
    assert "extrapolate" not in recall + parity
    assert "steps but .30 at length 200: it does not extrapolate." in copy


def test_findings_set_the_memories_against_each_other():
    attention, recurrence, both, price = report.findings(entries_of(made_up_results()), ROLES)
    assert attention == (
        "Attention adds recall and copy: not within 1,500 steps for the recurrence alone, solved "
        "with attention."
    )
    assert recurrence.startswith("Recurrence adds parity: not within 1,500 steps for attention")
    assert both == "LSTM + additive and LSTM + full each solved all 3 tasks."
    assert "LSTM 512 B, attention only 25.0 KiB (100.0 KiB at 200)" in price


def test_findings_follow_the_rows():
    results = made_up_results()
    for one in results["rows"]:
        if one["arm"] == "LSTM":
            one["accuracy"] = 1.0
        if one["arm"] == "attention only" and one["task"] == "parity":
            one["accuracy"] = 1.0 if one["length"] == 40 else 0.5
        if one["arm"].startswith("LSTM +") and one["task"] == "copy":
            one["accuracy"] = 0.9
    found = " ".join(report.findings(entries_of(results), ROLES))
    assert "Attention adds" not in found and "Recurrence adds" not in found
    assert (
        "On parity and copy, attention alone solves the lengths it was trained on and does" in found
    )
    assert "LSTM and attention only each solved all 3 tasks." in found


def test_without_roles_every_arm_is_called_by_its_name():
    rows = [row(arm="A", accuracy=1.0, solved_at=40), row(arm="B", seed=0)]
    cells = report.summarise(rows)
    assert report.about_tasks(cells, {}) == [
        "On recall (trained to length 32), A reached 1.00 in 40 steps and B reached .50, not "
        "within 500 steps."
    ]
    assert report.findings(cells, {}) == []


def test_an_unknown_role_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="Did you mean 'recurrence'"):
        report.findings(report.summarise([row()]), {"LSTM": "recurrent"})


def test_about_lag_names_the_longest_lag_without_a_gap():
    lags = {16: 1.0, 32: 0.96, 64: 0.5, 128: 0.99}
    by_lag = [
        {"task": "t", "arm": "A", "seed": 0, "lag": lag, "train_lag": 16, "accuracy": accuracy}
        for lag, accuracy in lags.items()
    ]
    assert statements.about_lag(by_lag, 0.95) == [
        "On t, trained to lag 16, accuracy stays at .95 or above for A to lag 32."
    ]


def test_about_map_names_the_sharpest_read_that_had_a_choice():
    picture = {"weights": [[1, 0, 0], [0.1, 0.9, 0], [0.3, 0.3, 0.4]], "tokens": ["a", "b", "c"]}
    assert statements.about_map(picture) == (
        "The sharpest read: at “b”, step 2, .90 of the weight lies on “b”, step 2."
    )


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (512, "512 B"), (8704, "8.5 KiB"), (3 * 2**20, "3.0 MiB")]
)
def test_bytes_are_printed_in_units_that_a_person_reads(count, text):
    assert statements.format_bytes(count) == text


# The table


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_is_whole_in_a_terminal(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table(entries_of(made_up_results())))
    printed = console.export_text().splitlines()
    assert max(map(len, printed)) <= width
    assert not any("…" in line for line in printed)
    if width == 80:  # what was solved takes more lines
        return
    parity = printed[next(i for i, line in enumerate(printed) if line.startswith("parity")) :]
    lstm = next(line for line in parity if line.startswith("LSTM "))
    assert re.split(r"\s{2,}", lstm.strip()) == [
        *("LSTM", "1.00", "1.00", "3/3 in 100 steps", "24,988", "512B", lstm[-6:].strip())
    ]
    alone = next(line for line in parity if line.startswith("attention only"))
    assert "0/3 not within 1,500 steps" in alone and alone.index(".53") < alone.index(".50")
    assert any(line.startswith("floor") and "coin flip" in line for line in parity)
    assert any("does not" in line for line in printed)
    assert not any("cannot" in line for line in printed)
