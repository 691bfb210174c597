"""Benchmarks of compilation, generation and seeds: the smallest run of each, and its JSON."""

from __future__ import annotations

import functools
import json
from types import ModuleType
from typing import Any

import jax
import pytest

from benchmarks import attention, compile_time, decode, kinds, profile, record, seeds, streaming
from benchmarks.frameworks import Layer
from longlag.cli.arguments import plain_errors
from longlag.kernels.looping import unfused

SCRIPTS = [compile_time, decode, seeds, streaming]


def name(script: ModuleType) -> str:
    return script.__name__.removeprefix("benchmarks.")


def found_by(script: Any, argv: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """The last line printed, of which the table for README.md is made too."""
    assert script.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["benchmark"] == name(script) and found["rounds"] == 1
    text = script.section(found)
    assert text.startswith(f"| {script.COLUMNS[0]} |") and found["device"] in text
    return found["rows"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch):
    """Nobody waits to hear whether the machine is quiet."""
    monkeypatch.setattr(record, "busy_cores", lambda _: 0.0)


@pytest.mark.deep
def test_compile_time(capsys: pytest.CaptureFixture[str]):
    """Each framework in a process of its own, as it is run."""
    argv = ["--shape", "2,3,4,5", "--cells", "gru", "--rounds", "1"]
    (row,) = found_by(compile_time, argv, capsys)
    assert set(row) == {*("cell", "shape", "trace_s", "compile_s", "total_s", "ratios", "spread")}
    assert set(row["total_s"]) == {"longlag", "flax linen"}
    assert set(row["ratios"]) == set(row["spread"]) == {"flax linen"}
    assert row["shape"] == [2, 3, 4, 5] and min(row["trace_s"].values()) > 0
    low, high = row["spread"]["flax linen"]
    assert low == high == pytest.approx(row["ratios"]["flax linen"], abs=2e-3)
    argv = ["--shape", "2,3,4,6", "--cells", "griffin-stack", "--rounds", "1"]
    (row,) = found_by(compile_time, argv, capsys)
    assert row["cell"] == "griffin-stack" and list(row["ratios"]) == ["longlag, 3 blocks"]
    deep, once = row["total_s"].values()
    assert row["ratios"]["longlag, 3 blocks"] == pytest.approx(deep / once, abs=0.01)


STACKS = [("lstm-stack", "1 block"), ("griffin-stack", "3 blocks")]


@pytest.mark.parametrize(("stack", "once"), STACKS)
def test_a_stack_of_twelve_is_one_program_of_its_pattern(stack: str, once: str):
    """Not much longer, that is: the loop over turns, and the axis of their parameters."""
    layer = Layer(stack, (2, 3, 4, 6), training=True)
    lines, applies = {}, []

    def parameters(make: Any) -> Any:
        apply, params = make(layer)
        applies.append(apply)
        return params

    for contestant, make in compile_time.contestants(layer).items():
        params = jax.eval_shape(functools.partial(parameters, make))
        with unfused():  # a native loop is one line
            lowered = jax.jit(applies[-1]).lower(params, layer.inputs)
        lines[contestant] = len(lowered.as_text().splitlines())
    deep, shallow = lines.values()
    assert list(lines) == ["longlag, 12 blocks", f"longlag, {once}"]
    assert shallow < deep < 1.5 * shallow


def test_every_contestant_compiles():
    """The fused peer is for LSTM alone."""
    layer = Layer("lstm", (2, 3, 4, 5), training=True)
    assert "flax linen, fused" in compile_time.contestants(layer)
    cached = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    try:
        for contestant in compile_time.contestants(layer):
            assert min(compile_time.measure_seconds(contestant, layer)) > 0
    finally:  # the tests after this one have their cache
        jax.config.update("jax_enable_compilation_cache", cached)


def test_decode(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """One of each kind: a cell with its peers, and a model, in processes of their own."""
    monkeypatch.setattr(decode, "CELLS", ("lstm",))
    monkeypatch.setattr(decode, "MODELS", (("min_gru", "full"),))
    argv = ["--batch", "2", "--width", "8", "--tokens", "3", "--rounds", "1"]
    cell, model = found_by(decode, argv, capsys)
    keys = {*("cell", "attention", "batch", "width", "us", "tokens_per_s", "ratios", "spread")}
    assert set(cell) == set(model) == keys
    assert set(cell["us"]) == set(decode.FRAMEWORKS) and set(cell["ratios"]) == set(decode.PEERS)
    assert set(model["us"]) == {"longlag"} and model["ratios"] == {}
    assert cell["tokens_per_s"] == pytest.approx(2e6 / cell["us"]["longlag"], rel=0.01)


@pytest.mark.parametrize(("kind", "attention"), [*decode.MODELS, ("gru", None)], ids=str)
def test_every_stepping_runs(kind: str, attention: str | None):
    for framework in decode.FRAMEWORKS if attention is None else ("longlag",):
        run = decode.FRAMEWORKS[framework](decode.Stepping(kind, attention, 2, 8, 3))
        run()
        run()  # a donated state is not asked for again


def test_streaming(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "PRESETS", (("min_gru", "window", "interleaved"),))
    argv = ["--early", "3", "--late", "20", "--depth", "2", "--width", "8", "--rounds", "1"]
    (row,) = found_by(streaming, argv, capsys)
    assert (row["preset"], row["early"], row["late"]) == ("min_gru + window, interleaved", 3, 20)
    assert row["us_early"] > 0 and row["us_late"] > 0 and row["ratio"] > 0
    # A carry of 8 numbers; a ring of 16 keys, values and positions, and a count.
    assert row["state_bytes"] == 4 * 8 + 4 * (16 * (8 + 8 + 1) + 1)


@pytest.mark.deep
def test_seeds(capsys: pytest.CaptureFixture[str]):
    argv = ["--seeds", "2", "--width", "4", "--lag", "2", "--batch", "2", "--steps", "1"]
    (row,) = found_by(seeds, [*argv, "--rounds", "1", "--cell", "gru"], capsys)
    assert set(row) == {
        *("cell", "width", "lag", "batch", "steps", "seeds", "ms_per_seed", "compile_s", "ratio"),
        *("spread", "faster", "auto", "auto_is_right"),
    }
    assert row["auto"] in seeds.WAYS and row["faster"] in (*seeds.WAYS, "neither")
    assert set(row["ms_per_seed"]) == set(seeds.WAYS)
    assert row["auto_is_right"] == (row["faster"] in (row["auto"], "neither"))


@pytest.mark.parametrize(("platform", "way"), [("cpu", "map"), ("cuda", "vmap"), ("tpu", "vmap")])
def test_what_auto_takes(platform: str, way: str):
    """Read off the program, so another rule in `training` shows here."""
    case = seeds.Case("gru", 4, lag=3, batch=2, steps=1, seeds=2)
    assert seeds.way_of_auto(case, platform) == way


@pytest.mark.parametrize(
    ("script", "argv", "expected"),
    [
        (attention, ["--shape", "1,2,3,2"], "expected D that H divides, got (1, 2, 3, 2)"),
        (attention, ["--frameworks", "tensor"], "--frameworks: expected one of"),
        (compile_time, ["--shape", "1,2,3"], "expected four positive numbers B,T,D,H; got '1,2,3'"),
        (compile_time, ["--rounds", "0"], "--rounds: expected at least 1, got 0"),
        (decode, ["--tokens", "0"], "--tokens: expected at least 1, got 0"),
        (decode, ["--batch", "0"], "--batch: expected at least 1, got (0,)"),
        (streaming, ["--early", "9", "--late", "8"], "expected 0 < --early <= --late"),
        (seeds, ["--seeds", "0"], "--seeds: expected at least 1, got (0,)"),
        (seeds, ["--rounds", "0"], "--rounds: expected at least 1, got 0"),
    ],
)
def test_bad_input(script: Any, argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left, plain_errors():
        script.main(argv)
    assert left.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.deep
def test_attention(capsys: pytest.CaptureFixture[str]):
    """All frameworks, each in a process of its own, as it is run."""
    argv = ["--shape", "2,3,4,2", "--rounds", "1"]
    assert attention.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    forward, train = found["rows"]
    assert (forward["pass"], train["pass"]) == ("forward", "train")
    for row in (forward, train):
        assert row["ms"].keys() == attention.FRAMEWORKS.keys() and min(row["ms"].values()) > 0
        assert row["ratios"].keys() == row["ms"].keys() - {"longlag"}
    assert attention.section(found).startswith("| B,T,D,H | pass | ms | flax linen |")


def test_kinds(capsys: pytest.CaptureFixture[str]):
    argv = ["--shape", "2,3,4,5", "--cells", "gru", "--rounds", "1"]
    (row,) = found_by(kinds, argv, capsys)
    assert row["cell"] == "gru" and row["shape"] == [2, 3, 4, 5]
    assert row["ratio"] > 0 and all(ms > 0 for ms in row["ms"].values())


def test_profile(capsys: pytest.CaptureFixture[str]):
    """Long enough to be cut into chunks, so that every loop is seen."""
    argv = ["--shape", "4,200,8,16", "--cells", "lstm", "--passes", "train"]
    assert profile.main([*argv, "--frameworks", "longlag"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = found["rows"]
    assert row["framework"] == "longlag" and set(row["parts"]) == set(profile.PARTS)
    # The forward and the backward are one operation each.
    assert row["parts"]["loops"] > 0
    assert 0 < sum(row["parts"].values()) and 0 < row["ms"]
    assert any(one["operation"].startswith("ffi_call") for one in row["longest"])
    with pytest.raises(ValueError, match="--frameworks: expected one of"):
        profile.main(["--frameworks", "torch"])
