"""A chosen few programs are compiled for an H100 and a TPU, which are not here. None of them runs.

The compilers work in a child process, so no other test meets them. On x86-64 Linux a compiler that
is missing is a failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from benchmarks import compiled, hlo
from benchmarks.programs import PROGRAMS
from benchmarks.record import README
from benchmarks.targets import HAVE_WHEELS, Compiler
from longlag.cli.arguments import plain_errors

needs_wheels = pytest.mark.skipif(not HAVE_WHEELS, reason="the compilers are for x86-64 Linux")

B, T, D, H = SHAPE = [16, 64, 8, 32]
# Forward, and the product of the carry in the backward; an LSTM takes its products again there, and
# adds up the gradients of both kernels. The inputs have no gradient.
LSTM_PRODUCTS = 2 * B * T * 4 * H * (3 * D + 4 * H)
LSTM_PARAMETERS = 4 * H * (D + H + 1)


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as compiler:
        yield compiler


@pytest.fixture
def measure(compiler: Compiler):
    def measure(name: str, target: str, chips: int = 1, steps: int = T):
        shape = [B, steps, D, H]
        return compiler.call("benchmarks.programs:measure", name, target, chips, shape)

    return measure


@needs_wheels
@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_the_gradient_of_a_dense_cell(target, measure):
    row = measure("cell: LSTM", target)
    assert row["operations"] == LSTM_PRODUCTS
    assert row["loops"] == 4 and len(row["kernels"]) == 2  # chunks, with steps inside, both ways
    assert row["collectives"] == {}
    assert row["arguments"] >= 4 * (LSTM_PARAMETERS + B * T * D)


@needs_wheels
@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_the_gradient_over_eight_chips_has_one_sum_over_all(target, measure):
    row = measure("cell: LSTM", target, 8)
    assert row["collectives"] == {"all-reduce": 1}
    # The gradients and the value.
    assert row["wire_bytes"] == 4 * (LSTM_PARAMETERS + 1)
    assert row["operations"] == LSTM_PRODUCTS


@needs_wheels
@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_a_linear_cell_goes_by_what_is_best_there(target, measure):
    """The way is chosen for the platform that is compiled for. On this one it has loops."""
    assert measure("cell: MinGRU", target, steps=16)["loops"] == 0


@needs_wheels
@pytest.mark.parametrize(
    ("name", "target"), [("attention: dot product", "v5e"), ("cell: Retention", "h100")]
)
def test_an_attention_and_a_matrix_cell(name, target, measure):
    assert measure(name, target)["operations"] > 0


@needs_wheels
@pytest.mark.parametrize(("name", "target"), [("LSTM", "v5e"), ("GRU", "v5e"), ("LSTM", "h100")])
def test_the_fused_loop_of_a_cell(name, target, measure):
    row = measure(f"fused cell: {name}", target)
    assert row["unknown"] == 2 and row["loops"] == 0  # a kernel forward, and one back


FUSED = [(name, target) for name in PROGRAMS if "fused" in name for target in ("h100", "v5e")]
# A step without a carry is left to XLA on a GPU.
FUSED.remove(("fused cell: FeedForward", "h100"))


@needs_wheels
@pytest.mark.deep
@pytest.mark.parametrize(("name", "target"), FUSED)
def test_every_fused_loop(name, target, measure):
    row = measure(name, target)
    assert row["unknown"] == 2 and row["loops"] == 0


@needs_wheels
def test_a_compiler_that_ends_says_how():
    with Compiler() as compiler, pytest.raises(RuntimeError, match="ended with exit code 3"):
        compiler.call("os:_exit", 3)


def test_a_missing_compiler_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"expected compilers in .*python -m benchmarks\.targets"):
        Compiler()


@needs_wheels
def test_a_run_goes_on_where_it_was_cut(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiled, "RECORD", tmp_path / "compiled.jsonl")
    monkeypatch.setattr(compiled, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("<!-- compiled -->\n<!-- /compiled -->")
    calls = []

    def call(self, function, name, target, chips):
        calls.append((name, target, chips))
        if len(calls) == 2:
            raise RuntimeError("Traceback:\nno room")
        counts = {"operations": 5e9, "unknown": 0, "loops": 1, "kernels": [3], "wire_bytes": 0.0}
        sizes = {"shape": SHAPE, "arguments": 1, "outputs": 2, "temporary": 3_000_000}
        return {**sizes, **counts, "collectives": {}, "compile_s": 1.5}

    monkeypatch.setattr(Compiler, "call", call)
    argv = ["--only", "cell: LEM", "--targets", "h100", "v5e", "--record"]
    assert compiled.main([*argv, "--chips", "1"]) == 1
    first = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row.get("error") for row in first] == [None, "no room", None, None]
    table = (tmp_path / "README.md").read_text()
    assert "| cell: LEM | 16,64,8,32 | 5.0 / 5.0 / · |" in table
    assert "Did not compile: fused cell: LEM (h100)." in table
    assert compiled.main([*argv, "--chips", "1", "8"]) == 0
    # A fused loop is for one chip.
    again = [("fused cell: LEM", "h100", 1)]
    assert calls[4:] == [*again, ("cell: LEM", "h100", 8), ("cell: LEM", "v5e", 8)]
    assert "Did not compile" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--chips", "3"], "expected some of (1, 8, 64, 256), got [3]"),
        (["--only", "cell: LTSM"], "expected parts of cell: CoRNN"),
    ],
)
def test_bad_input(argv, expected, capsys):
    with pytest.raises(SystemExit) as left, plain_errors():
        compiled.main(argv)
    assert left.value.code == 2
    assert expected in capsys.readouterr().err


def test_the_table_is_that_of_the_recorded_lines():
    rows = compiled.read()
    assert rows and not any(row["dirty"] for row in rows)
    assert compiled.section(rows) in README.read_text("utf-8")


LOOP = """
ENTRY %main (a: f32[8,16]) -> f32[8,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %w.1 = (s32[], f32[8,16]{1,0:T(8,128)S(1)}) while(%t), condition=%c, body=%b
  %s = f32[2,3]{1,0} all-reduce(%x), to_apply=%add
}
"""


def test_loops_count_as_often_as_they_run():
    body = """
%b (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %h = f32[8,16]{1,0} get-tuple-element(%p), index=1
  %k = f32[16,16]{1,0} constant({...})
  %d = f32[8,16]{1,0} dot(%h, %k), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %n = s32[] add(%i, %one)
  %f = f32[8,16]{1,0} fusion(%d), kind=kLoop, calls=%tanh
}
%c (p: (s32[], f32[8,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}
"""
    text = body + LOOP.replace("%s =", "%x = bf16[2,3]{1,0} parameter(1)\n  %s =")
    counts = hlo.count(text)
    assert counts.operations == 7 * 2 * 8 * 16 * 16
    assert counts.kernels == [2] and counts.loops == 1
    assert counts.collectives == {"all-reduce": 1} and counts.wire_bytes == 12


def test_a_product_per_row_is_a_convolution_of_which_most_is_padding():
    """As a TPU writes a product with an axis of the batch: one of three rows meets each kernel."""
    text = """
ENTRY %main (x: f32[3,8,16]) -> f32[3,8,32] {
  %x = f32[3,8,16]{2,1,0} parameter(0)
  %k = f32[3,16,32]{2,1,0} parameter(1)
  %y = f32[3,8,32]{2,1,0} convolution(%x, %k), window={size=3 stride=2 pad=2_2 lhs_dilate=3}, \
dim_labels=0bf_0io->0bf
}
"""
    assert hlo.count(text).operations == 3 * 2 * 8 * 16 * 32


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="without ENTRY"):
        hlo.count("HloModule nothing")
