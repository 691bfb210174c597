"""A grid of learning rates in one run: every pair of a rate and a seed is as in a run alone."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from longlag import load, train
from longlag.cli import compare
from longlag.cli.report import Run, results_of_runs
from longlag.runs import Experiment, carry_out, create
from longlag.runs.metric_logs import _by_step, _test_scores
from longlag.training import Training
from tests.helpers.tiny import OPTIONS, PARITY

RATES = (1e-2, 3e-2, 1e-1)
DEFAULT_RATE = dataclasses.replace(PARITY.training, learning_rate=Training.learning_rate)
GRID = dataclasses.replace(PARITY, training=DEFAULT_RATE, rates=RATES, first_seed=1)


def run(experiment: Experiment, path: Path) -> dict[str, Any]:
    results = carry_out(experiment, create(experiment, path))
    assert results is not None
    return results


def without(line: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in keys}


def test_a_pair_has_the_bits_of_a_run_at_its_rate(tmp_path: Path):
    together = run(GRID, tmp_path / "grid")
    grid, lines, varying = load(tmp_path / "grid"), grid_lines(tmp_path / "grid"), ("seconds",)
    for rate in RATES:
        own = dataclasses.replace(DEFAULT_RATE, learning_rate=rate)
        path = tmp_path / f"{rate:g}"
        alone = run(dataclasses.replace(GRID, training=own, rates=()), path)
        at_rate = {"rate": rate, "arm": f"LSTM, rate {rate:g}"}
        for part in ("rows", "curves", "by_lag"):
            assert [without(row, *varying) for row in together[part] if row["rate"] == rate] == [
                without(row, *varying) | at_rate for row in alone[part]
            ]
            assert not any("rate" in row for row in alone[part])
        assert [without(line, *varying) for line in lines if line["rate"] == rate] == [
            without(line, *varying) | {"rate": rate} for line in grid_lines(path)
        ]
        for seed in GRID.seed_numbers:
            one, other = grid.of_seed(seed, rate), load(path).of_seed(seed)
            jax.tree.map(np.testing.assert_array_equal, one, other)
    assert all(row["seconds"] > 0 for row in together["rows"])


def test_side_by_side_the_number_of_states_changes_rounding_alone():
    training = dataclasses.replace(DEFAULT_RATE, seeds_as="vmap")
    together, _ = train(PARITY.model, PARITY.task, training, seeds=2, rates=RATES)
    for k, rate in enumerate(RATES):
        own = dataclasses.replace(training, learning_rate=rate)
        alone, _ = train(PARITY.model, PARITY.task, own, seeds=2)
        of_rate = jax.tree.map(lambda leaf, k=k: leaf[2 * k : 2 * k + 2], together.params)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6)
        jax.tree.map(close, of_rate, alone.params)


def grid_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_in_memory_has_the_grid_too(tmp_path: Path):
    states, lines = train(PARITY.model, PARITY.task, DEFAULT_RATE, seeds=2, rates=RATES)
    assert states.rate.shape == (6,) and states.seed.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(states.rate, np.repeat(np.float32(RATES), 2))
    assert [(line["rate"], line["seed"]) for line in lines[:6]] == [
        (rate, seed) for rate in RATES for seed in (0, 1)
    ]
    with pytest.raises(ValueError, match="no effect beside rates"):
        train(PARITY.model, PARITY.task, PARITY.training, rates=RATES)


def test_the_configuration_has_a_grid_only_where_there_is_one():
    assert "rates" not in PARITY.config()
    plain = json.loads(json.dumps(GRID.config(), default=vars))
    assert plain["rates"] == list(RATES)
    without_grid = dataclasses.replace(GRID, rates=())
    assert GRID != without_grid and "rates" not in without_grid.config()


@pytest.mark.parametrize(
    "rates, message",
    [((1e-3, 0.0), "more than 0"), ((1e-3, 1e-3), "each rate once"), ((1e-3, -1.0), "more than 0")],
)
def test_an_impossible_grid_is_refused(rates: tuple[float, ...], message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GRID, rates=rates)


def test_the_grid_and_a_rate_beside_it_are_refused():
    with pytest.raises(ValueError, match="no effect beside rates"):
        dataclasses.replace(PARITY, rates=RATES)


def test_the_command_line_stops_resumes_and_reports_a_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    at = OPTIONS.index("--learning-rate")
    options = [*OPTIONS[:at], *OPTIONS[at + 2 :], "--rates", "1e-2", "3e-2"]
    folder = tmp_path / "grid"
    assert compare.main([*options, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "rate 0.01" in printed and "rate 0.03" in printed
    assert compare.main(["--resume", str(folder), "--steps", "25"]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert {row["steps"] for row in results["rows"]} == {25}
    assert {(row["seed"], row["rate"]) for row in results["rows"]} == {
        (seed, rate) for seed in (0, 1) for rate in (1e-2, 3e-2)
    }
    with pytest.raises(ValueError, match="rates: expected"):
        compare.main(["--resume", str(folder), "--rates", "1e-2"])
    loaded = load(folder)
    with pytest.raises(ValueError, match="rate: expected one of"):
        loaded.of_seed(0, 0.5)
    page = results_of_runs([Run(folder, loaded.experiment, results)] * 2)
    assert {row["arm"].rpartition(", rate ")[2] for row in page["rows"] if row.get("rate")} == {
        "0.01",
        "0.03",
    }
    # Of two seeds at two rates no metric hides another.
    lines = grid_lines(folder)
    (_, first), *_ = _by_step(lines)
    assert {name for name in first if name.startswith("loss/")} == {
        f"loss/rate_{rate}/seed_{seed}" for rate in ("0.01", "0.03") for seed in (0, 1)
    }
    assert len(_test_scores(results)[1]) == 3 * len(results["rows"])


def test_a_run_without_a_grid_has_no_rate(tmp_path: Path):
    run(PARITY, tmp_path / "run")
    with pytest.raises(ValueError, match="rate: expected none"):
        load(tmp_path / "run").of_seed(0, 1e-2)
