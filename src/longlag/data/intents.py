"""Intents: "what time is it?" read word by word, and a network decides what is wanted.

The utterances come from the installed package home-assistant-intents, whose sentence templates
people wrote in some sixty languages; `load` draws from the templates, `split` holds out whole
templates, so a test sentence has a form that training never saw. docs/data.md has the numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

__all__ = [
    "PAD",
    "PROBES",
    "UNKNOWN",
    "Floor",
    "Split",
    "Utterances",
    "Vocabulary",
    "class_weights",
    "floors",
    "load",
    "macro_f1",
    "split",
    "tokenize",
]

PAD, UNKNOWN = 0, 1
# The first is always in training; the second asks the same in the form that is held out.
PROBES = ("what time is it", "what is the time")
_DRAWS = 10  # per utterance wanted, before a template counts as exhausted


@dataclasses.dataclass(frozen=True, eq=False)
class Utterances:
    """Distinct utterances, each with the one intent that claims it.

    Attributes:
        texts: N texts as `tokenize` leaves them, joined by single spaces.
        labels: `[N]` int32, index into `intents`.
        templates: `[N]` int32, index into `sentences`: the first template that gave the text.
        shared: for the few texts that several templates of the intent gave, all of these
            templates by the text's index.
        intents: names of the intents, in the order of the package.
        sentences: the templates that were drawn from.
        ambiguous: the texts that two intents claim. None of the two is right, so they are left
            out.
        dropped: "intent: template" for the templates that refer to a list without values.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    templates: np.ndarray
    shared: Mapping[int, tuple[int, ...]]
    intents: tuple[str, ...]
    sentences: tuple[str, ...]
    ambiguous: tuple[str, ...]
    dropped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Indices of the utterances for training and for the test, by template.

    Attributes:
        train: `[...]` int64, ascending.
        test: `[...]` int64, ascending; no text of it, and no template, is in `train`.
        straddling: `[...]` int64, in neither part, because templates of both parts gave the text.
        train_only: names of the intents with fewer than two templates to divide.
        probe_train: index of "what time is it", an utterance of `train`.
        probe_test: index of "what is the time", an utterance of `test`. A probe is None where the
            sample lacks it: another language, or too few utterances per template.
    """

    train: np.ndarray
    test: np.ndarray
    straddling: np.ndarray
    train_only: tuple[str, ...]
    probe_train: int | None
    probe_test: int | None


@dataclasses.dataclass(frozen=True)
class Floor:
    """What a classifier that ignores the order of the words reaches on the test part.

    Attributes:
        note: who this classifier is, for the table.
        accuracy: its share of right utterances.
        macro_f1: its mean F1 over the intents of the test part.
    """

    note: str
    accuracy: float
    macro_f1: float


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and their ids: 0 is padding, 1 any unknown word, `words[i]` has the id `i + 2`."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            raise ValueError("Vocabulary: expected distinct words, got some twice")

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """The words of `texts`, which should be the training part only, sorted."""
        return cls(tuple(sorted({word for text in texts for word in tokenize(text)})))

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=UNKNOWN + 1)}

    def __len__(self) -> int:
        """V, the number of ids, those for padding and unknown words included."""
        return len(self.words) + 2

    def encode(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Words to ids, padded at the end.

        Args:
            texts: N texts in any case and punctuation.
            length: T, the words per row.

        Returns:
            tokens `[N, T]` int32 and mask `[N, T]` bool, true at the words. A text without words
            has an all-false row.

        Raises:
            ValueError: a text has more than T words; nothing is cut off.
        """
        tokens = np.full((len(texts), length), PAD, np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            words = tokenize(text)
            if len(words) > length:
                raise ValueError(f"encode: expected <= {length} words, got {len(words)}: {text!r}")
            tokens[row, : len(words)] = [self._ids.get(word, UNKNOWN) for word in words]
            mask[row, : len(words)] = True
        return tokens, mask

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary for JSON."""
        return {"words": list(self.words)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The vocabulary that `to_dict` wrote."""
        if set(data) != {"words"}:
            raise ValueError(f"Vocabulary: expected the key 'words', got {sorted(data)}")
        return cls(tuple(data["words"]))


class _Plain(dict[int, str | int]):
    """Table for `str.translate`, filled as characters turn up.

    By Unicode category rather than by a regular expression's word characters, which would break
    up the words of scripts that write vowels as combining marks.
    """

    def __missing__(self, code: int) -> str | int:
        self[code] = " " if unicodedata.category(chr(code))[0] in "PS" else code
        return self[code]


_PLAIN = _Plain({ord("'"): "", ord("’"): ""})


def tokenize(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation: "Set a 20-minute timer!" is five words.

    Apostrophes vanish ("what's" becomes "whats", as many of the package's writers type it); all
    other punctuation and symbols part words.
    """
    return tuple(unicodedata.normalize("NFC", text).lower().translate(_PLAIN).split())


def load(language: str = "en", per_template: int = 60, seed: int = 0) -> Utterances:
    """Draws utterances from the templates of the installed package.

    Each template gives up to `per_template` distinct utterances, drawn by walking down the
    template with equal odds at each fork (see `longlag.data.templates.draw`); a template that
    yields no more after ten draws per utterance wanted counts as exhausted. The generator depends
    on the seed, the intent and the template alone. For English, lists that the package leaves open
    (rooms, names of devices, things to buy) take four to six values of our own; in other languages
    the templates that refer to them are left out and listed in `dropped`.

    Args:
        language: a code of the package, such as "en", "de" or "pt-BR".
        per_template: the most utterances of one template.
        seed: another seed draws another sample.

    Raises:
        ImportError: the extra `data` is not installed.
        ValueError: an unknown language, or one written without spaces between words; or
            `per_template` < 1.
    """
    if per_template < 1:
        raise ValueError(f"load: expected per_template >= 1, got {per_template}")
    try:
        from longlag.data import templates as source
    except ImportError as error:
        raise _needs_extra("the intents") from error

    sentences: list[str] = []
    dropped: list[str] = []
    claims: dict[str, dict[str, list[int]]] = defaultdict(dict)  # text -> intent -> its templates
    for intent, forms_of in source.read(language).items():
        for sentence, forms in forms_of.items():
            forms = [form for form in forms if form.complete]
            if not forms:
                dropped.append(f"{intent}: {sentence}")
                continue
            rng = random.Random(f"{seed} {intent} {sentence}")
            found: dict[str, None] = {}
            for _ in range(_DRAWS * per_template):
                found[" ".join(tokenize(source.draw(rng.choice(forms), rng)))] = None
                if len(found) == per_template:
                    break
            found.pop("", None)
            for text in sorted(found):
                claims[text].setdefault(intent, []).append(len(sentences))
            sentences.append(sentence)

    ambiguous = tuple(sorted(text for text, claim in claims.items() if len(claim) > 1))
    rows = [(text, *next(iter(c.items()))) for text, c in claims.items() if len(c) == 1]
    intents = tuple(dict.fromkeys(intent for _, intent, _ in rows))
    label = {intent: i for i, intent in enumerate(intents)}
    return Utterances(
        texts=tuple(text for text, _, _ in rows),
        labels=np.array([label[intent] for _, intent, _ in rows], np.int32),
        templates=np.array([owners[0] for _, _, owners in rows], np.int32),
        shared={i: tuple(own) for i, (_, _, own) in enumerate(rows) if len(own) > 1},
        intents=intents,
        sentences=tuple(sentences),
        ambiguous=ambiguous,
        dropped=tuple(dropped),
    )


def split(utterances: Utterances, seed: int = 0, test_fraction: float = 0.2) -> Split:
    """Divides the utterances by template, intent by intent.

    Of each intent the rounded `test_fraction` of its templates is held out, at least one, and at
    least one stays. An intent with one template stays in training whole. A text that templates of
    both parts gave is in neither. Whatever the seed, the template of "what time is it" stays, so
    that the other one of its intent is held out.

    Args:
        utterances: what `load` returned.
        seed: which templates are held out.
        test_fraction: share of an intent's templates, between 0 and 1.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"split: expected 0 < test_fraction < 1, got {test_fraction}")
    index = {text: i for i, text in enumerate(utterances.texts)}
    kept = index.get(PROBES[0])
    held = np.zeros(len(utterances.sentences), bool)
    alone = np.ones(len(utterances), bool)
    alone[list(utterances.shared)] = False
    train_only = []
    rng = np.random.default_rng(seed)
    for label, intent in enumerate(utterances.intents):
        # Only a template with a text of its own can be tested, or taught, by itself.
        own = np.unique(utterances.templates[alone & (utterances.labels == label)])
        if len(own) < 2:
            train_only.append(intent)
            continue
        count = min(max(1, round(test_fraction * len(own))), len(own) - 1)
        order = rng.permutation(own)
        if kept is not None:
            order = order[order != utterances.templates[kept]]
        held[order[:count]] = True

    part = np.where(held[utterances.templates], 1, 0)
    for i, own in utterances.shared.items():
        if len(set(held[list(own)])) > 1:
            part[i] = 2
    places = [index.get(text) for text in PROBES]
    probes = [i if i is not None and part[i] == side else None for side, i in enumerate(places)]
    return Split(
        train=np.flatnonzero(part == 0),
        test=np.flatnonzero(part == 1),
        straddling=np.flatnonzero(part == 2),
        train_only=tuple(train_only),
        probe_train=probes[0],
        probe_test=probes[1],
    )


def class_weights(labels: np.ndarray, n: int) -> np.ndarray:
    """Weights that let every class count alike, however few utterances it has.

    Args:
        labels: `[N]` integers in 0..n-1, the training part's.
        n: number of classes.

    Returns:
        `[n]` float32, inversely proportional to a class's count, with mean 1 over `labels`; zero
        for a class without labels.
    """
    labels = np.asarray(labels)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= n:
        raise ValueError(f"class_weights: expected labels in 0..{n - 1}, got {np.unique(labels)}")
    counts = np.bincount(labels, minlength=n)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, labels.size / (present * np.maximum(counts, 1)), 0).astype(
        np.float32
    )


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in `labels`, each counting alike.

    Args:
        labels: `[N]` integers, the truth.
        predictions: `[N]` integers.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    scores = []
    for label in np.unique(labels):
        truth, said = labels == label, predictions == label
        scores.append(2 * np.sum(truth & said) / (np.sum(truth) + np.sum(said)))
    return float(np.mean(scores))


def floors(utterances: Utterances, split: Split) -> tuple[Floor, ...]:
    """Fits three classifiers on the training part and scores them on the held-out templates.

    They are the majority class, and logistic regression on the counts of words and on those of
    words and pairs of neighbours. Intents count alike in the fit (`class_weight="balanced"`, the
    weights of `class_weights`); a model beside them in a table should be weighted likewise.

    Raises:
        ImportError: the extra `data` is not installed.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise _needs_extra("the floors") from error

    train_texts = [utterances.texts[i] for i in split.train]
    test_texts = [utterances.texts[i] for i in split.test]
    train, test = utterances.labels[split.train], utterances.labels[split.test]

    def score(note: str, predictions: np.ndarray) -> Floor:
        return Floor(note, float(np.mean(predictions == test)), macro_f1(test, predictions))

    rows = [score("majority class", np.full_like(test, np.bincount(train).argmax()))]
    for note, longest in (("bag of words", 1), ("bag of words and bigrams", 2)):
        # sklearn's own token pattern would drop words of one letter: "a", "i", "5".
        counts = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, longest))
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        # The products are small: threads that wait for each other only slow them, by ten times
        # where other work shares the cores.
        with threadpool_limits(1):
            model.fit(counts.fit_transform(train_texts), train)
        rows.append(score(note, np.asarray(model.predict(counts.transform(test_texts)))))
    return tuple(rows)


def _needs_extra(what: str) -> ImportError:
    return ImportError(f'{what} need more packages: pip install "longlag[data]"')
