from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from longlag import LSTM, MinGRU
from longlag.models import build
from longlag.tasks import Batch, CopyMemory, Parity
from longlag.training import (
    Training,
    TrainState,
    check_streaming,
    compiled_dispatch,
    dispatch,
    init_states,
    losses,
    mean_loss,
    nan_answers,
)
from tests.helpers.tiny import PARITY, TRAINING, Affine, Sums, data_key, dropout_key

MODEL = Affine()
# Two dispatches of five steps and one of two; seed 1 falls into a trap in the second.
HOW = dataclasses.replace(TRAINING, steps=12, schedule="cosine", seeds_as="map")
TASK = Sums(trap_seed=1, trap_step=7)


def run(seeds: int, how: Training = HOW, dispatches: int = 3) -> list[tuple[Any, np.ndarray]]:
    """States and losses after every dispatch."""
    states = init_states(MODEL, how, seeds)
    found = []
    for _ in range(dispatches):
        states, loss = dispatch(MODEL, TASK, how, states, jnp.full(seeds, how.steps))
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


@pytest.mark.parametrize("wrong", [[0, math.nan], [math.nan, 0], [math.nan, math.nan]])
def test_an_answer_that_is_nan_is_never_right(wrong: list[float]):
    """Whatever its target: `argmax` of NaN is a class like any other."""
    sound, infinite = [0.0, 1.0], [0.0, math.inf]
    answers = jnp.asarray([[wrong, wrong, sound, infinite, [-math.inf, 0.0]]])
    batch = batch_of([[0, 1, 1, 1, 1]], [[1.0] * 5])
    each, right = losses(Parity(), answers, batch)
    assert right[0].tolist() == [False, False, True, True, True]  # an infinite score is a score
    assert nan_answers(Parity(), answers, batch)[0].tolist() == [True, True, False, False, False]
    assert np.isnan(each[0, :2]).all() and np.isfinite(each[0, jnp.array([2, 4])]).all()
    targets = jnp.asarray([[[0.0, 0.0]] * 5])
    _, right = losses(Sums(), answers, batch_of(targets, [[1.0] * 5]))
    assert right[0].tolist() == [False, False, True, False, False]  # infinite: not near enough


@pytest.mark.parametrize(
    ("task", "targets", "expected", "slope"),
    [
        (Parity(), [[1, 0]], math.log(4), [0.75, -0.75]),
        (Sums(), [[[0.0, 1.0], [math.nan, 1.0]]], (math.log(3) ** 2 + 1) / 2, [math.log(3), -1]),
    ],
)
def test_what_is_not_asked_reaches_neither_loss_nor_gradient(
    task: Any, targets: Any, expected: float, slope: list[float]
):
    batch = batch_of(targets, [[1.0, 0.0]])

    def loss(answers):
        return mean_loss(losses(task, answers, batch)[0], batch.weights)

    value, grad = jax.value_and_grad(loss)(jnp.asarray([[[math.log(3), 0.0], [math.nan] * 2]]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, [[slope, [0, 0]]], rtol=1e-6)


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


def test_parameters_that_are_not_finite_end_their_seed_only(both):
    first = jax.tree.map(jnp.asarray, both[0][0])
    params = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), first.params)
    poisoned = first.replace(params=params, failed=jnp.zeros(2, bool))
    before = jax.device_get(poisoned)
    states, loss = dispatch(MODEL, TASK, HOW, poisoned, jnp.full(2, HOW.steps))
    assert states.failed.tolist() == [False, True] and np.isnan(loss[1])
    ended = of_seed(states, 1)
    assert_equal(ended.replace(failed=False, norm=0), of_seed(before, 1).replace(norm=0))
    assert_equal(of_seed(states, 0), of_seed(both[1][0], 0))


def test_what_does_not_train_is_untouched(both):
    first = jax.tree.map(jnp.asarray, both[0][0])
    states, loss = dispatch(MODEL, TASK, HOW, first, jnp.asarray([HOW.steps, 0]))
    assert_equal(of_seed(states, 1), of_seed(both[0][0], 1))
    assert_equal(of_seed(states, 0), of_seed(both[1][0], 0))
    assert loss[1] == 0
    states, _ = dispatch(
        MODEL, TASK, HOW, jax.tree.map(jnp.asarray, both[2][0]), jnp.full(2, HOW.steps)
    )
    assert_equal(states, both[2][0])  # all 12 steps were taken, or the seed has failed


def test_a_seed_that_trains_beside_a_failed_one_runs_without_a_nan(both):
    failed = jax.tree.map(jnp.asarray, both[1][0])
    with jax.debug_nans(True):
        for until in ([HOW.steps, 0], [HOW.steps] * 2):
            states, loss = dispatch(
                MODEL, TASK, HOW, jax.tree.map(jnp.copy, failed), jnp.array(until)
            )
            assert_equal(states, both[2][0])
            assert loss[1] == 0


def test_equal_experiments_built_apart_compile_once(both):
    compiled = compiled_dispatch._cache_size()
    how = Training(**dataclasses.asdict(HOW))
    task = Sums(length=3, trap_seed=1, trap_step=7)
    assert how is not HOW and task is not TASK
    dispatch(Affine(2), task, how, init_states(Affine(2), how, 2), jnp.full(2, how.steps))
    other = dataclasses.replace(how, learning_rate=2 * how.learning_rate)
    dispatch(Affine(2), task, other, init_states(Affine(2), other, 2), jnp.full(2, other.steps))
    assert compiled_dispatch._cache_size() == compiled
    apart = dataclasses.replace(PARITY, architecture=dataclasses.replace(PARITY.architecture))
    assert apart.model is not PARITY.model
    assert apart.model == PARITY.model and hash(apart.model) == hash(PARITY.model)


# --- optimisers ---------------------------------------------------------------------------------

GRADIENT = {"kernel": jnp.asarray([3.0, 0.0]), "bias": jnp.asarray(-4.0)}  # of norm 5
PARAMS = {"kernel": jnp.asarray([1.0, -1.0]), "bias": jnp.asarray(2.0)}


def updates(how: Training, count: int) -> np.ndarray:
    """What `count` steps along one gradient add: `[count, 3]`."""
    state, found = how.transformation.init(PARAMS), []
    for _ in range(count):
        step, state = how.transformation.update(GRADIENT, state, PARAMS)
        found.append([*step["kernel"], step["bias"]])
    return np.asarray(found)


G = np.asarray([3.0, 0.0, -4.0])
P = np.asarray([1.0, -1.0, 0.0])  # what decays: not the bias
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
        ("optimizer", "adamm", r"optimizer: expected one of .*adam, .*'adamm'.*mean 'adam'"),
        ("schedule", "cosin", "schedule: .*Did you mean 'cosine'"),
        ("seeds_as", "pmap", "seeds_as: .*Did you mean '(vmap|map)'"),
        ("steps", 0, "steps: expected at least 1, got 0"),
        ("batch_size", -2, "batch_size: expected at least 1, got -2"),
        ("dispatch", 0, "dispatch: expected at least 1, got 0"),
        ("eval_size", 0, "eval_size: expected at least 1, got 0"),
        ("warmup", -1, "warmup: expected at least 0, got -1"),
        ("weight_decay", -0.1, "weight_decay: expected at least 0, got -0.1"),
        ("weight_decay", 0.5, "weight_decay: expected 0.1, since it has no effect with .*'adam'"),
        ("clip", -1.0, "clip: expected at least 0, got -1.0"),
        ("learning_rate", 0.0, "learning_rate: expected more than 0, got 0.0"),
        ("solved", 0.0, r"solved: expected an accuracy in \(0, 1\], got 0.0"),
        ("solved", 1.5, r"solved: expected an accuracy in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_training_is_refused(field: str, value: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Training(**{field: value})


# --- chunks of time -----------------------------------------------------------------------------


def test_training_in_chunks_of_time_is_training_on_the_whole():
    """Two steps of gradient descent; truncated, the gradient is another."""
    task = CopyMemory(lag=6, items=2)
    model = build(
        inputs="tokens",
        in_features=task.in_features,
        out_features=task.out_features,
        cell=MinGRU(6),
        width=6,
    )
    whole = Training(steps=2, dispatch=2, batch_size=4, optimizer="sgd", learning_rate=1.0)

    def trained(**options):
        how = dataclasses.replace(whole, **options)
        states, loss = dispatch(
            model, task, how, init_states(model, how, 1), jnp.full(1, how.steps)
        )
        return loss, states.params

    expected, got = trained(), trained(time_chunk="sqrt")
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, got, expected)
    truncated = trained(time_chunk=4, truncate=True)[1]
    difference = jax.tree.map(lambda x, y: np.abs(x - y).max(), truncated, expected[1])
    assert max(jax.tree.leaves(difference)) > 1e-4


def test_bad_chunks_of_time():
    with pytest.raises(ValueError, match="time_chunk: expected 'sqrt' or at least 1 step, got -1"):
        Training(time_chunk=-1)
    with pytest.raises(ValueError, match="truncate: expected a time_chunk to truncate at"):
        Training(truncate=True)


# --- a state carried from step to step ----------------------------------------------------------


class Following(CopyMemory):
    """Batches that follow each other; at step 1 the first row begins anew."""

    def at_step(self, key, step, batch_size):
        batch = self.sample(jax.random.fold_in(key, step), batch_size)
        again = (step == 1) & (jnp.arange(batch_size) == 0)
        first = jnp.arange(batch.inputs.shape[1]) == 0
        return batch.replace(resets=again[:, None] & first)


def test_a_carried_state_is_where_the_next_step_begins_and_where_its_gradient_ends():
    """Three steps of gradient descent beside a loop; a reset forgets what is carried."""
    task = Following(lag=4, items=2)
    model = build(
        inputs="tokens",
        in_features=task.in_features,
        out_features=task.out_features,
        cell=LSTM(6),
        attention="window",
        window=5,
        heads=3,
        width=6,
    )
    rows = 3
    how = Training(
        steps=3, dispatch=3, batch_size=rows, optimizer="sgd", learning_rate=0.5, clip=0, carry=True
    )
    first = init_states(model, how, 1, first_seed=4)
    params = jax.tree.map(lambda leaf: leaf[0], first.params)
    states, loss = dispatch(model, task, how, first, jnp.full(1, how.steps))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def descend(params, carry, batch):
        carry, answers = model.apply(params, batch.inputs, carry, resets=batch.resets)
        each = losses(task, answers, batch)[0]
        return (each * batch.weights).sum() / batch.weights.sum(), carry

    optimizer, key = optax.sgd(0.5, momentum=0.9), jax.random.fold_in(jax.random.key(4), 1)
    memory, carry = optimizer.init(params), model.init_state(params, rows, 1)
    total, at_step = 0.0, jax.jit(task.at_step, static_argnums=2)
    for step in range(3):
        (each, carry), grads = descend(params, carry, at_step(key, jnp.int32(step), rows))
        updates, memory = optimizer.update(grads, memory, params)
        params, total = optax.apply_updates(params, updates), total + each / 3
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(loss[0], total)
    jax.tree.map(lambda got, expected: close(got[0], expected), states.params, params)
    jax.tree.map(lambda got, expected: close(got[0], expected), states.carry, carry)


def test_a_state_that_cannot_be_carried_is_refused():
    task, how = Following(lag=4, items=2), Training(carry=True)
    sizes = {"inputs": "tokens", "in_features": 10, "out_features": 9, "width": 6}
    growing = build(**sizes, cell=None, attention="full", heads=3)
    with pytest.raises(ValueError, match="carry: expected layers whose state does not grow"):
        check_streaming(growing, task, how)
    plain = build(**sizes, cell=LSTM(6))
    with pytest.raises(ValueError, match="carry: expected a task whose batches follow each other"):
        check_streaming(plain, CopyMemory(lag=4, items=2), how)
    check_streaming(plain, task, how)
    with pytest.raises(ValueError, match="carry: expected time_chunk 0 beside it, got 4"):
        Training(carry=True, time_chunk=4)


def test_parameters_that_were_written_as_numbers_are_arrays_of_a_dtype():
    class Scaled(MinGRU):
        def init(self, key, in_features):
            weak = {"number": 0.5, "weak": jnp.asarray(0.5), "full": jnp.full(2, 0.5)}
            return super().init(key, in_features) | weak

    model = build(inputs="tokens", in_features=2, out_features=2, cell=Scaled(4), width=4)
    params = jax.tree.leaves(init_states(model, TRAINING, 2).params)
    assert {(leaf.dtype, leaf.weak_type, leaf.shape[0]) for leaf in params} == {
        (jnp.dtype("float32"), False, 2)
    }
