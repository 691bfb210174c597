"""The next byte: pieces of the real text, and batches that follow each other."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from longlag.data import text as data
from longlag.tasks import NextByte
from longlag.training import evaluation_batch

TASK = NextByte(length=1000)
B = 3


def test_targets_are_the_bytes_that_follow():
    whole = data.load().train.tobytes()
    batch = jax.device_get(TASK.sample(jax.random.key(0), B))
    assert batch.inputs.dtype == batch.targets.dtype == np.int32 and batch.weights.all()
    for read, following in zip(batch.inputs, batch.targets):
        at = whole.find(bytes(read.astype(np.uint8)))
        assert at >= 0 and bytes(following.astype(np.uint8)) == whole[at + 1 : at + 1001]


@pytest.mark.parametrize("purpose", ["validation", "test"])
def test_evaluation_reads_its_own_part(purpose):
    part = getattr(data.load(), purpose).tobytes()
    batch = jax.device_get(evaluation_batch(TASK, B, purpose))
    assert all(bytes(row.astype(np.uint8)) in part for row in batch.inputs)
    assert dataclasses.replace(TASK, part="train").evaluation_task(purpose).part == purpose


def test_batches_follow_each_other_and_rows_stand_apart():
    at_step = jax.jit(TASK.at_step, static_argnums=2)
    pieces = (len(data.load().train) - 1) // 1000
    batches = [jax.device_get(at_step(jax.random.key(5), step, B)) for step in range(pieces)]
    whole = data.load().train[: pieces * 1000]
    for row in range(B):
        read = np.concatenate([batch.inputs[row] for batch in batches])
        (begun,) = np.flatnonzero([batch.resets[row].any() for batch in batches])
        # From where the text begins anew: all of it, once, in order.
        assert np.array_equal(np.roll(read, -1000 * begun), whole)
        assert batches[begun].resets[row].tolist() == [True] + [False] * 999
    starts = {int(np.flatnonzero([b.resets[row].any() for b in batches])[0]) for row in range(B)}
    assert max(np.diff(sorted(starts))) > pieces // 4, "rows read stretches of their own"
    other = at_step(jax.random.key(6), 0, B)
    assert not np.array_equal(other.inputs, batches[0].inputs)


def test_the_floor_is_the_entropy_under_the_frequencies():
    text = data.load()
    chances = np.bincount(text.train, minlength=256) / len(text.train)
    floor = TASK.floor()
    assert floor.accuracy == pytest.approx(np.mean(text.train == chances.argmax()))
    assert floor.loss == pytest.approx(
        -(chances[chances > 0] * np.log(chances[chances > 0])).sum(), 1e-3
    )
    tested = TASK.evaluation_task("test").floor()
    assert tested.loss != floor.loss


def test_impossible_ones_are_refused():
    for field, value, message in (
        ("length", 0, "length >= 1"),
        ("text", "jargom", "unknown text"),
        ("part", "held", "unknown NextByte.part"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TASK, **{field: value})
    with pytest.raises(ValueError, match="a length below the 84,090 bytes of the part"):
        NextByte(length=90_000, part="test").sample(jax.random.key(0), 1)
