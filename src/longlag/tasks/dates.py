"""Dates: as they are written in many languages, and as ISO 8601 has them."""

from __future__ import annotations

import datetime
import functools

import numpy as np

from longlag.data.coders import Characters
from longlag.system.optional_packages import needed_for
from longlag.tasks.pairs import Pairs, PairTask

__all__ = ["LOCALES", "Dates", "pairs"]

LOCALES = (
    *("en", "en_GB", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "fi", "pl", "cs", "hu", "ro"),
    *("hr", "tr", "lv", "el", "ru", "ja"),
)
FORMS = ("full", "long", "medium")
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
# Of the days: those of the test are in no other part, however they are written.
TEST, VALIDATION = 0.10, 0.05
SEED = 0


@functools.cache
def pairs(count: int) -> Pairs:
    """Draws and encodes, once per process.

    Args:
        count: pairs to learn from; a tenth as many for validation, and for the test.

    Raises:
        ImportError: babel is not installed.
    """
    with needed_for("dates"):
        from babel import Locale
        from babel.dates import format_date
    # numpy's legacy generator gives the same in every version.
    random = np.random.RandomState(SEED)
    days = random.permutation((LAST - FIRST).days + 1)
    test, validation = (round(share * len(days)) for share in (TEST, TEST + VALIDATION))
    of_part = {"train": days[validation:], "validation": days[test:validation], "test": days[:test]}
    locales = [Locale.parse(name) for name in LOCALES]
    readings: dict[str, dict[str, set[str]]] = {}  # text -> day -> parts
    for part, there in of_part.items():
        for _ in range(count if part == "train" else max(count // 10, 1)):
            day = FIRST + datetime.timedelta(int(there[random.randint(len(there))]))
            form, locale = FORMS[random.randint(len(FORMS))], locales[random.randint(len(locales))]
            text = " ".join(format_date(day, form, locale).split())
            # 03.04.2024 is one day here and another there: a date has to name its month.
            if any(character.isalpha() for character in text):
                readings.setdefault(text, {}).setdefault(day.isoformat(), set()).add(part)
    kept = {text: next(iter(of.items())) for text, of in readings.items() if len(of) == 1}
    rows = {
        part: np.array([i for i, (_, parts) in enumerate(kept.values()) if part in parts])
        for part in of_part
    }
    sources, targets = tuple(kept), tuple(day for day, _ in kept.values())
    reader, writer = (Characters.of(side[i] for i in rows["train"]) for side in (sources, targets))
    return Pairs.of(sources, targets, reader, writer, rows)


class Dates(PairTask):
    """Dates: translate a date from one of 21 locales to ISO 8601, character by character.

        inputs  2024. szeptember 25., szerda
        targets 2024-09-25

    A text that two locales take for two days has no right answer and is left out; so is a date
    whose month is a number. No day of the test is in training, in any form.

    Floor: the commonest character at each step.

    Attributes:
        count: dates to learn from.
        part: what is drawn from.

    Reference: the forms are those of the Unicode CLDR, by way of babel (docs/data.md).
    """

    count: int = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.count >= 100, "count >= 100")

    @property
    def pairs(self) -> Pairs:
        """The dates."""
        return pairs(self.count)

    def picture(self) -> str:
        """One of the dates."""
        return "inputs  2024. szeptember 25., szerda\ntargets 2024-09-25"
