from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from longlag.tasks import Batch, CopyMemory, Parity
from longlag.training import (
    Training,
    TrainState,
    dispatch,
    evaluate,
    evaluation_batch,
    init_states,
    losses,
    mean_loss,
    note_evaluation,
)
from tests.tiny import PARITY, TRAINING, Affine, Canned, Sums, data_key, dropout_key

MODEL = Affine()
# Two dispatches of five steps and one of two; seed 1 falls into a trap in the second.
HOW = dataclasses.replace(TRAINING, steps=12, schedule="cosine", seeds_as="map")
TASK = Sums(trap_seed=1, trap_step=7)


def run(seeds: int, how: Training = HOW, dispatches: int = 3) -> list[tuple[Any, np.ndarray]]:
    """States and losses after every dispatch."""
    states = init_states(MODEL, how, seeds)
    found = []
    for _ in range(dispatches):
        states, loss = dispatch(MODEL, TASK, how, states, jnp.ones(seeds, bool))
        found.append(jax.device_get((states, loss)))  # states are donated to the next one
    return found


@pytest.fixture(scope="module")
def alone() -> list[tuple[Any, np.ndarray]]:
    return run(1)


@pytest.fixture(scope="module")
def both() -> list[tuple[Any, np.ndarray]]:
    return run(2)


def of_seed(states: TrainState, seed: int) -> TrainState:
    return jax.tree.map(lambda leaf: leaf[seed], states)


def assert_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# --- losses -------------------------------------------------------------------------------------


def batch_of(targets: Any, weights: Any) -> Batch:
    weights = jnp.asarray(weights, jnp.float32)
    return Batch(weights, jnp.asarray(targets), weights, weights > 0, None)


def test_loss_of_classes_by_hand():
    # Logits (0, ln 3) give the chances 1/4 and 3/4.
    answers = jnp.asarray([[[0.0, math.log(3)], [0.0, math.log(3)], [9.0, 9.0]]])
    batch = batch_of([[1, 0, 0]], [[1.0, 2.0, 0.0]])
    each, right = losses(Parity(), answers, batch)
    np.testing.assert_allclose(each, [[math.log(4 / 3), math.log(4), 0]], rtol=1e-6)
    assert right[0, :2].tolist() == [True, False]
    expected = (math.log(4 / 3) + 2 * math.log(4)) / 3
    np.testing.assert_allclose(mean_loss(each, batch.weights), expected, rtol=1e-6)


def test_loss_of_values_by_hand():
    class Near(Sums):
        tolerance = 0.5

    answers = jnp.asarray([[[1.0, 2.0], [1.0, 2.0], [3.0, 3.0]]])
    batch = batch_of([[[1.25, 2.25], [1.0, 4.0], [0.0, 0.0]]], [[3.0, 1.0, 0.0]])
    each, right = losses(Near(), answers, batch)
    np.testing.assert_allclose(each, [[1 / 16, 2, 0]])
    assert right[0, :2].tolist() == [True, False]  # all values of a step must be near
    np.testing.assert_allclose(mean_loss(each, batch.weights), (3 / 16 + 2) / 4)


def test_what_is_not_asked_reaches_neither_loss_nor_gradient():
    batch = batch_of([[[1.0], [jnp.nan]]], [[1.0, 0.0]])

    def loss(answers):
        return mean_loss(losses(Sums(), answers, batch)[0], batch.weights)

    value, grad = jax.value_and_grad(loss)(jnp.asarray([[[3.0], [2.0]]]))
    assert value == 4 and grad.tolist() == [[[4.0], [0.0]]]


# --- steps --------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def gradient(seed: int, params: Any, step: jax.Array) -> tuple[jax.Array, Any]:
    batch = TASK.sample(data_key(seed, step), HOW.batch_size)
    asked = np.s_[:, 1:]

    def loss(params):
        _, answers = MODEL.apply(params, batch.inputs, key=dropout_key(seed, step))
        error = (answers - batch.targets)[asked][..., 0]
        return (batch.weights[asked] * error**2).sum() / batch.weights[asked].sum()

    return jax.value_and_grad(loss)(params)


def test_a_dispatch_is_its_steps_by_hand(alone):
    params = MODEL.init(jax.random.fold_in(jax.random.key(0), 0))
    rate = optax.cosine_decay_schedule(HOW.learning_rate, HOW.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(HOW.clip), optax.adam(rate))
    state, seen = optimizer.init(params), []
    for step in range(12):
        loss, grads = gradient(0, params, step)
        norm = math.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(loss)
        if step + 1 in (5, 10, 12):
            states, mean = alone[[5, 10, 12].index(step + 1)]
            assert states.step.tolist() == [step + 1]
            first = len(seen) - (2 if step == 11 else 5)
            np.testing.assert_allclose(mean, [np.mean(seen[first:])], rtol=1e-5)
            np.testing.assert_allclose(states.norm, [norm], rtol=1e-4)
            for found, expected in zip(
                jax.tree.leaves((of_seed(states, 0).params, of_seed(states, 0).opt_state)),
                jax.tree.leaves((params, state)),
                strict=True,
            ):
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_seed_does_not_see_its_neighbours(alone, both):
    for (found, loss), (expected, expected_loss) in zip(both, alone, strict=True):
        assert_equal(of_seed(found, 0), of_seed(expected, 0))
        assert loss[0] == expected_loss[0]
    assert both[0][0].params["w"][0, 0, 0] != both[0][0].params["w"][1, 0, 0]


def test_side_by_side_is_one_after_another_within_rounding(both):
    vectorised = run(2, dataclasses.replace(HOW, seeds_as="vmap"))
    for (found, loss), (expected, expected_loss) in zip(vectorised, both, strict=True):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, found, expected)
        close(loss, expected_loss)
        assert found.failed.tolist() == expected.failed.tolist()


def test_a_loss_that_is_not_finite_ends_its_seed(both):
    for (states, loss), failed, step in zip(both, (False, True, True), (5, 7, 7)):
        assert states.failed.tolist() == [False, failed]
        assert states.step.tolist()[1] == step
        assert np.isfinite(loss[0])
    assert [states.step.tolist()[0] for states, _ in both] == [5, 10, 12]
    # Steps 5 and 6 were taken; the step that failed was not, and its norm is kept to be named.
    before, at, after = (of_seed(states, 1) for states, _ in both)
    assert not np.isfinite(at.norm) and np.isfinite(before.norm)
    assert not np.isfinite(both[1][1][1]) and both[2][1][1] == 0
    assert np.isfinite(at.params["w"]).all() and (at.params["w"] != before.params["w"]).all()
    assert_equal(after, at)


def test_what_does_not_train_is_untouched(both):
    first = jax.tree.map(jnp.asarray, both[0][0])
    states, loss = dispatch(MODEL, TASK, HOW, first, jnp.asarray([True, False]))
    assert_equal(of_seed(states, 1), of_seed(both[0][0], 1))
    assert_equal(of_seed(states, 0), of_seed(both[1][0], 0))
    assert np.isnan(loss[1])
    states, _ = dispatch(MODEL, TASK, HOW, jax.tree.map(jnp.asarray, both[2][0]), jnp.ones(2, bool))
    assert_equal(states, both[2][0])  # all 12 steps were taken, or the seed has failed


def test_equal_experiments_built_apart_compile_once(both):
    compiled = dispatch._cache_size()
    how = Training(**dataclasses.asdict(HOW))
    task = Sums(length=3, trap_seed=1, trap_step=7)
    assert how is not HOW and task is not TASK
    dispatch(Affine(2), task, how, init_states(Affine(2), how, 2), jnp.ones(2, bool))
    assert dispatch._cache_size() == compiled
    apart = dataclasses.replace(PARITY, architecture=dataclasses.replace(PARITY.architecture))
    assert apart.model is not PARITY.model
    assert apart.model == PARITY.model and hash(apart.model) == hash(PARITY.model)


# --- optimisers ---------------------------------------------------------------------------------

GRADIENT = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(-4.0)}  # of norm 5
PARAMS = {"a": jnp.asarray([1.0, -1.0]), "b": jnp.asarray(2.0)}


def updates(how: Training, count: int) -> np.ndarray:
    """What `count` steps along one gradient add: `[count, 3]`."""
    state, found = how.transformation.init(PARAMS), []
    for _ in range(count):
        step, state = how.transformation.update(GRADIENT, state, PARAMS)
        found.append([*step["a"], step["b"]])
    return np.asarray(found)


G = np.asarray([3.0, 0.0, -4.0])
P = np.asarray([1.0, -1.0, 2.0])
PLAIN = Training(steps=4, learning_rate=0.1, optimizer="sgd", clip=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [-0.1 * G, -0.1 * 1.9 * G]),  # momentum 0.9
        ({"clip": 1.0}, [-0.1 * G / 5, -0.1 * 1.9 * G / 5]),
        ({"clip": 6.0}, [-0.1 * G, -0.1 * 1.9 * G]),
        ({"warmup": 2}, [0 * G, -0.05 * 1.9 * G, -0.1 * 2.71 * G, -0.1 * 3.439 * G]),
        (
            {"schedule": "cosine"},
            [-0.1 * m * (1 + math.cos(math.pi * i / 4)) / 2 * G for i, m in enumerate((1, 1.9))],
        ),
        (
            {"schedule": "cosine", "warmup": 2},
            [0 * G, -0.05 * 1.9 * G, -0.1 * 2.71 * G, -0.05 * 3.439 * G],
        ),
        ({"optimizer": "adam"}, [-0.1 * np.sign(G)]),
        ({"optimizer": "adamw"}, [-0.1 * (np.sign(G) + 0.1 * P)]),
        ({"optimizer": "adamw", "weight_decay": 0.5}, [-0.1 * (np.sign(G) + 0.5 * P)]),
        ({"optimizer": "rmsprop"}, [-0.1 * np.sign(G) / math.sqrt(0.1)]),
        ({"learning_rate": 0.2}, [-0.2 * G]),
    ],
)
def test_optimiser_schedule_and_clip_by_hand(changes: dict[str, Any], expected: list[np.ndarray]):
    found = updates(dataclasses.replace(PLAIN, **changes), len(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "adan", r"optimizer: expected one of adam, .*'adan'.*mean 'adam'"),
        ("schedule", "cosin", "schedule: .*Did you mean 'cosine'"),
        ("seeds_as", "pmap", "seeds_as: .*Did you mean '(vmap|map)'"),
        ("steps", 0, "steps: expected at least 1, got 0"),
        ("batch_size", -2, "batch_size: expected at least 1, got -2"),
        ("dispatch", 0, "dispatch: expected at least 1, got 0"),
        ("eval_size", 0, "eval_size: expected at least 1, got 0"),
        ("warmup", -1, "warmup: expected at least 0, got -1"),
        ("weight_decay", -0.1, "weight_decay: expected at least 0, got -0.1"),
        ("clip", -1.0, "clip: expected at least 0, got -1.0"),
        ("learning_rate", 0.0, "learning_rate: expected more than 0, got 0.0"),
        ("solved", 0.0, r"solved: expected an accuracy in \(0, 1\], got 0.0"),
        ("solved", 1.5, r"solved: expected an accuracy in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_training_is_refused(field: str, value: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Training(**{field: value})


# --- evaluation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_evaluation_by_numpy(how: Any, rng: np.random.Generator):
    S, B, T, K = 2, 6, 5, 2
    answers = rng.normal(size=(S, B, T, K)).astype(np.float32)
    targets = rng.integers(0, K, (B, T))
    weights = rng.integers(0, 3, (B, T)) / 2
    weights[:, 0], weights[:, 3] = 0, 1  # nothing is asked at step 0
    scored = (weights > 0.5) | (np.arange(T) == 3)
    answers[0, 2] = 10 * np.eye(K)[targets[2]]  # at least one row is all right
    batch = Batch(jnp.zeros((B, T)), jnp.asarray(targets), jnp.asarray(weights, jnp.float32),
                  jnp.asarray(scored), None)  # fmt: skip
    training = dataclasses.replace(TRAINING, seeds_as=how)
    found = evaluate(Canned(), Parity(), training, jnp.asarray(answers), batch)
    for seed in range(S):
        hits, rows, loss = {t: [] for t in range(T)}, [], 0.0
        for b in range(B):
            row = []
            for t in range(T):
                chances = np.exp(answers[seed, b, t]) / np.exp(answers[seed, b, t]).sum()
                loss -= weights[b, t] * math.log(chances[targets[b, t]])
                if scored[b, t]:
                    row.append(chances[targets[b, t]] > 0.5)
                    hits[t].append(row[-1])
            rows.append(all(row))
        everything = [hit for t in range(T) for hit in hits[t]]
        assert 0 < np.mean(rows) < 1 or seed == 1
        np.testing.assert_allclose(found.loss[seed], loss / weights.sum(), rtol=1e-5)
        np.testing.assert_allclose(found.accuracy[seed], np.mean(everything), rtol=1e-6)
        np.testing.assert_allclose(found.exact_match[seed], np.mean(rows), rtol=1e-6)
        by_position = [np.mean(hits[t]) if hits[t] else np.nan for t in range(T)]
        np.testing.assert_allclose(found.by_position[seed], by_position, rtol=1e-6)
    assert np.isnan(found.by_position[:, 0]).all()


def test_an_evaluation_has_no_dropout():
    params = jax.tree.map(lambda leaf: leaf[None], MODEL.init(jax.random.key(3)))
    batch = evaluation_batch(TASK, 64, "validation")
    found = evaluate(MODEL, TASK, HOW, params, batch)
    answers = np.asarray(batch.inputs) @ np.asarray(params["w"][0]) + np.asarray(params["b"][0])
    error = ((answers - np.asarray(batch.targets)) ** 2)[:, 1:, 0]
    expected = (error * np.asarray(batch.weights)[:, 1:]).sum() / np.asarray(batch.weights).sum()
    np.testing.assert_allclose(found.loss, [expected], rtol=1e-5)


def test_evaluation_sets_are_apart_from_each_other_and_from_training():
    def rows(inputs: jax.Array) -> set[bytes]:
        return {np.asarray(row).tobytes() for row in inputs.reshape(-1, 3, 2)}

    @jax.jit
    def draw():
        seeds, steps = jnp.divmod(jnp.arange(200), 50)
        trained = jax.vmap(lambda s, t: Sums().sample(data_key(s, t), 8).inputs)(seeds, steps)
        purposes: tuple[Any, ...] = ("validation", "test")
        return trained, *(evaluation_batch(Sums(), 64, purpose).inputs for purpose in purposes)

    trained, validation, test = map(rows, draw())
    assert len(trained) == 4 * 50 * 8 and len(validation) == len(test) == 64
    assert not (trained & validation or trained & test or validation & test)


def checksum(batch: Batch) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(batch):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]


@pytest.mark.parametrize(
    ("task", "purpose", "x64", "expected"),
    [
        (Parity(1, 12), "validation", True, "2b5dc6705eda"),
        (Parity(1, 12), "test", False, "550c44e79b24"),
        (CopyMemory(4, 8, 5), "validation", False, "b36375887aa3"),
        (CopyMemory(4, 8, 5), "test", True, "14ca58aca231"),
    ],
)
def test_evaluation_sets_are_frozen(task: Any, purpose: Any, x64: bool, expected: str):
    with jax.enable_x64(x64):
        assert checksum(evaluation_batch(task, 16, purpose)) == expected


def test_an_unknown_purpose_is_refused():
    with pytest.raises(ValueError, match=r"purpose: .*Did you mean 'test'"):
        evaluation_batch(Parity(1, 12), 16, "tst")  # type: ignore[arg-type]


# --- solved -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracies", "streaks", "solved_at"),
    [
        ([0.5, 0.8], [0, 0], [-1, -1]),
        ([0.9, 0.95, 1.0, 0.2, 0.2], [1, 2, 3, 3, 3], [5, 5, 5, 5, 5]),  # solved once is solved
        ([0.9, 0.9, 0.89, 0.9, 0.9, 0.9], [1, 2, 0, 1, 2, 3], [5, 5, -1, 20, 20, 20]),
        ([0.1, 0.9, 0.9, 0.9, 0.9], [0, 1, 2, 3, 3], [-1, 10, 10, 10, 10]),
        ([0.9, float("nan"), 0.9], [1, 0, 1], [5, -1, 15]),
    ],
)
def test_solved_is_three_times_in_a_row(
    accuracies: list[float], streaks: list[int], solved_at: list[int]
):
    one = jnp.zeros(1, jnp.int32)
    state = TrainState(one, one, {}, (), one > 0, one, streak=one, solved_at=one - 1)
    found = []
    for i, accuracy in enumerate(accuracies):
        state = state.replace(step=jnp.asarray([5 * (i + 1)]))  # type: ignore[attr-defined]
        state = note_evaluation(state, jnp.asarray([accuracy]), 0.9)
        found.append((int(state.streak[0]), int(state.solved_at[0])))
    assert found == list(zip(streaks, solved_at, strict=True))
