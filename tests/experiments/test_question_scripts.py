"""The scripts that put a question to many arms: possible arms, and the climb from lag to lag."""

from __future__ import annotations

import ast
import functools
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

import experiments
from experiments.harness import questions
from experiments.harness.discovery import recorded_questions, scripts
from experiments.harness.questions import Question
from experiments.harness.smoke import commands
from experiments.memory import (
    attention_vs_recurrence,
    family,
    horizon,
    lag_horizon,
    recall_capacity,
)
from experiments.real_data import speech

FOLDER = Path(experiments.__path__[0])


def asked_by(name: str, module: ModuleType) -> dict[str, Callable[[Any], Question]]:
    """The questions of `script(...)`, by script and part."""
    return {f"{name} {part}".strip(): asked for part, asked in module.QUESTIONS.items()}


# Those of the flagships and of the family have tests of their own.
ASKED: dict[str, Callable[[Any], Question]] = {
    name: asked
    for script, module in scripts().items()
    if hasattr(module, "QUESTIONS") and module not in (attention_vs_recurrence, family, horizon)
    for name, asked in asked_by(script, module).items()
} | {
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


def taken_from_questions(file: Path) -> set[str]:
    """What a file imports from `experiments.harness.questions`."""
    return {
        alias.name
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == questions.__name__
        for alias in node.names
    }


def test_every_script_is_discovered():
    files = [path for path in FOLDER.rglob("*.py") if path.parent.name != "harness"]
    runs = {"script", "ask", "measure", "show"}
    asking = [path.relative_to(FOLDER) for path in files if taken_from_questions(path) & runs]
    names = {".".join(("experiments", *path.with_suffix("").parts)) for path in asking}
    # The demo runs in `longlag.cli`.
    assert names == {*scripts()} - {"experiments.demo", "tests.peers.agreement"}


def test_a_script_that_only_asks_is_recorded_under_its_name(monkeypatch: pytest.MonkeyPatch):
    asked = {"": lambda size: Question(f"Which, on a {size}?", {}, 0.5)}
    module = ModuleType("experiments.memory.my_question")
    module.QUESTIONS = asked  # type: ignore[attr-defined]
    both = {**scripts(), module.__name__: module}
    recorded_questions.cache_clear()
    monkeypatch.setattr("experiments.harness.discovery.scripts", lambda: both)
    try:
        *_, last = recorded_questions().values()
    finally:
        recorded_questions.cache_clear()
    assert (last.name, last.title) == ("my-question", "Which, on a cpu?")
    assert last.results() is None


class BuiltError(Exception):
    """Carries a question out of the script that was about to run it."""


SMOKE = [command[2] for command in commands(Path("nowhere"))]


def test_smoke_leaves_out_what_says_so():
    assert {*scripts()} - {*SMOKE} == {
        "experiments.demo",
        "experiments.memory.family",
        "experiments.memory.length_generalisation",
        "tests.peers.agreement",
    }


@pytest.mark.parametrize("module", SMOKE)
def test_its_smoke_preset_builds(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def measure(question: Question, *_: Any, **__: Any) -> None:
        raise BuiltError(question)

    monkeypatch.setattr(questions, "run_arms", measure)
    monkeypatch.setattr(sys, "argv", [module, "--preset", "smoke", "--out", str(tmp_path)])
    with pytest.raises(BuiltError) as built, pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, module)  # `runpy` warns of a module that is there
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    (question,) = built.value.args
    for job in question.arms.values():
        assert job.training.steps <= 20 and job.seeds == 1
        assert jax.eval_shape(job.model.init, jax.random.key(0))


def test_the_arms_of_a_family_differ_in_their_state():
    arms = recall_capacity.question("cpu").arms
    sizes = {name: job.model.cost(job.task.time_steps).state_bytes for name, job in arms.items()}
    for kind in ("LSTM", "DeltaNet", "window"):
        of_family = [size for name, size in sizes.items() if name.startswith(kind)]
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

    monkeypatch.setattr(lag_horizon, "run_arms", measure)
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
    assert "3 times the steps. This was not done yet for LSTM." in lag_horizon.verdict(results)


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
