"""Words of groups, against permutations that move things."""

import itertools
from typing import get_args

import numpy as np
import pytest

from longlag.tasks import GroupWord
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
