from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from longlag.core.packing import buckets, lengths_to_mask, pack


def test_a_mask_is_true_for_as_many_steps_as_a_row_is_long():
    mask = lengths_to_mask(jnp.array([[0, 3], [5, 1]]), 5)
    assert mask.shape == (2, 2, 5) and mask.dtype == bool
    for row, length in zip(mask.reshape(-1, 5), [0, 3, 5, 1]):
        assert row.tolist() == [True] * length + [False] * (5 - length)


def test_packed_documents_can_be_read_back(rng):
    documents = [rng.integers(1, 9, size=n) for n in (3, 0, 1, 9, 4)]
    tokens, resets, mask = pack(documents, 5)
    assert tokens.shape == resets.shape == mask.shape == (4, 5)
    found: list[list[int]] = []
    for token, begins, real in zip(tokens.ravel(), resets.ravel(), mask.ravel()):
        if not real:
            assert token == 0 and not begins
            continue
        if begins:
            found.append([])
        found[-1].append(int(token))
    assert found == [d.tolist() for d in documents if len(d)]
    assert mask.ravel().tolist() == [True] * 17 + [False] * 3


def test_every_sequence_is_in_one_batch_of_its_bucket():
    lengths = np.random.default_rng(1).integers(1, 33, size=100).tolist()
    found = list(buckets(lengths, [8, 16, 32], 7, seed=3))
    assert sorted(i for _, batch in found for i in batch) == list(range(100))
    for border, batch in found:
        assert len(batch) <= 7
        assert all(border // 2 * (border > 8) < lengths[i] <= border for i in batch)
    again = list(buckets(lengths, [8, 16, 32], 7, seed=3))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(found, again))
    borders = [border for border, _ in found]
    assert borders != sorted(borders)  # the buckets are mixed


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pack([[1.0]], 4), r"documents\[0\]: expected integers of shape \[L\], got float"),
        (lambda: pack([[]], 4), "expected at least one that is not empty"),
        (lambda: pack([[1]], 0), "steps: expected at least 1, got 0"),
        (lambda: list(buckets([3], [4, 2], 1, 0)), r"expected ascending numbers, got \[4, 2\]"),
        (lambda: list(buckets([9], [4, 8], 1, 0)), "expected at most 8, the last border; got 9"),
    ],
    ids=["floats", "empty", "no steps", "borders", "too long"],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
