import functools
import itertools
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("home_assistant_intents", reason='pip install "longlag[data]"')
pytest.importorskip("hassil", reason='pip install "longlag[data]"')

from hassil import sample_expression

import longlag.data
from longlag.data import intents, templates
from longlag.data.intents import LEAST, PAD, UNKNOWN, Utterances, Vocabulary, tokenize


@pytest.fixture(scope="module")
def utterances():
    return intents.load(per_template=12)


@pytest.fixture(scope="module")
def everything():
    return intents.load(per_template=30)


@pytest.fixture(scope="module")
def divided(everything):
    kept = intents.keep_divisible(everything)
    return kept, intents.folds(kept)


def own(utterances, label):
    """The templates of an intent that gave a text that no other one gave."""
    alone = np.delete(np.arange(len(utterances)), [*utterances.shared])
    return np.unique(utterances.templates[alone[utterances.labels[alone] == label]])


def owners(utterances, rows):
    """All templates that gave a text of some rows, not only the first."""
    first = utterances.templates.tolist()
    return {own for i in rows.tolist() for own in utterances.shared.get(i, (first[i],))}


def test_the_numbers_of_the_package_are_what_the_documentation_says(utterances):
    # The package grows with every release, so these are bounds, not equalities.
    assert len(utterances.intents) >= 40
    assert len(utterances.sentences) >= 800
    assert 8_000 <= len(utterances) <= 12 * len(utterances.sentences)
    assert utterances.dropped == ()
    assert len(utterances.ambiguous) < 0.01 * len(utterances)
    assert np.all(np.bincount(utterances.labels, minlength=len(utterances.intents)) > 0)


def test_texts_are_distinct_plain_words_without_template_syntax(utterances):
    assert len(set(utterances.texts)) == len(utterances)
    assert all(" ".join(tokenize(text)) == text != "" for text in utterances.texts)
    assert not set("{}<>[]()|;") & set("".join(utterances.texts))
    assert utterances.labels.dtype == utterances.templates.dtype == np.int32


def test_no_template_gives_more_than_it_may(utterances):
    assert np.bincount(utterances.templates).max() == 12


def test_a_template_belongs_to_one_intent(utterances):
    pairs = set(zip(utterances.templates.tolist(), utterances.labels.tolist()))
    assert len({template for template, _ in pairs}) == len(pairs)


def test_utterances_are_those_that_hassil_itself_gives():
    form = templates.read("en")["HassMediaPlayerMute"]["mute [[<the>] <media>] [<here>]"][0]
    rules = dict(form.rules)
    listed = list(sample_expression(form.sentence.expression, dict(form.lists), rules, "en"))
    rng = random.Random(0)
    drawn = [" ".join(templates.draw(form, rng).split()) for _ in range(2000)]
    assert set(drawn) <= {" ".join(text.split()) for text in listed}
    # Equal odds at each fork: a quarter of the draws leaves both optional parts out, which a
    # choice among all the template can say would almost never do.
    np.testing.assert_allclose(np.mean([text == "mute" for text in drawn]), 0.25, atol=0.03)
    assert len(listed) > 500


def test_a_small_template_is_given_whole(utterances):
    time = {t for t in utterances.texts if t.startswith("what time is it")}
    assert time == {"what time is it", "what time is it now", "what time is it right now"}


def test_names_fit_the_domain_that_a_template_asks_for(utterances):
    locking = [text for text in utterances.texts if text.split()[0] == "unlock"]
    assert locking
    assert all(any(name in text for name in templates.NAMES["lock"]) for text in locking)


def test_own_values_survive_the_tokenizer():
    values = itertools.chain(*templates.LISTS.values(), *templates.NAMES.values())
    assert all(" ".join(tokenize(value)) == value for value in values)


def test_a_text_that_two_intents_claim_is_left_out(everything):
    assert everything.ambiguous
    assert not set(everything.ambiguous) & set(everything.texts)


def test_the_sample_depends_on_the_seed_alone():
    first, again, other = (intents.load(per_template=1, seed=seed) for seed in (0, 0, 1))
    assert again.texts == first.texts
    np.testing.assert_array_equal(again.labels, first.labels)
    np.testing.assert_array_equal(again.templates, first.templates)
    assert other.texts != first.texts


def test_the_sample_is_the_same_in_another_process():
    # hassil has number words in a set, whose order follows the hash seed of the process. German
    # says one number in several ways (ein, eins, eine), so it would show.
    code = "from longlag.data.intents import load; print(*load('de', 1).texts, sep='\\n')"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"}
    there = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert tuple(there.stdout.splitlines()) == intents.load("de", 1).texts


def test_each_template_is_held_out_once_and_shares_neither_text_nor_form(divided):
    utterances, fold_of = divided
    parts = [intents.split(utterances, fold_of, fold) for fold in range(5)]
    times = np.zeros(len(utterances), int)
    for part in parts:
        every = np.concatenate([part.train, part.held, part.straddling])
        np.testing.assert_array_equal(np.sort(every), np.arange(len(utterances)))
        # The strong form: not even one of several templates that gave a text is on the other side.
        assert not owners(utterances, part.train) & owners(utterances, part.held)
        texts = [{utterances.texts[i] for i in rows} for rows in (part.train, part.held)]
        assert not texts[0] & texts[1]
        times[part.held] += 1
    astray = np.unique(np.concatenate([part.straddling for part in parts]))
    assert len(astray) > 0, "else there is nothing to tell apart above"
    assert (times[astray] == 0).all() and (np.delete(times, astray) == 1).all()


def test_every_intent_is_trained_in_every_fold_and_all_folds_are_alike(divided):
    utterances, fold_of = divided
    for fold in range(5):
        part = intents.split(utterances, fold_of, fold)
        assert set(utterances.labels[part.train]) == set(range(len(utterances.intents)))
    sizes = np.bincount(fold_of[fold_of >= 0], minlength=5)
    assert sizes.max() - sizes.min() <= 1 and sizes.sum() > 800
    # Stratified: the templates of an intent are spread as evenly as they can be.
    for label in range(len(utterances.intents)):
        counts = np.bincount(fold_of[own(utterances, label)], minlength=5)
        assert counts.max() - counts.min() <= 1, utterances.intents[label]


def test_intents_with_too_few_templates_are_left_out(everything, divided):
    kept, _ = divided
    counts = {name: len(own(everything, label)) for label, name in enumerate(everything.intents)}
    assert set(kept.intents) == {name for name, count in counts.items() if count >= LEAST}
    assert "HassGetCurrentTime" not in kept.intents and len(kept.intents) >= 30
    named = dict(zip(everything.texts, (everything.intents[i] for i in everything.labels)))
    assert all(named[t] == kept.intents[i] for t, i in zip(kept.texts, kept.labels))
    again = {kept.texts[i]: own for i, own in kept.shared.items()}
    before = {everything.texts[i]: own for i, own in everything.shared.items()}
    assert again and again.items() <= before.items()


def test_the_folds_depend_on_the_seed_alone(divided):
    utterances, fold_of = divided
    np.testing.assert_array_equal(intents.folds(utterances), fold_of)
    assert not np.array_equal(intents.folds(utterances, seed=1), fold_of)
    assert set(intents.folds(utterances, 3).tolist()) == {-1, 0, 1, 2}
    with pytest.raises(ValueError, match="at least 2, got 1"):
        intents.folds(utterances, 1)


def made(labels, templates, shared=None):
    """Utterances of TEST DATA: a text for each label and template."""
    return Utterances(
        texts=tuple(f"t{i}" for i in range(len(labels))),
        labels=np.array(labels, np.int32),
        templates=np.array(templates, np.int32),
        shared=shared or {},
        intents=tuple(f"I{i}" for i in range(max(labels) + 1)),
        sentences=tuple(f"s{i}" for i in range(max(templates) + 1)),
        ambiguous=(),
        dropped=(),
    )


def test_a_text_that_templates_of_both_sides_gave_is_on_neither():
    utterances = made([0, 0, 0, 0], [0, 1, 0, 0], {2: (0, 1), 3: (0, 2)})
    part = intents.split(utterances, np.array([0, 1, 0]), 0)
    assert part.straddling.tolist() == [2]
    assert (part.train.tolist(), part.held.tolist()) == ([1], [0, 3])


def test_a_template_counts_if_it_gave_a_text_by_itself():
    # The third template of intent 0 gave one text, which the first gave too.
    utterances = made([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 0, 3, 4, 5, 6, 7, 8], {2: (0, 2)})
    kept = intents.keep_divisible(utterances)
    assert kept.intents == ("I1", "I2") and kept.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert kept.texts == ("t3", "t4", "t5", "t6", "t7", "t8") and kept.shared == {}
    assert (intents.folds(kept) >= 0).sum() == 6
    with pytest.raises(ValueError, match=r"two intents of 3 templates.* this one has 1, of 2"):
        intents.keep_divisible(made([0, 0, 0, 1, 1], [0, 1, 2, 3, 4]))


def test_another_language_leaves_its_open_lists_out_and_says_so():
    german = intents.load("de", per_template=2)
    assert any("{area}" in template for template in german.dropped)
    assert not any("{area}" in template for template in german.sentences)
    assert len(german) > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "pt-BT"}, "unknown language.*Did you mean 'pt-BR'"),
        ({"language": "ja"}, "spaces between words, got 'ja'"),
        ({"per_template": 0}, "per_template >= 1, got 0"),
    ],
)
def test_load_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        intents.load(**arguments)


@pytest.mark.parametrize("package", ["home_assistant_intents", "hassil"])
def test_an_absent_package_is_named_by_its_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "longlag.data.templates")
    monkeypatch.delattr(longlag.data, "templates")
    with pytest.raises(ImportError, match=r'pip install "longlag\[data\]"'):
        intents.load()


def test_absent_scikit_learn_is_named_by_its_extra(monkeypatch, divided):
    # The module itself: where another test has imported it, its package is not asked again.
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(ImportError, match=r'pip install "longlag\[data\]"'):
        intents.floors(divided[0], intents.split(*divided, 0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What time is it?", ("what", "time", "is", "it")),
        ("  What's\tthe 20-minute timer…", ("whats", "the", "20", "minute", "timer")),
        ("What’s on?", ("whats", "on")),
        ("set it to 50%", ("set", "it", "to", "50")),
        ("घड़ी में कितने बजे", ("घड़ी", "में", "कितने", "बजे")),
        ("?!", ()),
    ],
)
def test_tokenize(text, words):
    assert tokenize(text) == words


def test_vocabulary_comes_from_the_texts_it_is_given():
    vocabulary = Vocabulary.build(["what time is it", "Is it late?"])
    assert vocabulary.words == ("is", "it", "late", "time", "what")
    assert len(vocabulary) == 7
    tokens, mask = vocabulary.encode(["What time?", "is noon late"], 4)
    assert tokens.tolist() == [[6, 5, PAD, PAD], [2, UNKNOWN, 4, PAD]]
    assert mask.tolist() == [[True, True, False, False], [True, True, True, False]]
    assert (tokens.dtype, mask.dtype) == (np.int32, bool)


def test_real_training_texts_hold_no_unknown_word(divided):
    utterances, part = divided[0], intents.split(*divided, 0)
    vocabulary = Vocabulary.build(utterances.texts[i] for i in part.train)
    tokens, mask = vocabulary.encode([utterances.texts[i] for i in part.train], 32)
    assert tokens[mask].min() > UNKNOWN
    assert tokens.max() == len(vocabulary) - 1
    assert np.all(tokens[~mask] == PAD)


def test_a_text_longer_than_the_row_is_refused():
    vocabulary = Vocabulary(("it",))
    with pytest.raises(ValueError, match="expected <= 2 words, got 3: 'it it it'"):
        vocabulary.encode(["it it it"], 2)


def test_vocabulary_round_trip():
    vocabulary = Vocabulary.build(["what time is it"])
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert again == vocabulary
    np.testing.assert_array_equal(again.encode(["time"], 1)[0], vocabulary.encode(["time"], 1)[0])
    with pytest.raises(ValueError, match="expected the key 'words', got"):
        Vocabulary.from_dict({"word": []})
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(("it", "it"))


def test_floors_lie_between_the_majority_and_a_solved_task():
    metrics = pytest.importorskip("sklearn.metrics")
    utterances = intents.keep_divisible(intents.load(per_template=2))
    part = intents.split(utterances, intents.folds(utterances), 0)
    test = utterances.labels[part.held]
    majority, words, pairs = intents.floors(utterances, part).values()
    assert (majority == np.bincount(utterances.labels[part.train]).argmax()).all()
    macro_f1 = functools.partial(metrics.f1_score, labels=np.unique(test), average="macro")
    assert macro_f1(test, majority) < 0.03
    for said in (words, pairs):
        assert 0.6 < macro_f1(test, said) < np.mean(said == test) < 0.99
    assert (words != pairs).any()
