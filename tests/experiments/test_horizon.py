"""The horizon within one budget, and what a step is said to cost."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks.hlo import count
from experiments.harness.rates import folder
from experiments.memory import curriculum, horizon
from longlag.report import figure
from longlag.training.curriculum import lags_of, step_operations

ROW = {
    "arm": "GRU",
    "kind": "dense",
    "parameters": 10,
    "state_bytes": 8,
    "steps": 40,
    "budget": 40,
    "rate": 0.003,
    "seconds": 2.0,
    "solved_at": None,
}


def row(seed: int, lag: int, trained: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return ROW | {
        "seed": seed,
        "lag": lag,
        "train_lag": trained,
        "horizon": trained,
        "accuracy": accuracy,
        "spent": 1e9,
        **more,
    }


RESULTS = {
    "threshold": 0.95,
    "rows": [
        *(row(0, lag, 16, x) for lag, x in ((16, 1.0), (32, 0.9), (64, 0.5), (256, 0.1))),
        *(row(1, lag, 64, x) for lag, x in ((64, 1.0), (128, 0.8), (256, 0.7), (1024, 0.2))),
    ],
    "trials": [{"rate": 0.003, "spent": 2e8, "seconds": 1.0}],
    "meta": {"core_hours": 0.25},
}


def test_the_frontiers_of_a_run_become_its_line(tmp_path: Path):
    curves = [
        {
            "seed": 0,
            "steps": [20, 40],
            "spent": [4e8, 1e9],
            "reached": [1, 2],
            "frontier": [16, 32],
        },
        {"seed": 1, "steps": [20, 40], "spent": [5e8, 1e9], "reached": [0, 1], "frontier": [8, 16]},
    ]
    path = tmp_path / folder("GRU")
    path.mkdir()
    (path / "results.json").write_text(json.dumps({"curves": curves}))
    arms = {"GRU": horizon.experiment("copy", "cpu", "GRU")}
    found = horizon.measure_more(arms, [], tmp_path)["frontiers"]  # type: ignore[arg-type]
    # The lag that was solved is the frontier of the validation, not the one after it.
    assert [(point["seed"], point["lag"], point["spent"]) for point in found] == [
        (0, 16, 4e8),
        (0, 16, 1e9),
        (1, 8, 1e9),
    ]
    found = [
        {"arm": "GRU", "seed": 0, "lag": 16, "spent": 4e8},
        {"arm": "GRU", "seed": 1, "lag": 32, "spent": 6e8},
        {"arm": "GRU", "seed": 1, "lag": 64, "spent": 8e8},
    ]
    results = RESULTS | {"frontiers": found}
    (line,) = horizon.lines(results)
    cells = dict(zip(horizon.COLUMNS, line, strict=True))
    assert cells["horizon"] == "40 (16–64)" and cells["operations to the horizon"] == "6e+08"
    assert [cells[c] for c in ("solved at 1×", "2×", "4×", "16×")] == [
        "1.00",
        "0.85 (0.80–0.90)",
        "0.60 (0.50–0.70)",
        "0.15 (0.10–0.20)",
    ]
    assert "1.0e+09 operations" in horizon.verdict(results)
    assert "took 2.0e+08 operations beside the 2.0e+09" in horizon.verdict(results)
    plot = horizon.figure(results)
    assert figure(plot.results, plot.kind).axes


def test_hybrids_are_taken_apart_at_their_horizon_and_mended_beyond_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[Any] = []

    def note(kind: str) -> Any:
        def measure(run: Path, lags: Any, times: int = 1) -> list[dict[str, Any]]:
            calls.append((kind, run.name, lags, times))
            names = ("none", "carry reset") if kind == "knock-out" else ("none", "no positions")
            return [
                {"seed": seed, "part": part, "lag": lag * times, "accuracy": 0.5}
                for part in names
                for seed, lag in lags.items()
            ]

        return measure

    monkeypatch.setattr(horizon, "knock_outs", note("knock-out"))
    monkeypatch.setattr(horizon, "beyond", note("beyond"))
    names = ("GRU", "GRU + attention", "attention only, ALiBi", "LSTM + attention")
    jobs = {arm: horizon.experiment("copy", "cpu", arm) for arm in names}
    rows = [row(seed, 16, 16, 1.0, arm=arm) for arm in names for seed in (0, 1)]
    rows[-2]["horizon"] = rows[-1]["horizon"] = rows[3]["horizon"] = 0
    monkeypatch.setattr(horizon, "_frontiers", lambda jobs, out: [])
    more = horizon.measure_more(jobs, rows, tmp_path)
    assert calls == [
        ("knock-out", "gru-attention", {0: 16}, 1),
        ("beyond", "gru-attention", {0: 16}, 4),
        ("beyond", "attention-only-alibi", {0: 16, 1: 16}, 4),
    ]
    lines = horizon.intervention_lines(more)
    cells = [dict(zip(horizon.INTERVENTION_COLUMNS, line, strict=True)) for line in lines]
    assert [(line["arm"], line["at"]) for line in cells] == [
        ("GRU + attention", "1×"),
        ("GRU + attention", "4×"),
        ("attention only, ALiBi", "4×"),
    ]
    assert cells[0]["carry reset"] == "0.50" and cells[0]["no positions"] == ""
    assert cells[1]["carry reset"] == "" and cells[1]["no positions"] == "0.50"


def test_arms_with_and_without_a_curriculum_are_compared_at_the_full_lag():
    rows = [
        *(row(seed, 64, 64, 0.2, horizon=None) for seed in (0, 1)),
        *(row(0, lag, 16, 0.4, arm="GRU, curriculum") for lag in (16, 64)),
        row(1, 64, 64, 1.0, arm="GRU, curriculum"),
    ]
    for mine in rows[:2]:
        del mine["horizon"]
    table = {line[0]: line for line in curriculum.lines(RESULTS | {"rows": rows})}
    assert table["GRU"][1:4] == ("0.20", "0/2", "")
    assert table["GRU, curriculum"][1:4] == ("0.70 (0.40–1.00)", "1/2", "40 (16–64)")


@pytest.mark.parametrize("name", horizon.SETTINGS)
@pytest.mark.parametrize("size", horizon.SCALES)
def test_every_lag_of_a_curriculum_is_possible(name: str, size: Any):
    setting, scale = horizon.SETTINGS[name], horizon.SCALES[size]
    job = horizon.experiment(name, size, "GRU")
    assert job.training.budget == scale.budget and job.seeds == 5
    lags = lags_of(job.task, job.training)
    assert lags[0] == setting.first and lags[-1] == 4096 * scale.times
    assert all(job.task.at_lag(lag).time_steps >= lag for lag in lags)


def test_every_claim_names_arms_of_the_question():
    names = horizon.arms("copy", "cpu")
    assert {*horizon.HYBRIDS} <= {*names}
    text = (Path(horizon.__file__).parent / "horizon_claims.md").read_text(encoding="utf-8")
    claims = [line for line in text.splitlines() if line.startswith("| ") and ". " in line]
    assert len(claims) == 8
    assert {f"`{task}`" in text for task in ("copy", "parity", "words", "look-up")} == {True}


@pytest.mark.deep
def test_the_operations_of_a_step_are_near_those_of_its_compiled_products():
    """XLA counts products; the formula counts what else a token costs too."""
    environment = os.environ | {"LONGLAG_KERNELS": "0"}
    done = subprocess.run(
        (sys.executable, "-m", "tests.experiments.test_horizon"),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    shares = json.loads(done.stdout.splitlines()[-1])
    assert {*shares} == {*horizon.arms("copy", "cpu")}
    outside = {arm: share for arm, share in shares.items() if not 0.7 < share < 1.7}
    assert outside == {}


def _shares() -> dict[str, float]:
    """The operations of a step as a share of what its compiled program multiplies and adds."""
    from longlag.training.step import _loss

    shares = {}
    for arm in horizon.arms("copy", "cpu"):
        job = horizon.experiment("copy", "cpu", arm)
        task, model = job.task.at_lag(44), job.model
        training = dataclasses.replace(job.training, batch_size=4)
        params = jax.eval_shape(model.init, jax.random.key(0))
        batch = jax.eval_shape(lambda task=task: task.sample(jax.random.key(0), 4))

        def gradient(params: Any, batch: Any, model=model, task=task, training=training) -> Any:
            def loss(params: Any) -> Any:
                return _loss(model, task, training, params, batch, jax.random.key(0), None, None)[0]

            return jax.value_and_grad(loss)(params)

        text = jax.jit(gradient).lower(params, batch).compile().as_text()
        assert text
        shares[arm] = step_operations(model, task, training) / count(text).operations
    return shares


if __name__ == "__main__":
    print(json.dumps(_shares()))
