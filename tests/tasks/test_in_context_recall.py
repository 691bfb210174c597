"""In-context recall against a reader that goes through the stream token by token."""

import collections
import itertools

import numpy as np
import pytest

from longlag.tasks import InContextRecall


def stream(batch):
    """The tokens of each sequence, the last of which is a target only."""
    np.testing.assert_array_equal(batch.targets[:, :-1], batch.inputs[:, 1:])
    return np.concatenate([batch.inputs, batch.targets[:, -1:]], axis=1).tolist()


def kind(token, task):
    ends = itertools.accumulate([task.keys, task.values, task.noise_tokens])
    return next(
        (name for name, end in zip(("key", "value", "noise"), ends) if token < end), "blank"
    )


def read(tokens, task):
    """The pairs of a stream, `(key, value)`, and what a reader knows of each next token.

    It needs no frames: a run of key tokens is a key, the run of value tokens after it its value.
    """
    pairs, said, book, key, value = [], [], {}, (), ()
    for now, after in zip(tokens, [*tokens[1:], None]):
        if kind(now, task) == "key":
            key = (now,) if value else (*key, now)
            value = ()
        elif kind(now, task) == "value":
            value += (now,)
        # A key that may have another token is not known to be over until its value begins.
        over = len(key) == task.key_tokens or value
        known = book.get(key, ())[len(value) :] if over else ()
        said.append(known[0] if known else None)
        ends = after is None or kind(after, task) != "value"
        if value and ends:
            assert book.setdefault(key, value) == value  # what comes back is what came
            pairs.append((key, value))
            key, value = (), ()
    return pairs, said[:-1]


PLAIN, SHORT = InContextRecall(16, 3, 4), InContextRecall(4, 2, 2)
NOISY = InContextRecall(20, 3, 4, noise=0.5, noise_tokens=2)
FUZZY = InContextRecall(30, 4, 5, key_tokens=3, value_tokens=2)
BOTH = InContextRecall(24, 3, 4, key_tokens=2, value_tokens=2, noise=0.3, noise_tokens=3)
MAD = [
    InContextRecall(),
    InContextRecall(noise=0.2, noise_tokens=16),
    InContextRecall(126, 7, 8, key_tokens=3, value_tokens=3),
]


@pytest.mark.parametrize("task", [PLAIN, SHORT, NOISY, FUZZY, BOTH, *MAD], ids=str)
def test_the_reader_knows_what_is_scored_and_nothing_else(task, draw):
    batch = draw(task)
    assert batch.inputs.shape[1] == task.length - 1
    assert batch.mask is None and np.all(batch.weights == 1)
    for tokens, scored, targets in zip(stream(batch), batch.scored, batch.targets):
        pairs, said = read(tokens, task)
        np.testing.assert_array_equal(scored, [s is not None for s in said])
        assert [s for s in said if s is not None] == targets[scored].tolist()
        for key, value in pairs:
            assert 1 <= len(set(key)) == len(key) <= task.key_tokens
            assert 1 <= len(set(value)) == len(value) <= task.value_tokens
        (asked, _), before = pairs[-1], [key for key, _ in pairs[:-1]]
        assert len(asked) == len(pairs[0][0]) == task.key_tokens
        assert asked in before


@pytest.mark.parametrize("task", [NOISY, BOTH], ids=str)
def test_frames_are_noise_as_often_as_the_dial_says_and_never_at_the_ends(task, draw, even):
    frames = np.array(stream(draw(task, 8192))).reshape(8192, -1, task.frame)
    first = task.keys + task.values
    noise = (frames >= first) & (frames < first + task.noise_tokens)
    assert np.all(noise.any(axis=2) == noise.all(axis=2))
    frames_of_noise = noise.any(axis=2)
    assert not frames_of_noise[:, [0, -1]].any()
    inner = frames_of_noise[:, 1:-1].ravel()
    even([inner.sum(), (~inner).sum()], [task.noise, 1 - task.noise])
    even(np.bincount(frames[noise] - first, minlength=task.noise_tokens))


def test_keys_and_values_of_every_size_are_as_likely(draw, even):
    task = InContextRecall(18, 3, 4, key_tokens=2, value_tokens=1)  # six frames of three
    pairs = [read(tokens, task)[0] for tokens in stream(draw(task, 8192))]
    second = collections.Counter(row[1][0] for row in pairs)
    keys = [*itertools.permutations(range(3), 1), *itertools.permutations(range(3), 2)]
    assert set(second) == set(keys)
    even([second[key] for key in keys], [1 / 6] * 3 + [1 / 12] * 6)
    opening = collections.Counter(row[0] for row in pairs)  # a key of full size, any value
    assert len(opening) == sum(1 for key in keys if len(key) == 2) * 4
    even(list(opening.values()))


def test_sizes_of_values_and_the_place_in_the_frame_are_as_likely(draw, even):
    task = InContextRecall(8, 2, 3, key_tokens=1, value_tokens=3)
    frames = np.array(stream(draw(task, 16384))).reshape(16384, 2, 4)[:, 0]
    shapes = collections.Counter("".join(kind(t, task)[0] for t in frame) for frame in frames)
    # Values of one token start in three places, of two in two, of three in one.
    chances = {"kvbb": 1 / 9, "bkvb": 1 / 9, "bbkv": 1 / 9, "kvvb": 1 / 6, "bkvv": 1 / 6}
    chances["kvvv"] = 1 / 3
    assert set(shapes) == set(chances)
    even([shapes[shape] for shape in chances], list(chances.values()))


def test_the_last_frame_asks_for_any_key_that_came_however_often(draw, even):
    task = InContextRecall(8, 2, 2)
    counts = [0, 0]
    for tokens in stream(draw(task, 8192)):
        *before, asked = [key for key, _ in read(tokens, task)[0]]
        if len(set(before)) == 2:  # one came once, the other twice
            counts[before.count(asked) - 1] += 1
    even(counts)


@pytest.mark.parametrize("task", [PLAIN, SHORT, NOISY, FUZZY, BOTH], ids=str)
def test_the_floor_is_made_of_how_often_each_token_comes_at_each_step(task, draw, even):
    batch, floor, chances = draw(task, 16384), task.floor(), task.chances()
    assert chances.shape == (task.time_steps, task.out_features)
    for targets, expected in zip(batch.targets.T, chances):
        even(np.bincount(targets, minlength=task.out_features), expected)
    surprise = -np.log(chances[np.arange(task.time_steps), batch.targets]).mean()
    assert floor.loss == pytest.approx(surprise, abs=0.01)
    values = np.bincount(batch.targets[batch.scored] - task.keys, minlength=task.values) / 16384
    assert len(values) == task.values  # nothing else is recalled
    np.testing.assert_allclose(values / values.sum(), floor.accuracy, atol=0.02)
