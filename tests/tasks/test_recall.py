"""Multi-query associative recall against a dictionary, and its gaps against enumeration."""

import itertools
import math

import jax
import numpy as np
import pytest

from longlag.tasks import Recall
from longlag.tasks.recall import power_law_gaps
from longlag.tasks.task import draw_distinct


def answers(tokens, vocab):
    """Stores a key with the value that follows it; says the value when the key comes again."""
    book, said, asked, key = {}, [], [], None
    for token in map(int, tokens):
        again = token in book
        said.append(book[token] if again else 0)
        asked.append(again)
        if token >= vocab // 2:
            assert key not in book
            book[key] = token
        key = token
    return said, asked, book


TASKS = [Recall(*dials) for dials in [(12, 3, 15), (12, 2, 15), (12, 3, 16), (4, 1, 5)]]
TASKS += [Recall(64, 16, 8192)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_targets_are_what_the_dictionary_says(task, draw):
    batch, D, V = draw(task), task.pairs, task.vocab
    for row in range(64):
        said, asked, book = answers(batch.inputs[row], V)
        np.testing.assert_array_equal(batch.targets[row], said)
        np.testing.assert_array_equal(batch.scored[row], asked)
        assert len(book) == len(set(book.values())) == D
        assert all(1 <= key < V // 2 for key in book)
        assert sorted(batch.inputs[row][asked]) == sorted(book)  # each asked once
        assert np.count_nonzero(batch.inputs[row]) == 3 * D  # all else is filler, which is no key
    assert batch.inputs[:, : 2 * D].all() and batch.mask is None
    assert not batch.scored[:, 2 * D + 1 :: 2].any()  # 2 * gap after the block
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_keys_and_values_are_uniform_over_their_halves(draw, even):
    batch = draw(Recall(12, 3, 15), 16384)
    for i in range(3):  # keys 1..6, values 7..14, whichever pair it is
        even(np.bincount(batch.inputs[:, 2 * i], minlength=15)[1:7])
        even(np.bincount(batch.inputs[:, 2 * i + 1], minlength=15)[7:15])
    even(np.bincount(batch.inputs[:, 0] * 15 + batch.inputs[:, 1], minlength=225)[
        [15 * key + value for key in range(1, 7) for value in range(7, 15)]
    ])  # fmt: skip


def test_gaps_follow_the_power_law_without_replacement(even):
    draws = np.asarray(jax.jit(lambda k: power_law_gaps(k, 65536, 5, 3))(jax.random.key(1)))
    weights = np.arange(1, 6) ** (0.01 - 1)
    orders = list(itertools.permutations(range(5), 3))
    chances = []
    for order in orders:
        left, chance = weights.copy(), 1.0
        for gap in order:
            chance *= left[gap] / left.sum()
            left[gap] = 0
        chances.append(chance)
    assert sum(chances) == pytest.approx(1)
    counts = [np.all(draws == order, axis=1).sum() for order in orders]
    assert sum(counts) == 65536
    even(counts, chances)


def test_every_gap_happens_and_gap_zero_is_the_first_step_after_the_pairs(draw):
    asked = draw(Recall(length=64, pairs=16, vocab=8192)).scored.any(axis=0)
    np.testing.assert_array_equal(asked, [i >= 32 and i % 2 == 0 for i in range(64)])
    full = draw(Recall(length=12, pairs=3, vocab=15)).scored  # as many gaps as pairs
    np.testing.assert_array_equal(full, np.tile([i in (6, 8, 10) for i in range(12)], (64, 1)))


def test_distinct_draws_every_ordered_choice_alike(even):
    draws = np.asarray(jax.jit(lambda k: draw_distinct(k, 32768, 4, 3))(jax.random.key(0)))
    counts = [np.all(draws == p, axis=1).sum() for p in itertools.permutations(range(4), 3)]
    assert sum(counts) == 32768
    even(counts)


def test_floor_is_reached_by_any_value_and_nothing_else_is_in_the_query(draw):
    task = Recall(12, 3, 15)
    batch, floor = draw(task, 16384), task.floor()
    asked = batch.targets[batch.scored]
    said = np.where(np.arange(15) >= 7, 1 / 8, 1e-30)[asked]
    assert -np.log(said).mean() == pytest.approx(floor.loss, rel=1e-6)
    assert floor.loss == pytest.approx(math.log(8))
    assert (asked == 9).mean() == pytest.approx(floor.accuracy, abs=0.01)
    for key in range(1, 7):  # the query alone says nothing about its value
        here = asked[batch.inputs[batch.scored] == key]
        assert (here == 9).mean() == pytest.approx(floor.accuracy, abs=0.02)
