"""The task of nine speakers: what is drawn, what is held out, and that each is read once."""

from __future__ import annotations

import numpy as np
import pytest

from longlag.data.japanese_vowels import load
from longlag.tasks import JapaneseVowels
from longlag.training import Training, evaluate, evaluation_batch
from tests.helpers.tiny import Canned


def rows(batch) -> list[bytes]:
    """The real steps of each sequence, as bytes."""
    return [x[m].tobytes() for x, m in zip(np.asarray(batch.inputs), np.asarray(batch.mask))]


def standardised(part, by) -> list[bytes]:
    """The oracle: utterance by utterance, in float64 but for the last rounding."""
    steps = np.concatenate([x[:n] for x, n in zip(by.cepstra, by.lengths)])
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    return [((x[:n] - mean) / deviation).tobytes() for x, n in zip(part.cepstra, part.lengths)]


@pytest.mark.parametrize("fold", [-1, 1])
def test_training_draws_what_is_not_held_out_and_asks_at_its_last_step(fold: int, draw):
    task = JapaneseVowels(fold, folds=3)
    batch, train = draw(task, 256), load().train
    within = np.arange(270) % 30
    kept = train[(within < 10) | (within >= 20)] if fold == 1 else train
    known = dict(zip(standardised(kept, kept), kept.speakers))
    drawn = rows(batch)
    assert set(drawn) <= set(known) and len(set(drawn)) > 100
    assert (batch.scored.sum(axis=1) == 1).all() and batch.inputs.shape == (256, 29, 12)
    assert (batch.scored.argmax(axis=1) == batch.mask.sum(axis=1) - 1).all()
    assert not batch.inputs[~batch.mask].any() and not batch.targets[~batch.scored].any()
    assert [known[row] for row in drawn] == batch.targets[batch.scored].tolist()
    assert abs(np.bincount(batch.targets[batch.scored], minlength=9) - 256 / 9).max() < 25


def test_the_test_part_is_read_whole_and_once():
    train, test = load().train, load().test
    batch = evaluation_batch(JapaneseVowels(), 370, "test")
    assert rows(batch) == standardised(test, train) and batch.scored.sum() == 370
    assert np.asarray(batch.targets)[np.asarray(batch.scored)].tolist() == test.speakers.tolist()
    unseen = {*standardised(train, train)}
    assert {*rows(evaluation_batch(JapaneseVowels(), 64, "validation"))} <= unseen


def test_a_larger_evaluation_set_counts_no_utterance_twice():
    task, few = JapaneseVowels(2, folds=10), 27
    larger = evaluation_batch(task, few + 5, "validation")
    assert larger.scored.sum() == few == len(set(rows(larger)))
    # The model is right on the first half of the fold and wrong on the rest; padding is no answer.
    right = np.asarray(larger.targets)[:, :, None] == np.arange(9)
    answers = np.where(np.arange(few + 5)[:, None, None] < few // 2, right, ~right)
    training = Training(seeds_as="vmap")
    found = evaluate(Canned(), task, training, answers[None].astype(np.float32), larger)
    assert float(found.accuracy[0]) == pytest.approx(13 / 27)
    assert float(found.exact_match[0]) == pytest.approx(13 / 27)


def test_a_smaller_evaluation_set_is_spread_over_the_speakers():
    smaller = evaluation_batch(JapaneseVowels(0), 18, "validation")
    assert np.asarray(smaller.targets).max(axis=1).tolist() == np.repeat(range(9), 2).tolist()
    assert len(set(rows(smaller))) == 18


@pytest.mark.parametrize("folds", [4, 5])
def test_folds_divide_the_training_part_speaker_by_speaker(folds: int):
    parts = [JapaneseVowels(k, folds, "fold").utterances for k in range(folds)]
    assert sum(map(len, parts)) == 270
    for part in parts:
        assert {*np.bincount(part.speakers)} <= {30 // folds, 30 // folds + 1}
    # In their own units the folds of one speaker are the training part again, nothing twice.
    train = load().train
    lengths = np.concatenate([part.lengths[part.speakers == 4] for part in parts])
    assert lengths.tolist() == train.lengths[train.speakers == 4].tolist()


def test_a_run_with_a_fold_never_sees_the_test():
    task = JapaneseVowels(3)
    assert (
        task.evaluation_task("validation")
        == task.evaluation_task("test")
        == JapaneseVowels(3, part="fold")
    )
    with pytest.raises(ValueError, match=r"no part 'test' with fold = 3, got .*fold=3"):
        JapaneseVowels(3, part="test")
    with pytest.raises(ValueError, match="no part 'fold' with fold = -1"):
        JapaneseVowels(part="fold")
    with pytest.raises(ValueError, match="lag = 29"):
        task.at_lag(58)


def test_the_floor_is_any_speaker():
    floor = JapaneseVowels().floor()
    assert floor.accuracy == 1 / 9 and floor.loss == pytest.approx(np.log(9))
