"""The benchmarks: every framework runs the same layer, and the last line is the whole result."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import allocator, length, memory, record, rounds, time_over_devices, unroll
from benchmarks.frameworks import FRAMEWORKS, Layer
from longlag.cli.arguments import plain_errors

KEYS = {
    *("cell", "shape", "pass", "ours_ms", "peers", "medians", "ratios", "spread"),
    *("compile_s", "floor_ms"),
}


def test_every_framework_runs(capsys: pytest.CaptureFixture[str]):
    """In processes of their own, as the benchmark does."""
    argv = ["--shape", "2,3,4,5", "--cells", "gru", "--rounds", "1", "--passes", "train"]
    assert unroll.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"benchmark", "device", "versions", "commit", "rows"} <= set(found)
    (row,) = found["rows"]
    assert set(row) == KEYS and row["shape"] == [2, 3, 4, 5]
    others = set(FRAMEWORKS) - {"longlag", "matmul"}
    assert set(row["peers"]) == others and set(row["ratios"]) == {*others, "jax"}
    assert all(value > 0 for value in (row["ours_ms"], row["floor_ms"], *row["peers"].values()))


def test_memory_is_kept_in_one_process_and_given_back_in_the_other(
    capsys: pytest.CaptureFixture[str],
):
    argv = ["--shape", "2,3,4,5", "--rounds", "1", "--frameworks", "longlag"]
    assert allocator.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["malloc"] == "keep"
    (row,) = found["rows"]
    assert set(row) == {"shape", "framework", "ms", "ratio", "spread", "peak_mb"}
    assert [*row["ms"]] == [*row["peak_mb"]] == ["keep", "system"]
    assert min(*row["ms"].values(), *row["peak_mb"].values()) > 0
    assert allocator.section(found).startswith("| LSTM, train | framework |")


def test_a_ratio_is_the_median_of_the_rounds():
    assert rounds.median_ratio([1, 4, 9], [2, 2, 3]) == (2.0, 0.5, 3.0)


def test_what_others_disturbed_is_measured_again(monkeypatch: pytest.MonkeyPatch):
    # At the start; in the first measurement twice, after the second; then all the time.
    heard = iter([0.0, 0.3, 0.3, 0.01, *[0.3] * 6])
    monkeypatch.setattr(record, "busy_cores", lambda _: next(heard))
    kept, taken = record.Record("unroll", True), []
    assert kept.measure_quietly(lambda x: taken.append(x) or len(taken), 5) == 2
    assert taken == [5, 5] and kept.loudest == 0.01
    with pytest.raises(ValueError, match=r"0.30 cores busy after 3 attempts"):
        kept.measure_quietly(taken.append, 6)
    assert taken == [5, 5, 6, 6, 6]


def test_inputs_are_the_same_everywhere():
    layer = Layer("lstm", (2, 3, 4, 5), training=True)
    np.testing.assert_array_equal(layer.inputs, layer.inputs)
    assert layer.inputs.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--shape", "1,2,3"], "expected four positive numbers B,T,D,H; got '1,2,3'"),
        (["--shape", "1,2,0,4"], "expected four positive numbers"),
        (["--frameworks", "haiko"], "Did you mean 'haiku'"),
        (["--rounds", "0"], "expected at least 1, got 0"),
    ],
)
def test_bad_input(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left, plain_errors():
        unroll.main(argv)
    assert left.value.code == 2
    assert expected in capsys.readouterr().err


def test_nothing_is_recorded_beside_other_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(record, "busy_cores", lambda _: 0.5)
    with pytest.raises(ValueError, match=r"other processes keep 0.50 cores busy"):
        unroll.main(["--record", "--quick"])


@pytest.mark.parametrize("file", sorted(record.RESULTS.glob("*-*.json")), ids=lambda p: p.stem)
def test_the_table_is_that_of_the_recorded_results(file: Path):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["dirty"] is False and found["busy"] <= record.QUIET
    section = importlib.import_module(f"benchmarks.{found['benchmark']}").section
    assert section(found) in record.README.read_text(encoding="utf-8")


@pytest.mark.deep
def test_memory_of_every_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Of three of them, for each has a process."""
    fewer = {way: memory.WAYS[way] for way in ("autodiff", "recompute", "remat sqrt")}
    monkeypatch.setattr(memory, "WAYS", fewer)
    assert memory.main(["--shape", "2,400,3,16", "--rounds", "1"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    units = {row["way"]: row["units"] for row in found["rows"]}
    assert set(units) == {*fewer, memory.PEER}
    assert units["remat sqrt"] < units["recompute"] < units["autodiff"]
    assert all(row["ms"] > 0 and row["to_autodiff"] > 0 for row in found["rows"])


@pytest.mark.deep
def test_time_grows_as_the_length_does(capsys: pytest.CaptureFixture[str]):
    """The self-test: it fails on a jaxlib whose loops rewrite whole buffers, and names it."""
    assert length.main(["--lengths", "2000", "8000", "--width", "16"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["length"] for row in found["rows"]] == [2000, 8000]
    assert all(row["peak_mb"] > 1 and row["seconds"] > 0 for row in found["rows"])
    assert 1 < found["rows"][1]["ratio_4"] < length.AT_MOST


def test_a_jaxlib_that_is_too_slow_is_named(capsys: pytest.CaptureFixture[str]):
    rows = [{"length": 1000}, {"length": 4000, "ratio_4": 15.2}]
    assert length.check({"rows": rows, "versions": {"jaxlib": "0.11.1"}}) == 1
    said = capsys.readouterr().err
    assert "four times the length takes 15.2 times as long; jaxlib 0.11.1 rewrites" in said


@pytest.mark.deep
def test_a_device_of_four_holds_a_quarter(capsys: pytest.CaptureFixture[str]):
    assert time_over_devices.main(["--length", "8192", "--devices", "1", "4"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    for one, four in (rows[:2], rows[2:]):
        assert (one["model"], one["devices"], four["devices"]) == (four["model"], 1, 4)
        assert four["difference"] < 1e-5 and four["temp_bytes"] < one["temp_bytes"] / 3
