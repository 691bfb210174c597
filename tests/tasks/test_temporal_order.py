"""Temporal order against a reader that skips the noise."""

import numpy as np
import pytest

from longlag.tasks import TemporalOrder

LETTERS = "XYabcdEB"
ORDERS = {
    2: ["XX", "XY", "YX", "YY"],
    3: ["XXX", "XXY", "XYX", "XYY", "YXX", "YXY", "YYX", "YYY"],
}


@pytest.mark.parametrize(
    ("task", "size"),
    [
        (TemporalOrder(20), 8192),
        (TemporalOrder(10, symbols=3), 64),
        (TemporalOrder(100, symbols=3), 8192),
    ],
    ids=str,
)
def test_the_class_is_the_order_of_the_symbols(task, size, draw):
    batch = draw(task, size)
    for row in range(64):
        text = "".join(LETTERS[token] for token in batch.inputs[row][batch.mask[row]])
        end = len(text) - 1
        assert task.length <= len(text) <= task.length * 1.1
        assert text.startswith("E") and text.endswith("B") and not set("EB") & set(text[1:-1])
        order = text[1:-1].translate(str.maketrans("", "", "abcd"))
        assert ORDERS[task.symbols][batch.targets[row, end]] == order
        assert np.flatnonzero(batch.scored[row]).tolist() == [end]
        assert batch.mask[row, : end + 1].all()
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_places_of_1997_with_three_symbols(draw, even):
    batch = draw(TemporalOrder(100, symbols=3), 8192)
    places = [np.flatnonzero(row) for row in (batch.inputs < 2) & batch.mask]
    for i, (first, last) in enumerate([(10, 20), (33, 43), (66, 76)]):
        counts = np.bincount([row[i] for row in places], minlength=110)
        assert counts.sum() == counts[first : last + 1].sum() == 8192
        even(counts[first : last + 1])
    even(np.bincount(batch.mask.sum(axis=1), minlength=111)[100:])
    even(np.bincount(batch.targets[batch.scored], minlength=8))


def test_places_with_two_symbols_scale_with_the_length(draw, even):
    batch = draw(TemporalOrder(20), 8192)
    places = [np.flatnonzero(row) for row in (batch.inputs < 2) & batch.mask]
    even(np.bincount([row[0] for row in places])[2:])
    even(np.bincount([row[1] for row in places])[10:])
    assert {(min(p), max(p)) for p in zip(*places)} == {(2, 4), (10, 12)}
    noise = batch.inputs[(batch.inputs >= 2) & (batch.inputs < 6)]
    even(np.bincount(noise)[2:])
    even(np.bincount(batch.targets[batch.scored], minlength=4))
