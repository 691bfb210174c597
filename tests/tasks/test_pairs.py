"""Tasks of pairs: dates against their calendars, messages against their catalogue."""

from __future__ import annotations

import datetime
import functools
import inspect
import re
import sys
import textwrap
from collections import defaultdict

import babel
import babel.dates
import jax
import numpy as np
import pytest

from longlag.data import emoji
from longlag.data.coders import STOP
from longlag.data.messages import load, split
from longlag.tasks import Captions, Dates, Translation
from longlag.tasks import dates as module
from longlag.tasks.pairs import PairTask
from longlag.training import evaluation_batch

DATES = Dates(count=2000)


@pytest.fixture(scope="module")
def translation() -> Translation:
    return Translation()


def read(task: PairTask, batch) -> list[tuple[str, str]]:
    """A batch as texts; each target ends by the one `STOP` that is asked."""
    found = []
    for source, mask, target, asked in zip(
        *map(np.asarray, (batch.inputs, batch.mask, batch.targets, batch.scored))
    ):
        assert target[asked][-1] == STOP and STOP not in target[asked][:-1]
        assert not target[~asked].any()
        found.append(
            (
                task.pairs.reader.decode(source[mask].tolist()),
                task.pairs.writer.decode(target[asked][:-1].tolist()),
            )
        )
    return found


@functools.cache
def month_names() -> dict[str, set[int]]:
    """What the languages call the months."""
    names = defaultdict(set)
    for locale in map(babel.Locale.parse, module.LOCALES):
        for width in ("wide", "abbreviated"):
            for month, name in locale.months["format"][width].items():
                names[name.lower().rstrip(".")].add(month)
    return names


def month_of(text: str) -> set[int]:
    """The months that a text may name in one of the languages."""
    if found := re.search(r"年(\d+)月", text):
        return {int(found[1])}
    words = re.findall(r"[^\W\d]+", text.lower())
    return set().union(*(month_names()[word] for word in words if word in month_names()))


def test_a_date_is_the_day_that_its_text_names():
    pairs = DATES.pairs
    for text, day in zip(pairs.sources, pairs.targets):
        date = datetime.date.fromisoformat(day)
        assert {date.year, date.day} <= {int(n) for n in re.findall(r"\d+", text)}, text
        assert date.month in month_of(text), text
    english = {
        t: d for t, d in zip(pairs.sources, pairs.targets) if re.fullmatch(r"[A-Z]\w+ \d+, \d+", t)
    }
    assert len(english) > 20
    for text, day in english.items():
        form = "%B %d, %Y" if len(text.split()[0]) > 3 else "%b %d, %Y"
        assert datetime.datetime.strptime(text, form).date().isoformat() == day


def test_no_day_and_no_string_is_in_two_parts(translation):
    for task in (DATES, translation):
        pairs = task.pairs
        what = (
            pairs.targets
            if task is DATES
            else [" ".join(re.findall(r"\w+", s.casefold())) for s in pairs.sources]
        )
        parts = [{what[i] for i in pairs.rows[part]} for part in ("train", "validation", "test")]
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts))
        assert len({*pairs.sources}) == len(pairs.sources)


def test_a_text_of_two_days_is_left_out(monkeypatch: pytest.MonkeyPatch):
    days = defaultdict(set)

    def vague(day, form, locale):
        text = (
            f"{day:%B %d}, in the {day.year // 10}0s"
            if form == "full"
            else day.strftime("%d/%m/%Y")
        )
        days[text].add(day.isoformat())
        return text

    monkeypatch.setattr(babel.dates, "format_date", vague)
    pairs = module.pairs.__wrapped__(3000)
    assert any(len(found) > 1 for found in days.values())
    expected = {t: min(d) for t, d in days.items() if len(d) == 1 and "/" not in t}
    assert dict(zip(pairs.sources, pairs.targets)) == expected


def test_batches_are_pairs_of_their_part(translation):
    messages = load()
    whole = dict(zip(messages.sources, messages.targets))
    known = {messages.sources[i] for i in split(messages).train}
    batch = jax.jit(translation.sample, static_argnums=1)(jax.random.key(1), 64)
    assert batch.inputs.shape[0] == 64 and batch.targets.shape == (64, translation.length)
    assert batch.inputs.max() < translation.in_features
    for source, target in read(translation, batch):
        assert source in known and whole[source] == target
    test = {DATES.pairs.sources[i] for i in DATES.pairs.rows["test"]}
    seen = {DATES.pairs.sources[i] for i in DATES.pairs.rows["validation"]}
    assert {s for s, _ in read(DATES, evaluation_batch(DATES, 64, "test"))} <= test
    assert {s for s, _ in read(DATES, evaluation_batch(DATES, 64, "validation"))} <= seen


def test_a_picture_is_drawn_with_its_name():
    task, whole = Captions(), emoji.load()
    parts = emoji.split(whole)
    # The oracle: each is one of the pictures of its part, and has its name.
    for purpose, part in (("train", parts.train), ("validation", parts.validation)):
        of_part = task if purpose == "train" else task.evaluation_task("validation")
        name_of = {whole.pictures[i].tobytes(): whole.captions[i] for i in part}
        batch = jax.jit(of_part.sample, static_argnums=1)(jax.random.key(2), 32)
        assert batch.inputs.shape == (32, 32, 96) and batch.inputs.dtype == np.float32
        assert batch.mask is None and 0 <= batch.inputs.min() < batch.inputs.max() <= 1
        for picture, target, asked in zip(
            *map(np.asarray, (batch.inputs, batch.targets, batch.scored))
        ):
            name = name_of[np.rint(picture * 255).astype(np.uint8).tobytes()]
            assert target[asked][-1] == STOP and not target[~asked].any()
            assert task.pairs.writer.decode(target[asked][:-1].tolist()) == name
    assert task.in_features == 96 and task.length == task.pairs.answer_mask.sum(axis=1).max()


def test_what_is_too_long_is_left_out(translation):
    messages, pairs = load(), translation.pairs
    for part, rows in pairs.rows.items():
        expected = [
            i
            for i in getattr(split(messages), part)
            if len(pairs.reader.encode(messages.sources[i])) <= translation.longest
            and len(pairs.writer.encode(messages.targets[i])) <= translation.longest
        ]
        assert [pairs.sources[i] for i in rows] == [messages.sources[i] for i in expected]
    assert pairs.mask.sum(1).max() == translation.longest
    assert pairs.answer_mask.sum(1).max() == translation.length == translation.longest + 1


def test_the_floor_says_the_commonest_at_each_step():
    pairs = DATES.pairs
    targets = [[*pairs.targets[i], "end"] for i in pairs.rows["train"]]
    right = loss = total = 0.0
    for step in range(11):
        said = [target[step] for target in targets]
        counts = np.array([said.count(c) for c in {*said}])
        right, total = right + counts.max(), total + len(said)
        loss -= (counts * np.log(counts / len(said))).sum()
    floor = DATES.floor()
    assert floor.accuracy == pytest.approx(right / total) and floor.loss == pytest.approx(
        loss / total
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dates(count=9), "count >= 100"),
        (lambda: Dates(part="tests"), "Did you mean 'test'"),  # type: ignore[arg-type]
        (lambda: Translation(split="strings"), "Did you mean 'string'"),  # type: ignore[arg-type]
        (lambda: Translation(pieces=99), "pieces >= 512"),
        (lambda: Translation(longest=0), "longest >= 1"),
        (lambda: Captions(pieces=99), "pieces >= 512"),
        (lambda: Captions(part="held"), "unknown part"),  # type: ignore[arg-type]
        (lambda: DATES.at_lag(20), "lag = 11"),
    ],
)
def test_impossible_dials_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_pictures_are_pairs_of_the_data():
    for cls, pair in (
        (Dates, babel.dates.format_date(datetime.date(2024, 9, 25), "full", "hu")),
        (Translation, "Convert the image to grayscale"),
        (Captions, "32 rows of 32 pixels: \U0001f64c\U0001f3fb"),
    ):
        picture = cls().picture()
        assert textwrap.indent(picture, "    ") in (inspect.getdoc(cls) or "")
        assert picture.splitlines()[0] == f"inputs  {pair}"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(ImportError, match=r"longlag\[data\]"):
        module.pairs.__wrapped__(100)
