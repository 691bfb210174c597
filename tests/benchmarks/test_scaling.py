"""docs/scaling.md: its formulas beside what the compilers said, and its tables."""

from __future__ import annotations

import pytest

from benchmarks import scaling

ROWS = scaling.checked()


def test_the_tables_are_made_from_the_record():
    page = scaling.PAGE.read_text("utf-8")
    assert scaling.of_checks(ROWS) in page
    assert scaling.of_chips() in page


def test_enough_programs_of_every_kind_are_checked():
    assert {row["program"] for row in ROWS} == {*scaling.FORMULAS, *scaling.IN_TIME}
    assert len(ROWS) >= 12 and {row["chips"] for row in ROWS} == {1, 8, 64, 256}


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row['program']}-{row['target']}-{row['chips']}"
)
def test_a_formula_is_near_or_its_miss_is_explained(row):
    for one in scaling.check(row):
        assert one.is_near or scaling.explain(row, one), one


def test_no_miss_on_an_h100_is_explained():
    check = scaling.Check("memory", 3.0, 2.0)
    row = {"program": "cell: LSTM", "target": "h100"}
    assert not check.is_near and scaling.explain(row, check) == ""
    assert scaling.explain(row | {"target": "v5e"}, check) == "a"
