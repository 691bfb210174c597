"""The tasks of Delétang et al. (2023) that need a stack or a tape, against Python's own numbers."""

import collections
import itertools
import math
import random

import numpy as np
import pytest

from longlag.tasks import (
    BinaryAddition,
    BinaryMultiplication,
    BucketSort,
    ComputeSqrt,
    DuplicateString,
    MissingDuplicate,
    ModularArithmeticBrackets,
    OddsFirst,
    SolveEquation,
    StackManipulation,
)
from longlag.tasks.binary_multiplication import _chances

END = 2


def dialogues(task, batch):
    """The string of each row, and what is to be said after it, with what of that is scored."""
    for tokens, targets, weights, scored, mask in zip(
        batch.inputs, batch.targets, batch.weights, batch.scored, batch.mask
    ):
        output = np.flatnonzero(mask & (tokens == task.in_features - 1))
        start = int(output[0])
        assert output.tolist() == list(range(start, mask.sum())) and mask[:start].all()
        assert np.flatnonzero(weights).tolist() == output.tolist() and weights.max() == 1
        assert task.min_length <= start <= task.max_length and not scored[:start].any()
        yield tokens[:start].tolist(), targets[output].tolist(), scored[output].tolist()


def questions(batch):
    """The string of each row, and its answer, which is asked at the last token."""
    for tokens, targets, weights, scored, mask in zip(
        batch.inputs, batch.targets, batch.weights, batch.scored, batch.mask
    ):
        length = int(mask.sum())
        assert mask[:length].all() and scored.tolist() == (weights == 1).tolist()
        assert np.flatnonzero(weights).tolist() == [length - 1]
        yield tokens[:length].tolist(), int(targets[length - 1])


@pytest.mark.parametrize(
    ("kind", "shortest"),
    [
        (BinaryAddition, 3),
        (BinaryMultiplication, 3),
        (BucketSort, 1),
        (ComputeSqrt, 1),
        (DuplicateString, 1),
        (MissingDuplicate, 2),
        (ModularArithmeticBrackets, 1),
        (OddsFirst, 1),
        (SolveEquation, 3),
        (StackManipulation, 1),
    ],
)
def test_lengths_are_those_of_the_paper_where_there_is_something_to_ask(kind, shortest):
    assert kind() == kind(shortest, 40) and kind().at_lag(500) == kind(500, 500)
    with pytest.raises(ValueError, match=f"min_length >= {shortest}, got"):
        kind(shortest - 1, 40)


@pytest.mark.parametrize(
    ("kind", "say"),
    [
        (DuplicateString, lambda string: string + string),
        (OddsFirst, lambda string: string[1::2] + string[::2]),
        (BucketSort, sorted),
    ],
)
@pytest.mark.parametrize(
    ("dials", "size"), [((1, 7, 3), 8192), ((2, 2, 2), 64), ((160, 161, 5), 16)], ids=str
)
def test_strings_of_symbols(kind, say, dials, size, draw, even):
    task = kind(*dials)
    rows = list(dialogues(task, draw(task, size)))
    for string, said, scored in rows:
        assert said == say(string) and all(scored)
    even(np.bincount([symbol for string, *_ in rows for symbol in string]))
    even(np.bincount([len(string) - task.min_length for string, *_ in rows]))


@pytest.mark.parametrize(
    ("task", "size"), [(StackManipulation(1, 7), 8192), (StackManipulation(160, 160), 16)]
)
def test_a_stack_is_pushed_and_popped(task, size, draw, even):
    sizes, actions = collections.Counter(), []
    for string, said, scored in dialogues(task, draw(task, size)):
        stack = list(itertools.takewhile(lambda token: token < 2, string))
        sizes[len(string), len(stack)] += 1
        actions += string[len(stack) :]
        for action in string[len(stack) :]:
            assert action in (2, 3, 4)  # no bit of the stack after an action
            if action > 2:
                stack.append(action - 3)
            elif stack:
                stack.pop()
        left = [*reversed(stack), END]
        assert said == left + [0] * (len(string) + 1 - len(left))
        assert scored == [i < len(left) for i in range(len(said))]
    even(np.bincount(actions)[2:])
    if size > 64:
        assert sizes[1, 1] and not sizes[2, 2]
        even([sizes[7, i] for i in range(1, 7)])


def number(bits):
    """From the lowest bit."""
    return int("".join(map(str, reversed(bits))), 2)


def bits(value):
    return [int(bit) for bit in reversed(f"{value:b}")]


@pytest.mark.parametrize(
    ("kind", "result", "spare"),
    [(BinaryAddition, int.__add__, 1), (BinaryMultiplication, int.__mul__, 0)],
)
@pytest.mark.parametrize(("lengths", "size"), [((3, 9), 8192), ((120, 121), 64), ((500, 500), 8)])
def test_arithmetic_is_that_of_pythons_integers(kind, result, spare, lengths, size, draw):
    task = kind(*lengths)
    for string, said, scored in dialogues(task, draw(task, size)):
        operator = string.index(2)
        one, other = number(string[:operator]), number(string[operator + 1 :])
        assert one > 0 and other > 0
        answer = [*bits(result(one, other)), END]
        assert said == answer + [0] * (len(string) + spare - len(answer))
        assert scored == [i < len(answer) for i in range(len(said))]


def test_operands_share_the_length_in_any_way_and_are_uniform(draw, even):
    task = BinaryAddition(6, 6)
    strings = [string for string, *_ in dialogues(task, draw(task, 8192))]
    even(np.bincount([s.index(2) - 1 for s in strings], minlength=4))
    even(np.bincount([number(s[:2]) - 1 for s in strings if s.index(2) == 2], minlength=3))
    even(np.bincount([number(s[3:]) - 1 for s in strings if s.index(2) == 2], minlength=7))
    task = ComputeSqrt(34, 34)
    strings = [string for string, *_ in dialogues(task, draw(task, 8192))]
    ones = np.sum(strings, axis=0)
    for count in ones:  # below and above the 30 bits that are drawn as one integer
        even([count, len(strings) - count])


@pytest.mark.parametrize(
    ("lengths", "size"), [((1, 9), 8192), ((49, 52), 64), ((105, 108), 64), ((499, 500), 8)]
)
def test_roots_are_those_of_pythons_integers(lengths, size, draw):
    """From 51 bits on, and again from 107, it takes one digit of 28 bits more to hold the root."""
    task = ComputeSqrt(*lengths)
    for string, said, scored in dialogues(task, draw(task, size)):
        value = number(string[::-1])
        root = math.isqrt(value)
        assert value > 0 and len(said) == math.ceil(len(string) / 2) and all(scored)
        assert "".join(map(str, said)) == f"{root:b}".zfill(len(said))


@pytest.mark.parametrize(
    ("task", "size"), [(MissingDuplicate(2, 9), 8192), (MissingDuplicate(160, 161), 64)]
)
def test_the_missing_bit_makes_both_halves_alike(task, size, draw, even):
    holes, answers = [], []
    for string, answer in questions(draw(task, size)):
        if len(string) % 2:
            assert string.pop() == 3
        half, hole = len(string) // 2, string.index(2)
        fits = []
        for bit in 0, 1:
            filled = [*string[:hole], bit, *string[hole + 1 :]]
            assert set(filled) <= {0, 1}
            fits.append(filled[:half] == filled[half:])
        assert fits == [answer == 0, answer == 1]
        answers.append(answer)
        holes += [hole] if half == 4 else []
    even(np.bincount(answers))
    if holes:
        even(np.bincount(holes, minlength=8))


def write(tokens, modulus, signs):
    return "".join(str(t) if t < modulus else signs[t - modulus] for t in tokens)


@pytest.mark.parametrize(
    ("task", "size"),
    [
        (ModularArithmeticBrackets(1, 13), 8192),
        (ModularArithmeticBrackets(60, 61, modulus=3), 64),
        (ModularArithmeticBrackets(160, 160, modulus=7), 16),
    ],
)
def test_brackets_come_to_what_python_says(task, size, draw):
    for tokens, answer in questions(draw(task, size)):
        expression = write(tokens, task.modulus, "+-*()")
        assert eval(expression) % task.modulus == answer, expression


@pytest.mark.parametrize(
    ("task", "size"),
    [
        (SolveEquation(3, 13), 8192),
        (SolveEquation(60, 61, modulus=3), 64),
        (SolveEquation(160, 160, modulus=7), 16),
    ],
)
def test_one_number_solves_the_equation(task, size, draw):
    for tokens, answer in questions(draw(task, size)):
        equation = write(tokens, task.modulus, "+-()x=")
        left, right = equation.split("=")
        assert left.count("x") == 1 and right == str(int(right) % task.modulus)
        program = compile(left, "", "eval")
        values = [eval(program, {"x": x}) % task.modulus for x in range(task.modulus)]
        assert [x for x, value in enumerate(values) if value == int(right)] == [answer], equation


def forms(length):
    """How likely the published code makes each form, with d for a digit and o for an operator."""
    if length < 5:
        return {["d", "-d", "(d)", "(-d)"][length - 1]: 1.0}
    chances = collections.defaultdict(float)
    for left in range(1, length - 3):
        for (one, p), (other, q) in itertools.product(
            forms(left).items(), forms(length - 3 - left).items()
        ):
            chances[f"({one}o{other})"] += p * q / (length - 4)
    return chances


def form(expression):
    """An operator stands after a digit or a bracket that closes; a sign does not."""
    return "".join(
        "d" if t.isdigit() else "o" if t in "+-*" and before in "0123456789x)" else t
        for before, t in itertools.pairwise("(" + expression)
    )


def agree(even, seen, chances):
    counts = collections.Counter(seen)
    assert set(counts) <= set(chances)
    even([counts[key] for key in chances], list(chances.values()))


def test_brackets_have_the_published_distribution(draw, even):
    task = ModularArithmeticBrackets(13, 13)
    rows = [write(tokens, 5, "+-*()") for tokens, _ in questions(draw(task, 8192))]
    agree(even, map(form, rows), forms(13))
    even(np.bincount([int(t) for row in rows for t in row if t.isdigit()]))
    pairs = [(row, form(row)) for row in rows]
    signs = collections.Counter(t for row, f in pairs for t, k in zip(row, f) if k == "o")
    even([signs[sign] for sign in "+-*"])


def test_equations_have_the_published_distribution(draw, even):
    chances = collections.defaultdict(float)
    for expression, chance in forms(10).items():
        for place in range(10):
            x = next(i for i in range(place, 20) if (expression * 2)[i] == "d") % 10
            chances[expression[:x] + "x" + expression[x + 1 :]] += chance / 10
    task = SolveEquation(12, 12)
    rows = [write(tokens, 5, "+-()x=") for tokens, _ in questions(draw(task, 8192))]
    agree(even, (form(row[:-2]) for row in rows), chances)
    answers = [answer for _, answer in questions(draw(task, 8192))]
    even(np.bincount(answers))
    # The right side tells nothing of x.
    even(np.bincount([5 * int(row[-1]) + answer for row, answer in zip(rows, answers)]))


def ended_floor(results, spare):
    """By enumeration: (string length, result) for all cases of a length, alike."""
    loss, right, asked, steps = 0.0, 0.0, 0.0, 0
    for length, (chances, values) in results.items():
        outputs = length + spare
        said = np.zeros((len(values), outputs), int)
        scored = np.zeros((len(values), outputs), bool)
        for row, value in enumerate(values):
            answer = [*bits(value), END]
            said[row, : len(answer)], scored[row, : len(answer)] = answer, True
        for place in range(outputs):
            p = np.bincount(said[:, place], chances, 3)
            loss -= (p[p > 0] * np.log(p[p > 0])).sum()
            in_time = scored[:, place]
            hits = np.bincount(said[in_time, place], chances[in_time], 3)
            right, asked = right + hits.max(), asked + hits.sum()
        steps += outputs
    return loss / steps, right / asked


@pytest.mark.parametrize(
    ("kind", "result", "spare"),
    [(BinaryAddition, int.__add__, 1), (BinaryMultiplication, int.__mul__, 0)],
)
@pytest.mark.parametrize("lengths", [(3, 3), (3, 8), (10, 10)], ids=str)
def test_floors_of_arithmetic_by_enumeration(kind, result, spare, lengths):
    results = {}
    for length in range(lengths[0], lengths[1] + 1):
        chances, values = [], []
        for share in range(1, length - 1):
            one, other = 2**share, 2 ** (length - 1 - share)
            values += [result(a, b) for a in range(1, one) for b in range(1, other)]
            count = (one - 1) * (other - 1)
            chances += [1 / count / (length - 2)] * count
        results[length] = np.array(chances), values
    loss, accuracy = ended_floor(results, spare)
    floor = kind(*lengths).floor()
    assert floor.loss == pytest.approx(loss) and floor.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize("shared", [(12, 12), (3, 20), (19, 10)], ids=str)
def test_bits_of_long_products_are_as_likely_as_among_many(shared):
    source = random.Random(0)
    n, m = (2**length - 1 for length in shared)
    products = np.array([source.randint(1, n) * source.randint(1, m) for _ in range(200_000)])
    reached = products >> np.arange(sum(shared))[:, None]
    one, more = _chances(*shared)
    np.testing.assert_allclose(one, (reached % 2).mean(axis=1), atol=0.008)
    np.testing.assert_allclose(more, (reached > 0).mean(axis=1), atol=0.008)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8])
def test_the_floor_of_roots_by_enumeration(length):
    places = (length + 1) // 2
    roots = np.array([math.isqrt(value) for value in range(1, 2**length)])
    ones = (roots >> np.arange(places)[:, None] & 1).mean(axis=1)
    chances = np.stack([ones, 1 - ones])
    floor = ComputeSqrt(length, length).floor()
    assert floor.accuracy == pytest.approx(chances.max(axis=0).mean())
    terms = chances * np.log(np.where(chances > 0, chances, 1))
    assert floor.loss == pytest.approx(-terms.sum(axis=0).mean())


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_the_floor_of_sorting_by_enumeration(length):
    rows = np.sort(list(itertools.product(range(3), repeat=length)))
    chances = np.stack([np.bincount(place, minlength=3) for place in rows.T]) / len(rows)
    floor = BucketSort(length, length, symbols=3).floor()
    assert floor.accuracy == pytest.approx(chances.max(axis=1).mean())
    terms = chances * np.log(np.where(chances > 0, chances, 1))
    assert floor.loss == pytest.approx(-terms.sum(axis=1).mean())


@pytest.mark.parametrize(
    ("task", "loss", "accuracy"),
    [
        (StackManipulation(), 0.6760, 0.4866),
        (ModularArithmeticBrackets(), 1.5934, 0.2701),
        (BinaryAddition(), 0.6537, 0.5084),
        (BinaryMultiplication(), 0.7383, 0.5268),
        (ComputeSqrt(), 0.6803, 0.5330),
        (BucketSort(), 0.6343, 0.7154),
        (SolveEquation(), math.log(5), 0.2),
        (MissingDuplicate(), math.log(2), 0.5),
        (DuplicateString(), math.log(2), 0.5),
        (OddsFirst(symbols=3), math.log(3), 1 / 3),
        (ModularArithmeticBrackets(500, 500), 1.5721, 0.3160),
        (BinaryAddition(500, 500), 0.6061, 0.5),
        (BinaryMultiplication(500, 500), 0.6956, 0.5012),
        (BucketSort(500, 500), 0.1437, 0.9365),
        (ComputeSqrt(2000, 2000), math.log(2), 0.5005),
    ],
)
def test_floors_are_those_of_the_docstrings(task, loss, accuracy):
    floor = task.floor()
    assert floor.loss == pytest.approx(loss, abs=2e-4)
    assert floor.accuracy == pytest.approx(accuracy, abs=1e-4)
