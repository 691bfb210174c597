"""Words of groups and the task composed of them, against permutations that move things."""

import itertools
from typing import get_args

import numpy as np
import pytest

from longlag.tasks import GroupWord, StateRecall
from longlag.tasks.groups import Group, multiplication_table

SIZES = {"z5": 5, "s3": 6, "a5": 60, "s5": 120, "z60": 60, "a4xz5": 60}
COMMUTATIVE = {"z5", "z60"}


def permutations(name):
    found = list(itertools.permutations(range(int(name[1:]))))
    if name[0] == "a":  # even: undone by an even number of exchanges
        found = [p for p in found if exchanges(list(p)) % 2 == 0]
    return found


def exchanges(things):
    count = 0
    for i in range(len(things)):
        while things[i] != i:
            j = things[i]
            things[i], things[j] = things[j], things[i]
            count += 1
    return count


def products(group, word):
    """The states after each letter: things on a table are moved, or a dial is turned."""
    if "x" in group:
        first, second = group.split("x")
        n = SIZES[second]
        sides = [products(first, [g // n for g in word]), products(second, [g % n for g in word])]
        return [g * n + h for g, h in zip(*sides)]
    if group[0] == "z":
        return [total % SIZES[group] for total in itertools.accumulate(word)]
    moves = permutations(group)
    where, found = list(range(int(group[1:]))), []  # where each thing lies
    for letter in word:
        where = [moves[letter][place] for place in where]
        found.append(moves.index(tuple(where)))
    return found


SIZES |= {"a4": 12}


def test_every_group_is_tried():
    assert set(get_args(Group)) == set(SIZES) - {"a4"}


@pytest.mark.parametrize("group", get_args(Group))
def test_tables_are_those_of_groups(group):
    table = multiplication_table(group)
    n = SIZES[group]
    everything = np.arange(n)
    assert table.shape == (n, n) and table.dtype == np.int32
    np.testing.assert_array_equal(table[0], everything)  # the identity
    np.testing.assert_array_equal(table[:, 0], everything)
    np.testing.assert_array_equal(np.sort(table, axis=0), np.tile(everything[:, None], n))
    np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(everything, (n, 1)))
    a, b, c = np.random.default_rng(0).integers(0, n, (3, 2000))
    np.testing.assert_array_equal(table[table[a, b], c], table[a, table[b, c]])
    assert np.array_equal(table, table.T) == (group in COMMUTATIVE)


WORDS = [GroupWord(1, 9, group) for group in get_args(Group)]


@pytest.mark.parametrize("task", WORDS, ids=lambda task: task.group)
def test_targets_are_where_things_lie_after_each_letter(task, draw):
    batch = draw(task, 8192 if task.group == "s3" else 64)
    assert task.in_features == task.out_features == SIZES[task.group]
    for row in range(64):
        length = int(batch.mask[row].sum())
        word = batch.inputs[row, :length].tolist()
        assert batch.targets[row, :length].tolist() == products(task.group, word)


def test_products_are_uniform_at_every_step_and_the_last_letter_tells_nothing(draw, even):
    batch = draw(GroupWord(1, 9), 8192)
    for step in range(9):
        here = batch.mask[:, step]
        even(np.bincount(batch.targets[here, step], minlength=6))
        if step > 0:
            pairs = 6 * batch.inputs[here, step] + batch.targets[here, step]
            even(np.bincount(pairs, minlength=36))


# --- state recall -------------------------------------------------------------------------------


def read(tokens, task):
    """The pairs as a dictionary by the number of their key, and the word after them."""
    V, D = task.values, task.pairs
    pairs, (*word, query) = tokens[: 2 * D], tokens[2 * D :]
    book = {key - V: value for key, value in zip(pairs[::2], pairs[1::2])}
    assert set(book) == set(range(D)) and len(set(book.values())) == D
    assert all(0 <= value < V for value in book.values())
    assert query == V + D + SIZES[task.group]
    return book, [letter - V - D for letter in word]


TASKS = [
    (StateRecall(1, 5, group="s3", pairs=4, values=7), 8192),
    (StateRecall(2, 6, group="z5", pairs=6, values=6), 64),
    (StateRecall(64, 64, group="a5"), 64),
]


@pytest.mark.parametrize(("task", "size"), TASKS, ids=str)
def test_the_answer_is_the_value_of_the_key_that_the_word_selects(task, size, draw):
    batch = draw(task, size)
    for row in range(64):
        tokens = batch.inputs[row][batch.mask[row]].tolist()
        book, word = read(tokens, task)
        assert task.min_length <= len(word) <= task.max_length
        state = products(task.group, word)[-1]
        end = len(tokens) - 1
        assert batch.mask[row, : end + 1].all() and not batch.mask[row, end + 1 :].any()
        assert np.flatnonzero(batch.scored[row]).tolist() == [end]
        assert batch.targets[row, end] == book[state % task.pairs]
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_orders_values_and_lengths_are_uniform(draw, even):
    task, size = TASKS[0]
    batch = draw(task, size)
    keys, values = batch.inputs[:, 0:8:2] - 7, batch.inputs[:, 1:8:2]
    orders = [np.all(keys == order, axis=1).sum() for order in itertools.permutations(range(4))]
    even(orders)
    for place in range(4):
        even(np.bincount(7 * keys[:, place] + values[:, place], minlength=28))
    even(np.bincount(batch.mask.sum(axis=1) - 9, minlength=6)[1:])
    even(np.bincount(batch.inputs[:, 8] - 11, minlength=6))


def test_both_halves_alone_reach_their_floors_and_no_more(draw):
    task, size = TASKS[0]
    batch, (_, no_lookup, no_state) = draw(task, size), task.floors()
    answers = batch.targets[batch.scored]
    any_pair = batch.inputs[:, 3]  # whatever the state, the value that stands second
    assert (any_pair == answers).mean() == pytest.approx(no_lookup.accuracy, abs=0.02)
    assert no_lookup.accuracy == 1 / 4 and no_lookup.loss == pytest.approx(np.log(4))
    keys, values = batch.inputs[:, 0:8:2] - 7, batch.inputs[:, 1:8:2]
    selected = keys[values == answers[:, None]]
    chances = np.bincount(selected) / size  # of six states, two select key 0 and two key 1
    assert chances[0] == pytest.approx(no_state.accuracy, abs=0.02)
    assert no_state.accuracy == pytest.approx(1 / 3)
    assert -(chances * np.log(chances)).sum() == pytest.approx(no_state.loss, abs=0.01)


def test_with_as_many_pairs_as_states_both_halves_are_worth_the_same():
    for task in StateRecall(group="z5", pairs=5), StateRecall(group="s3", pairs=6):
        floor, no_lookup, no_state = task.floors()
        assert no_lookup.accuracy == pytest.approx(no_state.accuracy)
        assert no_lookup.accuracy == 1 / task.pairs and floor.accuracy == 1 / 16
    more = StateRecall(group="z5", pairs=10).floors()
    assert [floor.accuracy for floor in more[1:]] == [1 / 10, pytest.approx(1 / 5)]
