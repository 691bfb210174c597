"""The scripts that put a question to many arms: possible arms, and the climb from lag to lag."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import pytest

from experiments.memory import (
    attention_kinds,
    lag_horizon,
    recall_capacity,
    selective_copy,
    state_tracking,
)
from experiments.real_data import speech

ASKED = {
    "selective-copy": selective_copy.question,
    "recall-capacity": recall_capacity.question,
    "attention-kinds": attention_kinds.question,
    **{f"state-tracking-{name}": asked for name, asked in state_tracking.QUESTIONS.items()},
    "speech": lambda size: speech.question(speech.PRESETS["full"]),
    "lag-horizon": functools.partial(lag_horizon.question, 32),
}


@pytest.mark.parametrize("size", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ASKED)
def test_every_arm_is_possible(name: str, size: str):
    asked = ASKED[name](size)
    assert asked.grid and asked.title.endswith("?")
    for job in asked.arms.values():
        assert not job.training.stop_when_solved and job.seeds == 5
        params = jax.eval_shape(job.model.init, jax.random.key(0))
        assert params["head"]["kernel"].shape[1] == job.task.out_features


def test_every_script_of_a_question_is_here_and_in_make_smoke():
    texts = {path.stem: path.read_text() for path in Path("experiments").glob("*.py")}
    scripts = {name for name, text in texts.items() if "\n    script(" in text}
    here = {
        name for name in scripts if any(key.startswith(name.replace("_", "-")) for key in ASKED)
    }
    assert scripts - here == {"attention_vs_recurrence"}  # test_attention_vs_recurrence.py
    asking = {
        name for name, text in texts.items() if "experiments.harness.questions import" in text
    }
    smoke = Path("Makefile").read_text().partition("\nsmoke:")[2].partition("\n\n")[0]
    # What a new cell is asked, what takes models that another script trained, what has no arms.
    left_out = {"family", "length_generalisation", "agreement", "diagnose"}
    assert {name for name in asking if name not in smoke} == left_out


def test_the_arms_of_a_family_differ_in_their_state():
    arms = recall_capacity.question("cpu").arms
    sizes = {name: job.model.cost(job.task.time_steps).state_bytes for name, job in arms.items()}
    for family in ("LSTM", "DeltaNet", "window"):
        of_family = [size for name, size in sizes.items() if name.startswith(family)]
        assert len(of_family) >= 3 and of_family == sorted(set(of_family))


def climbed(
    monkeypatch: pytest.MonkeyPatch, horizons: dict[str, int], seeds: int = 3, probe: bool = True
):
    """Rows, trials and the sweeps made, if every arm recalls up to its horizon."""
    made: list[tuple[str, dict[str, tuple[int, int, float]]]] = []

    def measure(question, out: Path, workers: int):
        sweep = {}
        rows = []
        for arm, job in question.arms.items():
            sweep[arm] = (job.training.steps, job.first_seed, job.training.learning_rate)
            held = job.task.lag <= horizons[arm]
            for seed in range(seeds):
                # The last seed always fails: two of three are most.
                good = held and seed < seeds - 1
                row = {"arm": arm, "seed": seed, "lag": job.task.lag, "train_lag": job.task.lag}
                cost = {"parameters": 10, "state_bytes": job.task.lag, "seconds": 1.0}
                found = {"accuracy": float(good), "budget": job.training.steps, "rate": 1e-3}
                rows.append(row | cost | found)
        made.append((out.name, sweep))
        return question.arms, rows, [{"arm": "x"}] if question.grid else []

    monkeypatch.setattr(lag_horizon, "measure", measure)
    options = lag_horizon.Climb(arms=tuple(horizons), probe=probe)
    rows, trials = lag_horizon.climb(options, (32, 64, 128), "cpu", Path("nowhere"))
    return rows, trials, made


def test_an_arm_climbs_until_it_fails_and_is_probed_there(monkeypatch: pytest.MonkeyPatch):
    rows, trials, made = climbed(monkeypatch, {"LSTM": 64, "minGRU": 16, "LSTM + attention": 512})
    assert [(folder, [*sweep]) for folder, sweep in made] == [
        ("lag-32", ["LSTM", "minGRU", "LSTM + attention"]),
        ("lag-32-probe", ["minGRU"]),
        ("lag-64", ["LSTM", "LSTM + attention"]),
        ("lag-128", ["LSTM", "LSTM + attention"]),
        ("lag-128-probe", ["LSTM"]),
    ]
    assert made[1][1]["minGRU"][0] == 3 * made[0][1]["minGRU"][0]
    assert len(trials) == 1, "rates are chosen at the first lag alone"
    results = {"rows": rows, "threshold": 0.95, "meta": {"core_hours": 1.0}}
    columns = lag_horizon.columns(results)
    table = [dict(zip(columns, line)) for line in lag_horizon.lines(results)]
    assert [line["horizon"] for line in table] == ["64", "< 32", "≥ 128"]
    assert [line["state"] for line in table] == ["64 B", "32 B", "128 B"]
    assert table[1]["lag 32"] == "0.00; 3×: 0.00" and table[1]["lag 64"] == ""
    assert "9,000" not in lag_horizon.verdict(results)


def test_a_probe_may_be_left_for_later(monkeypatch: pytest.MonkeyPatch):
    rows, _, made = climbed(monkeypatch, {"LSTM": 64, "LSTM + attention": 512}, probe=False)
    assert [folder for folder, _ in made] == ["lag-32", "lag-64", "lag-128"]
    results = {"rows": rows, "threshold": 0.95, "meta": {"core_hours": 1.0}}
    table = [dict(zip(lag_horizon.columns(results), line)) for line in lag_horizon.lines(results)]
    assert [line["horizon"] for line in table] == ["64", "≥ 128"]
    assert "3 times the steps, LSTM not yet." in lag_horizon.verdict(results)


def test_a_climb_is_had_in_parts():
    assert lag_horizon.Climb(longest=128).lags == (32, 64, 128)
    assert lag_horizon.Climb(preset="gpu").lags[-1] == 2048
    assert lag_horizon.Climb(preset="smoke", longest=64).lags == (32,)
    with pytest.raises(ValueError, match=r"--longest: expected one of \(32, .*got 100"):
        _ = lag_horizon.Climb(longest=100).lags


def test_a_lag_tells_only_one_arm():
    told = {
        arm: [lag_horizon.question(lag, "cpu").arms[arm].cell for lag in (32, 64)]
        for arm in ("LSTM", "LSTM, told the lag", "LSTM, not told")
    }
    assert {arm for arm, (one, other) in told.items() if one != other} == {"LSTM, told the lag"}
