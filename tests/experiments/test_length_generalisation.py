"""Streaming far beyond the trained length counts what whole strings would."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.rates import folder
from experiments.memory import length_generalisation
from experiments.memory.length_generalisation import CHUNK, KEY, columns, lines, main, stretch
from longlag import LSTM
from longlag.cli.arguments import plain_errors
from longlag.models import build
from longlag.runs import carry_out, create
from tests.helpers.tiny import PARITY

pytestmark = pytest.mark.usefixtures("shared_compilations")


@pytest.mark.parametrize(
    ("cell", "attention", "at_once"), [(LSTM(8), "none", 51), (None, "full", 20)]
)
def test_streamed_strings_are_answered_as_whole_ones(cell, attention, at_once: int):
    model = build(
        inputs="tokens", in_features=2, out_features=2, width=8, cell=cell, attention=attention
    )
    params = model.init(jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    found, nan = stretch(model, params, 512, 51, at_once)
    assert not any(nan.values())
    assert list(found) == [128, 256, 512]
    # The same bits: a key for each power of two, folded with the number of the chunk.
    bits, done = [], 0
    for length in found:
        key = jax.random.fold_in(jax.random.key(KEY), length)
        for i in range((length - done) // CHUNK):
            drawn = jax.random.bits(jax.random.fold_in(key, i), (51, CHUNK), jnp.uint32)
            bits.append(np.asarray(drawn) // 2**31)
        done = length
    strings = np.concatenate(bits, axis=1)
    assert 0.45 < strings.mean() < 0.55
    answers = np.asarray(jax.jit(model.apply)(params, strings.astype(np.int32))[1]).argmax(-1)
    odd = strings.cumsum(axis=1) % 2
    expected = {n: int((answers[:, n - 1] == odd[:, n - 1]).sum()) for n in found}
    assert found == expected and 0 < found[512] < 51


def test_from_a_finished_run_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs, arm = tmp_path / "track", "minGRU"
    job = dataclasses.replace(PARITY, first_seed=2)
    carry_out(job, create(job, runs / folder(arm), tmp_path, "run"))
    out = tmp_path / "out"
    assert main((arm,), longest=256, sequences=8, runs=runs, out=out) == 0
    results = json.loads((out / "results.json").read_text())
    said = f"--arms minGRU --longest 256 --sequences 8 --runs {runs}"
    assert (
        results["meta"]["command"] == f"python -m experiments.memory.length_generalisation {said}"
    )
    assert [(r["seed"], r["length"]) for r in results["rows"]] == [
        (seed, length) for seed in (2, 3) for length in (128, 256)
    ]
    assert columns(results) == ("arm", "128", "256", "state at the longest")
    assert "resumed" not in results["meta"]
    # Again: what is there is kept, unless it is asked for otherwise.
    made = length_generalisation.rows_of
    asked = []
    monkeypatch.setattr(
        length_generalisation, "rows_of", lambda *args: asked.append(args) or made(*args)
    )
    assert main((arm,), longest=256, sequences=8, runs=runs, out=out) == 0 and not asked
    again = json.loads((out / "results.json").read_text())
    assert again["rows"] == results["rows"] and again["meta"]["resumed"]
    # A lost seed is measured again, alone; one of the two may be asked for without the other.
    (out / folder(arm) / "seed-3.json").unlink()
    assert main((arm,), longest=256, sequences=8, runs=runs, out=out) == 0
    assert [args[2] for args in asked] == [3]
    assert main((arm,), 256, 8, 1, runs, out) == 0 and len(asked) == 1
    fewer = json.loads((out / "results.json").read_text())
    assert {row["seed"] for row in fewer["rows"]} == {2}
    assert "--sequences 8 --seeds 1 --runs" in fewer["meta"]["command"]
    assert main((arm,), longest=128, sequences=8, runs=runs, out=out) == 0 and len(asked) == 3
    (line,) = lines(results)
    right = min(r["right"] for r in results["rows"] if r["length"] == 256)
    assert line[0] == arm and line[2].startswith(f"{right / 8:.2f} (")


def test_a_growing_state_is_not_run_beyond_its_cache():
    made = {"train_length": 40, "state_bytes": 64, "seconds": 1.0, "sequences": 4, "seed": 0}
    rows = [{"arm": "a", "length": n, "right": 4} | made for n in (128, 256)]
    rows += [{"arm": "b", "length": 128, "right": 2} | made]
    table = lines({"rows": rows})
    assert table[1][1].startswith("0.50 (") and table[1][2] == "not run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 1000}, "power of two"),
        ({"seeds": 0}, "--seeds: expected"),
        ({"arms": ("LSTN",)}, "LSTM"),
        ({}, "first run"),
    ],
)
def test_bad_input(options, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as error, plain_errors():
        main(**options, runs=tmp_path)
    assert error.value.code == 2 and message in capsys.readouterr().err
    assert length_generalisation.CACHED == 8192
