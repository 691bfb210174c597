"""Commands whose order decides: partners, what is held out, and the floor of a bag of words."""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("home_assistant_intents", reason='pip install "longlag[data]"')
pytest.importorskip("sklearn", reason='pip install "longlag[data]"')

from longlag.data import intent_order as data
from longlag.data import templates
from longlag.data.intents import PAD, UNKNOWN, fit_bags
from longlag.tasks import IntentOrder
from longlag.testing import check_task

TASK = IntentOrder(per_frame=40)
COMMANDS = TASK.corpus.commands
KIND_OF = {tuple(n.split()): kind for kind in data.KINDS for n in templates.NAMES[kind]}


LOADED = {0: COMMANDS}


def of_fold(fold: int) -> data.Commands:
    return LOADED[fold] if fold in LOADED else LOADED.setdefault(fold, data.load(40, fold))


def names_in(text: str) -> list[tuple[str, ...]]:
    """The names of the devices, in their order."""
    words = text.split()
    spans = (
        tuple(words[i : i + n]) for i in range(len(words)) for n in (1, 2) if i + n <= len(words)
    )
    return [span for span in spans if span in KIND_OF]


def mentioned(text: str) -> list[str]:
    return [KIND_OF[name] for name in names_in(text)]


def first_acted_on(text: str) -> str:
    """The answer by another way: the places of names and of a few words, without the frames."""
    one, two = mentioned(text)
    words = text.split()
    if words[0] in {"do", "not", "instead", "rather", "before"}:
        return two
    if words[0] in {"after", "once", "as", "first"} or "first and" in text:
        return one
    later = {"after", "once", "as", "first"} & {*words}
    return two if later else one


@pytest.mark.parametrize("fold", range(4))
def test_the_answer_is_the_device_acted_on_first(fold: int):
    commands = of_fold(fold)
    for text, label in zip(commands.texts, commands.labels.tolist()):
        assert data.KINDS[label] == first_acted_on(text), text


def test_partners_have_the_same_words_and_the_other_answer():
    assert len({*COMMANDS.texts}) == len(COMMANDS) == 2 * (18 * (40 + 50 + 100) + 6 * 100)
    for i in range(0, len(COMMANDS), 2):
        one, other = COMMANDS.texts[i : i + 2]
        assert sorted(one.split()) == sorted(other.split()) and one != other
        assert {data.KINDS[k] for k in COMMANDS.labels[i : i + 2]} == {*mentioned(one)}
    assert (COMMANDS.frames[::2] == COMMANDS.frames[1::2]).all()


@pytest.mark.parametrize("fold", range(4))
def test_frames_are_held_out_whole_and_their_words_are_known(fold: int):
    commands = of_fold(fold)
    frames = {part: {*commands.frames[rows].tolist()} for part, rows in commands.parts.items()}
    assert frames["frames"] == {*range(fold, 24, 4)}
    assert frames["train"] == frames["combinations"] == frames["validation"]
    assert frames["train"] == {*range(24)} - frames["frames"]
    words = [
        {w for i in rows for w in commands.texts[i].split()} for rows in commands.parts.values()
    ]
    assert all(of_part <= words[0] for of_part in words)
    families = {
        f for n in frames["frames"] for f, of in data.FAMILIES.items() if data.FRAMES[n] in of
    }
    assert families == {*data.FAMILIES}


def test_a_combination_has_two_names_that_its_frame_never_had():
    names: dict[tuple[str, int], set[tuple[str, ...]]] = collections.defaultdict(set)
    for part, rows in COMMANDS.parts.items():
        for i in rows:
            names[part, int(COMMANDS.frames[i])] |= {*names_in(COMMANDS.texts[i])}
    for frame in {*COMMANDS.frames[COMMANDS.parts["train"]].tolist()}:
        assert not names["combinations", frame] & names["train", frame]
        assert not names["combinations", frame] & names["validation", frame]
        kinds = {KIND_OF[name] for name in names["combinations", frame]}
        assert len(kinds) == len(names["combinations", frame]) >= 6


def test_no_bag_of_words_is_right_in_more_than_half():
    floor = TASK.floor()
    assert (floor.accuracy, floor.loss) == (0.5, math.log(2))
    train = COMMANDS.parts["train"]
    held = np.concatenate([COMMANDS.parts["combinations"], COMMANDS.parts["frames"]])
    texts = [[COMMANDS.texts[i] for i in rows] for rows in (train, held)]
    words, bigrams = fit_bags(texts[0], COMMANDS.labels[train], texts[1]).values()
    right = words == COMMANDS.labels[held]
    np.testing.assert_array_equal(words[::2], words[1::2])
    assert not right.reshape(-1, 2).all(1).any()
    assert 0.48 <= right.mean() <= floor.accuracy
    assert (bigrams == COMMANDS.labels[held]).mean() > 0.6, "neighbours know some order"
    # The best function of the bag, known after the fact, gets exactly half.
    answers = collections.defaultdict(collections.Counter)
    for i in held:
        answers[tuple(sorted(COMMANDS.texts[i].split()))][int(COMMANDS.labels[i])] += 1
    assert sum(max(count.values()) for count in answers.values()) * 2 == len(held)


def test_a_batch_is_of_the_part_and_asked_at_the_last_word(draw):
    check_task(TASK)
    for part in ("train", "frames"):
        task = dataclasses.replace(TASK, part=part)
        batch, corpus = draw(task, 64), TASK.corpus
        there = {(tuple(corpus.tokens[i].tolist()), int(COMMANDS.labels[i])) for i in task.rows}
        last = batch.mask.sum(1) - 1
        assert (batch.scored.argmax(1) == last).all() and (batch.scored.sum(1) == 1).all()
        for row, at, targets in zip(batch.inputs, last, batch.targets):
            assert (tuple(row.tolist()), targets[at]) in there
        assert (batch.inputs[~batch.mask] == PAD).all() and not (batch.inputs == UNKNOWN).any()


def test_a_run_is_validated_and_tested_on_other_parts():
    assert TASK.evaluation_task("validation").part == "validation"
    assert TASK.evaluation_task("test").part == "combinations"
    frames = dataclasses.replace(TASK, part="frames")
    assert frames.evaluation_task("test") == frames
    assert IntentOrder.__doc__ and TASK.picture().replace("\n", "\n        ") in IntentOrder.__doc__
    said = TASK.picture().splitlines()[0].removeprefix("inputs").strip()
    assert TASK.picture().endswith(first_acted_on(said))


@pytest.mark.parametrize(
    "dials", [{"fold": 4}, {"fold": -1}, {"folds": 1}, {"per_frame": 0}, {"part": "test"}]
)
def test_impossible_dials_are_refused(dials):
    with pytest.raises(ValueError, match=next(iter(dials))):
        IntentOrder(**dials)
    if "part" not in dials:
        with pytest.raises(ValueError, match="load: expected per_frame"):
            data.load(**{"per_frame": 2, **dials})


def test_a_frame_with_too_few_pairs_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "_DRAWS", 0)
    with pytest.raises(
        ValueError, match=r"'\{first\} not the \{device\}': expected 100 pairs, got 0"
    ):
        data.load(2)
