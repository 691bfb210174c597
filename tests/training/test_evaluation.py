from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import LSTM
from longlag.models import SequenceModel, build
from longlag.nn import Layer
from longlag.tasks import Batch, CopyMemory, Parity, ParityDense, Recall
from longlag.training import (
    TrainState,
    dispatch,
    evaluate,
    evaluation,
    evaluation_batch,
    init_states,
    note_evaluation,
)
from tests.helpers.tiny import PARITY, TRAINING, Affine, Canned, Sums, checksum, data_key


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
    found = evaluate(Canned(), ParityDense(), training, jnp.asarray(answers), batch)
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


def test_padding_changes_no_evaluation():
    params = init_states(PARITY.model, TRAINING, 2).params
    found, padded = (
        evaluate(PARITY.model, PARITY.task, TRAINING, params, batch)
        for batch in (evaluation_batch(PARITY.task, 16, "test", to) for to in (None, 16))
    )
    T = PARITY.task.time_steps
    for name in ("loss", "accuracy", "exact_match"):
        np.testing.assert_allclose(getattr(padded, name), getattr(found, name), rtol=1e-6)
    np.testing.assert_allclose(padded.by_position[:, :T], found.by_position, rtol=1e-6)
    assert np.isnan(padded.by_position[:, T:]).all() and padded.by_position.shape == (2, 16)


def test_many_tokens_are_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch):
    batch = evaluation_batch(PARITY.task, 12, "test")
    params = init_states(PARITY.model, TRAINING, 2).params
    whole = evaluate(PARITY.model, PARITY.task, TRAINING, params, batch)
    T, seen = PARITY.task.time_steps, []

    class Seen(SequenceModel):
        def answer(self, params, batch, key=None, at=None):
            seen.append(batch.inputs.shape)
            return super().answer(params, batch, key, at)

    model = Seen(
        **{f.name: getattr(PARITY.model, f.name) for f in dataclasses.fields(PARITY.model)}
    )
    for tokens, rows in ((5 * T, 4), (T - 1, 1)):  # 5 do not divide 12, and one row is the least
        monkeypatch.setattr(evaluation, "TOKENS", tokens)
        how = dataclasses.replace(TRAINING, eval_size=tokens)  # another program
        found = evaluate(model, PARITY.task, how, params, batch)
        assert seen[-1] == (rows, T)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, whole)


class Told(Layer):
    """Its outputs say where it was reset."""

    def init(self, key, in_features):
        return {}

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        assert mask is not None and resets is not None
        return state, jnp.stack([~resets, resets], axis=-1).astype(jnp.float32)


def test_a_model_is_told_of_padding_and_resets(rng: np.random.Generator):
    mask, resets = (jnp.asarray(rng.integers(0, 2, (4, 5)) > 0) for _ in range(2))
    batch = Batch(
        inputs=jnp.zeros((4, 5), jnp.int32),
        targets=resets.astype(jnp.int32),
        weights=mask.astype(jnp.float32),
        scored=mask,
        mask=mask,
        resets=resets,
    )
    model = SequenceModel("tokens", 2, 2, (Told(),), 2)
    params = model.init(jax.random.key(0))
    params["head"]["kernel"] = jnp.eye(2)
    params = jax.tree.map(lambda leaf: leaf[None], params)
    assert evaluate(model, ParityDense(), TRAINING, params, batch).accuracy == 1


class Everything(Recall):
    """Recall that does not say how many steps it asks, so that the head is computed at all."""

    asked = None


def test_the_head_at_what_is_asked_alone_changes_nothing():
    task = Recall(length=12, pairs=3, vocab=16)
    everything = Everything(length=12, pairs=3, vocab=16)
    model = build(inputs="tokens", in_features=16, out_features=16, cell=LSTM(8), width=8, depth=1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape),
        init_states(model, TRAINING, 2).params,
    )
    batch = evaluation_batch(task, 16, "test", padded_to=20)
    found, whole = (evaluate(model, t, TRAINING, params, batch) for t in (task, everything))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, whole)
    both = [
        dispatch(model, t, TRAINING, init_states(model, TRAINING, 1), jnp.full(1, TRAINING.steps))
        for t in (task, everything)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *both)
    asked = jax.eval_shape(
        lambda p, b: model.answer(p, b, at=jnp.zeros((16, 3), jnp.int32)),
        jax.tree.map(lambda leaf: leaf[0], params),
        batch,
    )
    assert asked.shape == (16, 3, 16)


def test_an_evaluation_has_no_dropout():
    params = jax.tree.map(lambda leaf: leaf[None], Affine().init(jax.random.key(3)))
    batch = evaluation_batch(Sums(), 64, "validation")
    found = evaluate(Affine(), Sums(), TRAINING, params, batch)
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
        return jax.vmap(lambda s, t: Sums().sample(data_key(s, t), 8).inputs)(seeds, steps)

    trained, validation = rows(draw()), rows(evaluation_batch(Sums(), 64, "validation").inputs)
    test = rows(evaluation_batch(Sums(), 64, "test").inputs)
    assert len(trained) == 4 * 50 * 8 and len(validation) == len(test) == 64
    assert not (trained & validation or trained & test or validation & test)


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
    state = TrainState(one, one, one, {}, (), one > 0, one, streak=one, solved_at=one - 1)
    found = []
    for i, accuracy in enumerate(accuracies):
        state = state.replace(step=jnp.asarray([5 * (i + 1)]))  # type: ignore[attr-defined]
        state = note_evaluation(state, jnp.asarray([accuracy]), 0.9)
        found.append((int(state.streak[0]), int(state.solved_at[0])))
    assert found == list(zip(streaks, solved_at, strict=True))
