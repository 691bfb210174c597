"""The benchmark of `linear_scan`: all compute the same, the last line is all of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import linear_scan, record
from longlag.cli.arguments import plain_errors

KEYS = {"shape", "pass", "auto", "ms", "ratios", "spread", "to_peers", "compile_s", "profile"}


@pytest.mark.deep
def test_a_whole_run(capsys: pytest.CaptureFixture[str]):
    """In processes of their own, as the benchmark does."""
    argv = ["--shape", "6,5", "--rounds", "1", "--passes", "train", "--lengths", "5", "20"]
    assert linear_scan.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"benchmark", "device", "versions", "commit", "rows", "lengths"} <= set(found)
    (row,) = found["rows"]
    assert set(row) == KEYS and row["shape"] == [6, 5]
    contestants = {*linear_scan.OURS, *linear_scan.PEERS}
    assert set(row["ratios"]) == contestants
    assert set(row["ms"]) == {*contestants, linear_scan.PASS}
    assert all(value > 0 for value in row["ms"].values())
    assert set(row["profile"]) == {linear_scan.PASS, row["auto"]}
    assert all(one["longest"][0]["ms"] > 0 for one in row["profile"].values())
    first, second = found["lengths"]
    assert first["ratio"] is None and second["ratio"] > 0
    text = linear_scan.section(found)
    assert "| 6,5 | train |" in text and "20 take" in text
    assert f"| 6,5 | train | {linear_scan.PASS} |" in text


def test_every_contestant_computes_the_same():
    problem = linear_scan.Problem((50, 3), training=True)
    a, b, weights, h0 = linear_scan.arrays(problem)
    h, expected = h0, []
    for one_a, one_b in zip(np.asarray(a), np.asarray(b)):
        h = one_a * h + one_b
        expected.append(h)
    for name in (*linear_scan.OURS, *linear_scan.PEERS):
        got = linear_scan.recurrence(name)(a, b, h0)
        np.testing.assert_allclose(got, np.stack(expected), 1e-5, 1e-6, err_msg=name)
    assert weights.shape == b.shape


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--shape", "1,2,3"], "expected two positive numbers T,N; got '1,2,3'"),
        (["--shape", "0,4"], "expected two positive numbers"),
        (["--rounds", "0"], "expected at least 1, got 0"),
        (["--lengths", "4", "0"], "expected positive numbers, got (4, 0)"),
    ],
)
def test_bad_input(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left, plain_errors():
        linear_scan.main(argv)
    assert left.value.code == 2
    assert expected in capsys.readouterr().err


def test_nothing_is_recorded_beside_other_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "busy_cores", lambda _: 0.5)
    with pytest.raises(ValueError, match=r"other processes keep 0.50 cores busy"):
        linear_scan.main(["--record", "--quick"])
