"""The real text from its package, and what is counted in a text."""

from __future__ import annotations

import collections
import hashlib
import math

import jax
import numpy as np
import pytest

from longlag.data import text as data
from longlag.tasks import NextByte


def test_the_text_is_that_of_the_package_in_three_parts():
    text = data.load()
    assert [len(part) for part in (text.train, text.validation, text.test)] == [
        1_513_637, 84_090, 84_090,
    ]  # fmt: skip
    whole = np.concatenate([text.train, text.validation, text.test])
    assert whole.dtype == np.uint8 and b"The Jargon File" in whole[:200].tobytes()
    assert hashlib.sha256(whole.tobytes()).hexdigest()[:12] == "40dfb4b98191"
    with pytest.raises(ValueError, match="unknown text: expected one of jargon"):
        data.load("jargom")


@pytest.mark.deep  # 25 s of unpacking, on each fresh machine
def test_enwik8_is_the_usual_one_with_the_usual_parts():
    text = data.load("enwik8")
    assert [len(part) for part in (text.train, text.validation, text.test)] == [
        90_000_000, 5_000_000, 5_000_000,
    ]  # fmt: skip
    whole = np.concatenate([text.train, text.validation, text.test])
    assert hashlib.sha256(whole.tobytes()).hexdigest()[:12] == "2b49720ec4d7"
    # Its pieces are read out of the whole, wherever they lie.
    task = NextByte("enwik8", length=16)
    batch = jax.jit(task.sample, static_argnums=1)(jax.random.key(0), 3)
    assert all(
        text.train.tobytes().find(row.astype(np.uint8).tobytes()) >= 0
        for row in np.asarray(batch.inputs)
    )


@pytest.mark.parametrize("order", [1, 3, 8])
def test_repeats_are_those_of_a_search(order: int):
    text = np.random.default_rng(order).integers(0, 2, 200).astype(np.uint8)
    raw = text.tobytes()
    expected = []
    for end in range(1, len(raw) + 1):
        gram = raw[max(end - order, 0) : end]
        before = raw.rfind(gram, 0, end - 1) if end >= order else -1
        expected.append(0 if before < 0 else end - order - before)
    assert data.repeats(text, order).tolist() == expected and max(expected) > 1


def test_witten_bell_is_the_equation_byte_by_byte():
    rng = np.random.default_rng(0)
    train, test = (rng.integers(97, 101, n).astype(np.uint8) for n in (300, 40))
    test[20] = 7  # never seen in training, and so are the contexts that hold it
    raw, order = train.tobytes(), 3
    followed: dict[bytes, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for n in range(1, order + 1):
        for end in range(n, len(raw) + 1):
            followed[raw[end - n : end - 1]][raw[end - 1]] += 1

    def chance(history: bytes, byte: int) -> float:
        shorter = chance(history[1:], byte) if history else 1 / 256
        seen = followed.get(history)
        if not seen:
            return shorter
        return (seen[byte] + len(seen) * shorter) / (sum(seen.values()) + len(seen))

    asked = test.tobytes()
    expected = [
        -math.log2(chance(asked[max(i - order + 1, 0) : i], asked[i])) for i in range(len(asked))
    ]
    np.testing.assert_allclose(data.witten_bell(train, test, order), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="expected 1 to 8 bytes, got 9"):
        data.witten_bell(train, test, 9)
