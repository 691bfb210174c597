"""The task of intents: balanced data of training templates only, in order or shuffled."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("home_assistant_intents", reason='pip install "longlag[data]"')

from longlag.data.intents import PAD, UNKNOWN
from longlag.tasks import Intents
from longlag.tasks.intents import shuffle_words

TASK = Intents("af", per_template=12, fold=1, word_dropout=0.25)


def drawn(task: Intents, size: int):
    return jax.tree.map(np.asarray, jax.jit(task.sample, static_argnums=1)(jax.random.key(0), size))


@pytest.fixture(scope="module")
def batch():
    return drawn(TASK, 4096)


def known(task: Intents, order=tuple):
    """The training utterances with their intents."""
    corpus, rows = task.corpus, task.corpus.parts.train
    words = [order(row[of].tolist()) for row, of in zip(corpus.tokens[rows], corpus.mask[rows])]
    return set(zip(words, corpus.utterances.labels[rows].tolist()))


def test_intents_count_alike(batch):
    counts = np.bincount(batch.targets[batch.scored], minlength=TASK.out_features)
    expected = 4096 / TASK.out_features
    assert TASK.out_features == 12
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_utterances_come_from_training_templates_and_are_asked_at_their_last_word(batch):
    there = known(TASK)
    words = batch.mask.sum(1)
    assert (batch.scored.argmax(1) == words - 1).all()
    assert (batch.scored.sum(1) == 1).all() and TASK.weighted_steps == 1
    whole = np.flatnonzero(~(batch.inputs == UNKNOWN).any(1))
    assert len(whole) > 100
    for row in whole:
        said = tuple(batch.inputs[row][batch.mask[row]].tolist())
        assert (said, batch.targets[row].max()) in there


def test_words_are_dropped_at_the_rate_asked_for(batch):
    assert (batch.inputs[batch.mask] == UNKNOWN).mean() == pytest.approx(0.25, abs=0.01)
    assert (batch.inputs[~batch.mask] == PAD).all()


def test_a_run_is_tested_on_held_out_templates_with_every_word():
    corpus, tested = TASK.corpus, TASK.at_lag(TASK.lag).evaluation_task("test")
    batch = drawn(tested, 256)
    held = {tuple(row) for row in corpus.tokens[corpus.parts.held].tolist()}
    assert {tuple(row) for row in batch.inputs.tolist()} <= held
    assert not held & {tuple(row) for row in corpus.tokens[corpus.parts.train].tolist()}
    with pytest.raises(ValueError, match="the data's own"):
        TASK.at_lag(TASK.lag + 1)


def test_what_is_held_out_can_be_read_whole():
    corpus, held = TASK.corpus, dataclasses.replace(TASK, part="held")
    tokens, mask = held.full_utterances()
    np.testing.assert_array_equal(held.rows, corpus.parts.held)
    np.testing.assert_array_equal(tokens, corpus.tokens[corpus.parts.held])
    np.testing.assert_array_equal(mask, corpus.mask[corpus.parts.held])
    shuffled = dataclasses.replace(held, shuffled=True)
    other, again = shuffled.full_utterances()[0], shuffled.full_utterances()[0]
    np.testing.assert_array_equal(other, again)
    np.testing.assert_array_equal(np.sort(other, 1), np.sort(tokens, 1))
    assert (other[~mask] == PAD).all()
    longer = mask.sum(1) > 4
    assert (other != tokens).any(1)[longer].mean() > 0.9


def test_shuffled_utterances_have_the_words_of_one_in_another_order():
    task = dataclasses.replace(TASK, shuffled=True, word_dropout=0.0)
    batch = drawn(task, 512)
    there, bags = (known(task, order) for order in (tuple, lambda row: tuple(sorted(row))))
    moved = 0
    for row, mask, target in zip(batch.inputs, batch.mask, batch.targets):
        said = row[mask].tolist()
        assert (tuple(sorted(said)), target.max()) in bags and (row[~mask] == PAD).all()
        moved += (tuple(said), target.max()) not in there
    assert moved > 300


def test_all_orders_are_alike_and_each_row_has_its_own():
    tokens = jnp.tile(jnp.array([5, 6, 7, PAD, PAD]), (6000, 1))
    found = np.asarray(shuffle_words(jax.random.key(3), tokens, tokens != PAD))
    counts = collections.Counter(map(tuple, found[:, :3].tolist()))
    assert counts.keys() == set(itertools.permutations((5, 6, 7))) and not found[:, 3:].any()
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_without_a_fold_everything_is_learned():
    task = Intents("af", per_template=12, fold=-1)
    corpus = task.corpus
    assert task.out_features == len(corpus.utterances.intents) == 17
    for rows in (corpus.parts.train, corpus.parts.held):
        np.testing.assert_array_equal(rows, np.arange(len(corpus.utterances)))
    assert corpus.tokens[corpus.mask].min() > UNKNOWN


@pytest.mark.parametrize(
    "dials", [{"fold": 5}, {"fold": -2}, {"folds": 1}, {"word_dropout": 1.0}, {"per_template": 0}]
)
def test_impossible_dials_are_refused(dials):
    with pytest.raises(ValueError, match=next(iter(dials))):
        Intents(**dials)
