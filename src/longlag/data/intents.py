"""Intents: "what time is it?" read word by word, and a network decides what is wanted.

The utterances come from the installed package home-assistant-intents, whose sentence templates
people wrote in some sixty languages; `load` draws from the templates, `folds` deals them to the
folds of a cross-validation and `split` holds one of these out, so a test sentence has a form that
training never saw. docs/data.md has the numbers.
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

from longlag.system.optional_packages import needed_for

__all__ = [
    "LEAST",
    "PAD",
    "UNKNOWN",
    "TemplateSplits",
    "Utterances",
    "Vocabulary",
    "fit_bags",
    "floors",
    "folds",
    "keep_divisible",
    "load",
    "split",
    "tokenize",
]

PAD, UNKNOWN = 0, 1
# With two templates an intent would be learned from one form alone, and judged by the other.
LEAST = 3
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
class TemplateSplits:
    """Indices of the utterances to learn from and of those to score, by template.

    Attributes:
        train: `[...]` int64, ascending.
        held: `[...]` int64, ascending; no text of it, and no template, is in `train`.
        straddling: `[...]` int64, in neither part, because templates of both parts gave the text.
    """

    train: np.ndarray
    held: np.ndarray
    straddling: np.ndarray


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
    with needed_for("the intents"):
        from longlag.data import templates as source

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
            texts: dict[str, None] = {}
            for _ in range(_DRAWS * per_template):
                texts[" ".join(tokenize(source.draw(rng.choice(forms), rng)))] = None
                if len(texts) == per_template:
                    break
            texts.pop("", None)
            for text in sorted(texts):
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


def keep_divisible(utterances: Utterances) -> Utterances:
    """The utterances of the intents with at least `LEAST` templates, labels counted anew.

    A template counts if it gave a text that no other one gave: only such a one can be learned from,
    or scored, by itself.

    Args:
        utterances: what `load` returned.

    Raises:
        ValueError: fewer than two intents are left.
    """
    kept = [
        i for i in range(len(utterances.intents)) if len(_own_templates(utterances, i)) >= LEAST
    ]
    if len(kept) < 2:
        raise ValueError(
            f"intents: expected a language with at least two intents of {LEAST} templates or more; "
            f"this one has {len(kept)}, of {len(utterances.intents)} intents in all"
        )
    rows = np.flatnonzero(np.isin(utterances.labels, kept)).tolist()
    return dataclasses.replace(
        utterances,
        texts=tuple(utterances.texts[i] for i in rows),
        labels=np.searchsorted(kept, utterances.labels[rows]).astype(np.int32),
        templates=utterances.templates[rows],
        shared={n: utterances.shared[i] for n, i in enumerate(rows) if i in utterances.shared},
        intents=tuple(utterances.intents[i] for i in kept),
    )


def _own_templates(utterances: Utterances, label: int) -> np.ndarray:
    """The templates of an intent that gave a text by themselves, ascending."""
    alone = utterances.labels == label
    alone[[*utterances.shared]] = False
    return np.unique(utterances.templates[alone])


def folds(utterances: Utterances, count: int = 5, seed: int = 0) -> np.ndarray:
    """Deals the templates of every intent to the folds of a cross-validation.

    The templates of an intent, in an order of chance, go to folds that follow each other, and the
    next intent goes on where the last one ended: the folds are of equal size within one, and of an
    intent with `LEAST` templates or more no fold has all.

    Args:
        utterances: from `keep_divisible`.
        count: of the folds, at least 2.
        seed: another seed deals in another order.

    Returns:
        `[len(sentences)]` int32, the fold of each template; -1 for those without an utterance.

    Raises:
        ValueError: fewer than two folds.
    """
    if count < 2:
        raise ValueError(f"folds: expected at least 2, got {count}")
    fold_of = np.full(len(utterances.sentences), -1, np.int32)
    rng = np.random.default_rng(seed)
    dealt = 0
    for label in range(len(utterances.intents)):
        own = _own_templates(utterances, label)
        owners = [utterances.templates[utterances.labels == label]]
        owners += [t for i, t in utterances.shared.items() if utterances.labels[i] == label]
        # Those without a text of their own last, so that the others are spread over the folds.
        others = np.setdiff1d(np.concatenate(owners), own)
        order = np.concatenate([rng.permutation(own), others])
        fold_of[order] = (dealt + np.arange(len(order))) % count
        dealt += len(order)
    return fold_of


def split(utterances: Utterances, fold_of: np.ndarray, fold: int) -> TemplateSplits:
    """Holds the templates of one fold out.

    A text that templates of this fold and of another gave is in neither part, so that training
    never sees what a held-out template said.

    Args:
        utterances: from `keep_divisible`.
        fold_of: from `folds`.
        fold: which.
    """
    held = fold_of == fold
    part = np.where(held[utterances.templates], 1, 0)
    for i, owners in utterances.shared.items():
        if len(set(held[list(owners)])) > 1:
            part[i] = 2
    return TemplateSplits(*(np.flatnonzero(part == n) for n in range(3)))


def floors(utterances: Utterances, parts: TemplateSplits) -> dict[str, np.ndarray]:
    """Predictions of three baselines with little word order, for the held-out utterances.

    They are the majority class, and those of `fit_bags`, fitted on the training part. Intents count
    alike in the fit; a model beside them in a table should be weighted likewise.

    Returns:
        By the classifier's name, `[len(parts.held)]` int32.

    Raises:
        ImportError: the extra `data` is not installed.
    """
    known, held = ([utterances.texts[i] for i in rows] for rows in (parts.train, parts.held))
    labels = utterances.labels[parts.train]
    majority = np.full(len(held), np.bincount(labels).argmax(), np.int32)
    return {"majority class": majority, **fit_bags(known, labels, held)}


def fit_bags(
    known: Sequence[str], labels: np.ndarray, held: Sequence[str]
) -> dict[str, np.ndarray]:
    """What classifiers of a bag of words, and of words and pairs of neighbours, say to texts.

    They are logistic regressions on the counts. Classes count alike in the fit
    (`class_weight="balanced"`).

    Args:
        known: N texts to learn from, words joined by spaces.
        labels: `[N]`, their classes.
        held: the texts to answer.

    Returns:
        By the classifier's name, `[len(held)]` int32.

    Raises:
        ImportError: the extra `data` is not installed.
    """
    with needed_for("the floors"):
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

    answers = {}
    for note, longest in (("bag of words", 1), ("bag of words and bigrams", 2)):
        # sklearn's own token pattern would drop words of one letter: "a", "i", "5".
        counts = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, longest))
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        # The products are small: threads that wait for each other only slow them, by ten times
        # where other work shares the cores.
        with threadpool_limits(1):
            model.fit(counts.fit_transform(known), labels)
        answers[note] = np.asarray(model.predict(counts.transform(held)), np.int32)
    return answers
