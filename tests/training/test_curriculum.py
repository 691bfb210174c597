"""A curriculum over the lag, and budgets of operations."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, LSTM
from longlag.runs import Architecture, EncoderDecoder, Experiment, carry_out, load
from longlag.runs.lifecycle import extend
from longlag.system.interrupt import Interruption
from longlag.tasks import CopyMemory, Dates, FirstInput
from longlag.training import (
    Training,
    curriculum,
    evaluate,
    evaluation,
    evaluation_batch,
    train,
)
from longlag.training.curriculum import lags_of, plan, spent, stages_of, step_operations
from longlag.training.step import Curriculum, init_states
from tests.helpers.tiny_runs import new, without_times

# The threshold is near what guessing reaches, so that some seeds move on in a few steps.
TRAINING = Training(
    batch_size=4,
    dispatch=4,
    eval_size=8,
    solved=0.3,
    stop_when_solved=False,
    learning_rate=1e-2,
    budget=4.5e5,
    curriculum=2,
)
CLIMB = Experiment(FirstInput(lag=6), GRU(4), Architecture(width=4, depth=1), TRAINING, seeds=2)

pytestmark = pytest.mark.usefixtures("shared_compilations")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = new(tmp_path_factory.mktemp("climb") / "run", CLIMB)
    return folder, carry_out(CLIMB, folder)


def states_of(training: Training, reached: list[int], steps: list[list[int]]) -> Any:
    """States on the host, of seeds that have come so far."""
    states = init_states(CLIMB.model, training, len(reached), lags=len(steps[0]))
    states = states.replace(
        step=jnp.asarray(steps, jnp.int32).sum(1),
        curriculum=Curriculum(jnp.asarray(reached, jnp.int32), jnp.asarray(steps, jnp.int32)),
    )
    return jax.device_get(curriculum.without_weights(states))


@pytest.mark.parametrize(
    ("first", "last", "lags"), [(4, 32, (4, 8, 16, 32)), (3, 20, (3, 6, 12, 20)), (5, 5, (5,))]
)
def test_lags_double_up_to_that_of_the_task(first: int, last: int, lags: tuple[int, ...]):
    assert lags_of(CopyMemory(lag=last), Training(curriculum=first)) == lags


def test_half_of_the_batches_are_at_the_frontier():
    stages = stages_of(CLIMB.model, CLIMB.task, TRAINING)
    drawn, begun = collections.Counter(), states_of(TRAINING, [0, 1, 2, 3], [[0, 0, 0]] * 4)
    for step in range(0, 1200, 4):
        now = begun.replace(step=np.full(4, step, np.int32))
        drawn.update(enumerate(plan(now, stages, TRAINING).at.tolist()))
    assert drawn[0, 0] == 300  # nothing is before the first lag
    assert 120 < drawn[1, 1] < 180 and 120 < drawn[1, 0] < 180
    # The last lag is the frontier whether or not it has been solved.
    for seed in (2, 3):
        assert 120 < drawn[seed, 2] < 180
        assert 45 < drawn[seed, 1] < 105 and 45 < drawn[seed, 0] < 105


def test_a_budget_ends_a_seed_at_the_last_step_that_it_pays_for(whole):
    _, found = whole
    stages = stages_of(CLIMB.model, CLIMB.task, TRAINING)
    cheapest, dearest = stages[0].operations, stages[-1].operations
    assert cheapest < dearest
    for row in found["rows"]:
        assert TRAINING.budget - dearest < row["spent"] <= TRAINING.budget
    now = states_of(TRAINING, [0, 0], [[3, 0, 0], [4, 0, 0]])
    enough = dataclasses.replace(TRAINING, budget=4.9 * cheapest)
    assert plan(now, stages, enough).until.tolist() == [4, 4]
    assert spent(now, stages).tolist() == [3 * cheapest, 4 * cheapest]


def test_without_a_curriculum_a_budget_is_a_number_of_steps(tmp_path: Path):
    training = dataclasses.replace(TRAINING, curriculum=0)
    step = step_operations(CLIMB.model, CLIMB.task, training)
    job = dataclasses.replace(CLIMB, training=dataclasses.replace(training, budget=5.5 * step))
    found = carry_out(job, new(tmp_path / "run", job))
    assert found is not None
    assert {(row["steps"], row["spent"]) for row in found["rows"]} == {(5, 5 * step)}


def test_a_frontier_moves_when_its_lag_is_solved(whole):
    folder, found = whole
    lags = lags_of(CLIMB.task, TRAINING)
    for seed, curve in enumerate(found["curves"]):
        reached = 0
        for accuracy, now, frontier in zip(
            curve["accuracy"], curve["reached"], curve["frontier"], strict=True
        ):
            reached = min(reached + (accuracy >= TRAINING.solved), len(lags))
            assert (now, frontier) == (reached, lags[min(reached, len(lags) - 1)])
        trained = lags[max(reached - 1, 0)]
        of_seed = [row for row in found["rows"] if row["seed"] == seed]
        assert [row["lag"] for row in of_seed] == [times * trained for times in (1, 2, 4, 16)]
        assert {row["train_lag"] for row in of_seed} == {trained}
        assert {row["horizon"] for row in of_seed} == {trained if reached else 0}
    # Both ways of the test are there: a seed that moved on, at different times.
    assert max(curve["reached"][-1] for curve in found["curves"]) > 0
    assert load(folder.path).step == found["curves"][0]["steps"][-1]


def test_a_seed_is_on_its_own(whole, tmp_path: Path):
    lines = without_times(whole[0]).splitlines()
    others = dataclasses.replace(CLIMB, first_seed=1)
    folder = new(tmp_path / "run", others)
    found = carry_out(others, folder)
    assert found is not None

    def of_seed(lines: list[bytes]) -> list[bytes]:
        return [line for line in lines if b'"seed": 1' in line]

    assert of_seed(without_times(folder).splitlines()) == of_seed(lines)
    kept = ("lag", "train_lag", "accuracy", "loss", "steps", "spent", "horizon")
    mine, theirs = (
        [[row[key] for key in kept] for row in rows if row["seed"] == 1]
        for rows in (found["rows"], whole[1]["rows"])
    )
    assert mine == theirs and len(mine) == 4


def test_a_run_that_was_cut_leaves_the_same_numbers(whole, tmp_path: Path):
    folder, stop = new(tmp_path / "run", CLIMB), Interruption()

    def told(report: Any) -> None:
        stop.signal = 15 if report.step == 12 else None

    assert carry_out(CLIMB, folder, stop=stop, on_progress=told) is None
    found = carry_out(CLIMB, folder)
    assert without_times(folder) == without_times(whole[0])
    for mine, theirs in zip(found["rows"], whole[1]["rows"], strict=True):
        assert mine | {"seconds": 0} == theirs | {"seconds": 0}


def test_no_test_set_is_drawn_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events = []

    def draw(task: Any, size: int, purpose: Any, *rest: Any) -> Any:
        events.append(purpose)
        return evaluation_batch(task, size, purpose, *rest)

    monkeypatch.setattr(curriculum, "evaluation_batch", draw)
    monkeypatch.setattr("longlag.runs.result_rows.evaluation_batch", draw)
    carry_out(
        CLIMB, new(tmp_path / "run", CLIMB), on_progress=lambda report: events.append("trained")
    )
    first, last = events.index("test"), len(events) - 1 - events[::-1].index("trained")
    assert first > last and events[0] == "validation"


def test_a_larger_budget_goes_on(tmp_path: Path):
    half = dataclasses.replace(CLIMB, training=dataclasses.replace(TRAINING, budget=2e5))
    folder = new(tmp_path / "run", half)
    carry_out(half, folder)
    steps = folder.metrics()[-1]["step"]
    folder = extend(CLIMB, folder)
    assert folder.config["training"]["budget"] == TRAINING.budget
    found = carry_out(CLIMB, folder)
    assert folder.metrics()[-1]["step"] > steps
    assert found is not None and found["rows"][0]["spent"] > 2e5
    with pytest.raises(ValueError, match=r"budget: expected 450000 or more, .*; got 200000"):
        extend(half, folder)


def test_a_long_sequence_is_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch):
    model = Architecture("full", width=8, depth=2).build(CopyMemory(lag=4), LSTM(8))
    task = CopyMemory(lag=4)
    training = Training(eval_size=8)
    params = init_states(model, training, 2).params
    # A fresh head answers zero.
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), params
    )
    batch = evaluation_batch(task, 8, "validation")
    at_once = evaluate(model, task, training, params, batch)
    monkeypatch.setattr(evaluation, "AT_ONCE", 16)
    monkeypatch.setattr(evaluation, "PART", 5)  # 24 steps: the last part is filled up
    uncached = jax.jit(evaluate.__wrapped__, static_argnums=(0, 1, 2, 5))
    in_parts = uncached(model, task, training, params, batch)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), in_parts, at_once)
    assert len(np.unique(at_once.loss)) > 1 or at_once.loss[0] > 0


REFUSED = {
    "budget: expected at least 0": {"budget": -1.0},
    r"steps: .* with budget 1e\+09": {"budget": 1e9, "steps": 30},
    "budget: expected 0 with schedule 'cosine'": {"budget": 1e9, "schedule": "cosine"},
    "curriculum: expected 0 with carry": {"curriculum": 4, "carry": True},
    "curriculum: expected at most 6, the lag of the task; got 8": {"curriculum": 8},
}


@pytest.mark.parametrize("expected", REFUSED)
def test_what_cannot_be(expected: str):
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(CLIMB, training=Training(**REFUSED[expected]))


def test_a_budget_wants_a_model_of_one_sequence():
    job = Experiment(Dates(), GRU(8), EncoderDecoder(width=8, bidirectional=False))
    with pytest.raises(ValueError, match=r"budget: expected a model of one sequence, .* Seq2Seq"):
        dataclasses.replace(job, training=Training(budget=1e9))
    assert Experiment.from_config(CLIMB.config()) == CLIMB


def test_training_in_memory_is_that_of_a_run(whole):
    folder, _ = whole
    heard: list[dict[str, Any]] = []
    states, lines = train(CLIMB.model, CLIMB.task, TRAINING, seeds=2, on_line=heard.append)
    expected = folder.metrics()
    assert heard == lines
    assert [line | {"seconds": 0} for line in lines] == [x | {"seconds": 0} for x in expected]
    jax.tree.map(np.testing.assert_array_equal, states.params, load(folder.path).params)
