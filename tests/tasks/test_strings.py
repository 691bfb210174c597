"""What the tasks of varying length share, and the plain ones among them against a machine."""

import itertools

import jax
import numpy as np
import pytest

from longlag.tasks import (
    CycleNavigation,
    EvenPairs,
    GroupWord,
    ModularArithmetic,
    Parity,
    ParityDense,
    Reverse,
    StateRecall,
)


def strings(batch):
    """The real tokens of each row, with the step at which it ends."""
    for tokens, mask in zip(batch.inputs, batch.mask):
        length = int(mask.sum())
        assert mask[:length].all()
        yield tokens[:length].tolist(), length - 1


KINDS = [CycleNavigation, EvenPairs, GroupWord, ModularArithmetic, ParityDense, Reverse]


@pytest.mark.parametrize("kind", [*KINDS, StateRecall])
def test_another_lag_is_that_length_alone(kind):
    task = kind(1, 40)
    assert task.at_lag(160) == kind(160, 160) and task.at_lag(160).at_lag(80) == kind(80, 80)
    assert task.at_lag(40) is task


@pytest.mark.parametrize("kind", [CycleNavigation, EvenPairs, ModularArithmetic])
def test_asked_at_the_last_token_alone(kind, draw):
    batch = draw(kind(1, 9), 8192)
    ends = [end for _, end in strings(batch)]
    np.testing.assert_array_equal(batch.scored, np.arange(9) == np.array(ends)[:, None])
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


@pytest.mark.parametrize("task", [ParityDense(2, 9), GroupWord(1, 9)], ids=str)
def test_asked_at_every_token(task, draw):
    batch = draw(task, 8192)
    np.testing.assert_array_equal(batch.scored, batch.mask)
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


class Forgetful(Parity):
    """Draws tokens or answers of other shapes than declared."""

    tokens_alone: bool = False

    def draw(self, key, lengths):
        tokens = self.tokens(key, len(lengths))
        return (tokens, tokens[:, 0]) if self.tokens_alone else (tokens[:, 1:], tokens)


@pytest.mark.parametrize(
    ("tokens_alone", "message"),
    [
        (False, r"tokens of Forgetful.*expected the shape \(3, 9\), got \(3, 8\)"),
        (True, r"answers of Forgetful.*expected the shape \(3, 1\) or \(3, 9\), got \(3,\)"),
    ],
)
def test_what_is_drawn_in_another_shape_is_refused(tokens_alone: bool, message: str):
    task = Forgetful(2, 9, tokens_alone)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: task.sample(jax.random.key(0), 3))


def test_lengths_are_uniform_ends_included(draw, even):
    counts = np.bincount(draw(EvenPairs(1, 9), 8192).mask.sum(axis=1), minlength=10)
    assert counts[0] == 0
    even(counts[1:])


def test_dense_parity_is_the_bits_so_far_added_modulo_two(draw):
    batch = draw(ParityDense(2, 9))
    for (bits, end), targets in zip(strings(batch), batch.targets):
        odd = [sum(bits[: i + 1]) % 2 for i in range(len(bits))]
        assert targets[: end + 1].tolist() == odd


def test_dense_parity_has_the_strings_and_the_last_answers_of_parity(draw):
    dense, sparse = draw(ParityDense(2, 9)), draw(Parity(2, 9))
    np.testing.assert_array_equal(dense.inputs, sparse.inputs)
    np.testing.assert_array_equal(dense.targets[sparse.scored], sparse.targets[sparse.scored])
    assert dense.scored.sum() > sparse.scored.sum()


@pytest.mark.parametrize(("task", "size"), [(EvenPairs(1, 9), 8192), (EvenPairs(160, 160), 64)])
def test_even_pairs_counts_neighbours_that_differ(task, size, draw):
    batch = draw(task, size)
    for (bits, end), targets in zip(strings(batch), batch.targets[:64]):
        changes = sum(one != other for one, other in itertools.pairwise(bits))
        assert targets[end] == changes % 2 == (bits[0] != bits[-1])


@pytest.mark.parametrize(
    ("task", "size"), [(CycleNavigation(1, 9), 8192), (CycleNavigation(160, 160, places=7), 64)]
)
def test_cycle_navigation_walks(task, size, draw):
    batch = draw(task, size)
    for (tokens, end), targets in zip(strings(batch), batch.targets[:64]):
        place = 0
        for token in tokens:
            if token == 0:
                place = task.places - 1 if place == 0 else place - 1
            elif token == 2:
                place = 0 if place == task.places - 1 else place + 1
        assert targets[end] == place


@pytest.mark.parametrize(
    ("task", "size"),
    [(ModularArithmetic(1, 9), 8192), (ModularArithmetic(60, 60, modulus=3), 64)],
)
def test_modular_arithmetic_is_what_python_says(task, size, draw):
    batch, M = draw(task, size), task.modulus
    for (tokens, end), targets in zip(strings(batch), batch.targets[:64]):
        assert all((token >= M) == i % 2 for i, token in enumerate(tokens))
        expression = "".join(str(t) if t < M else "+-*"[t - M] for t in tokens)
        assert targets[end] == eval(expression) % M, expression
        assert end % 2 == 0  # an odd length: 60 is 59


def test_even_lengths_of_modular_arithmetic_are_rounded_down(draw, even):
    counts = np.bincount(draw(ModularArithmetic(1, 9), 8192).mask.sum(axis=1), minlength=10)
    assert counts[::2].sum() == 0
    even(counts[1::2], np.array([2, 2, 2, 2, 1]) / 9)


def test_tokens_are_uniform(draw, even):
    for task, tokens in (EvenPairs(1, 9), 2), (CycleNavigation(1, 9), 3), (GroupWord(1, 9), 6):
        batch = draw(task, 8192)
        even(np.bincount(batch.inputs[batch.mask], minlength=tokens))
    batch = draw(ModularArithmetic(1, 9), 8192)
    counts = np.bincount(batch.inputs[batch.mask], minlength=8)
    even(counts[:5])
    even(counts[5:])


@pytest.mark.parametrize(
    ("task", "loss", "accuracy"),
    [
        (EvenPairs(1, 40), 0.6758, 0.5125),
        (CycleNavigation(1, 40), 1.5936, 0.21),
        (ModularArithmetic(1, 40), 1.6088, 0.206),
        (EvenPairs(2, 40), np.log(2), 0.5),
        (CycleNavigation(500, 500), np.log(5), 0.2),
        (ModularArithmetic(500, 500), np.log(5), 0.2),
        (CycleNavigation(1, 1), np.log(3), 1 / 3),
    ],
)
def test_floors_are_those_of_the_docstrings(task, loss, accuracy):
    floor = task.floor()
    assert floor.loss == pytest.approx(loss, abs=5e-5)
    assert floor.accuracy == pytest.approx(accuracy, abs=5e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_the_floor_of_modular_arithmetic_by_enumeration(length):
    turns = ["01234" if i % 2 == 0 else "+-*" for i in range(length - 1 + length % 2)]
    results = [eval("".join(each)) % 5 for each in itertools.product(*turns)]
    chances = np.bincount(results, minlength=5) / len(results)
    floor = ModularArithmetic(length, length).floor()
    assert floor.accuracy == pytest.approx(chances.max()) == pytest.approx(chances[0])
    assert floor.loss == pytest.approx(-(chances * np.log(chances)).sum())


@pytest.mark.parametrize(
    ("task", "size"), [(Reverse(2, 7, symbols=3), 8192), (Reverse(40, 40), 64)]
)
def test_reverse_is_a_stack(task, size, draw):
    batch = draw(task, size)
    for (tokens, end), targets, asked in zip(strings(batch), batch.targets[:64], batch.scored):
        stack, said = [], []
        for token in tokens:
            if token < task.symbols:
                assert not said  # all symbols come before all output steps
                stack.append(token)
            else:
                said.append(stack.pop())
        assert not stack and task.min_length <= len(said) <= task.max_length
        assert np.flatnonzero(asked).tolist() == list(range(len(said), end + 1))
        assert targets[asked].tolist() == said
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_reversed_symbols_are_uniform(draw, even):
    batch = draw(Reverse(2, 7, symbols=3), 8192)
    even(np.bincount(batch.targets[batch.scored], minlength=3))
    even(np.bincount(batch.scored.sum(axis=1), minlength=8)[2:])
