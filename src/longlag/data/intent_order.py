"""Commands about two devices, where the order of the words says which one is acted on first.

"open the curtains after you turn off the kettle" acts on a switch, and "turn off the kettle after
you open the curtains" on a cover. Both have the same words. A frame of ours joins two commands,
which are drawn from the templates of the installed package home-assistant-intents. docs/data.md
has the rules and the numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from longlag.data.intents import tokenize
from longlag.system.optional_packages import needed_for

if TYPE_CHECKING:
    from longlag.data.templates import Form

__all__ = ["FAMILIES", "FRAMES", "KINDS", "PARTS", "TEMPLATES", "Commands", "load"]

# The kinds of device, as home-assistant calls them: the classes.
KINDS = ("light", "switch", "fan", "media_player", "cover", "valve", "lock", "vacuum")
# The package's own templates of a command about one device, by intent.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "HassTurnOn": (
        "<turn> on [<the>] {name}",
        "<turn> on [<the>] {name} <in> [<the>] {area}",
        "activate [<the>] {name}",
        "<open> [<the>] {name}",
        "<open> [<the>] {name} <in> [<the>] {area}",
        "lock [<the>] {name}",
        "lock [<the>] {name} <in> [<the>] {area}",
    ),
    "HassTurnOff": (
        "<turn> off [<the>] {name}",
        "<turn> off [<the>] {name} <in> [<the>] {area}",
        "deactivate [<the>] {name}",
        "<close> [<the>] {name}",
        "<close> [<the>] {name} <in> [<the>] {area}",
        "unlock [<the>] {name}",
        "unlock [<the>] {name} <in> [<the>] {area}",
    ),
    "HassVacuumStart": ("start [<the>] {name}",),
    "HassVacuumCleanArea": ("start [<the>] {name} <in> [<the>] {area}",),
    "HassVacuumReturnToBase": ("return [<the>] {name} [to base]",),
}
# Our frames. {first} is the command that is carried out first, or alone. {other} is the command
# that comes later, or not at all, and {device} only the name of its device: the action is then the
# same for both. Frames of one connective follow each other, so that they go to different folds.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "negation": (
        "{first} not the {device}",
        "not the {device} {first}",
        "{first} but not the {device}",
        "do not {other} {first}",
        "{first} do not {other}",
        "do not {other} but {first}",
    ),
    "instead of": (
        "{first} instead of the {device}",
        "instead of the {device} {first}",
        "{first} rather than the {device}",
        "rather than the {device} {first}",
    ),
    "two actions": (
        "{first} and {other}",
        "{first} and then {other}",
        "first {first} then {other}",
        "{other} but first {first}",
        "{other} but {first} first",
        "{first} first and {other}",
    ),
    "after or before": (
        "{first} before you {other}",
        "before you {other} {first}",
        "{other} after you {first}",
        "after you {first} {other}",
        "{other} once you {first}",
        "once you {first} {other}",
        "{other} as soon as you {first}",
        "as soon as you {first} {other}",
    ),
}
FRAMES = tuple(itertools.chain.from_iterable(FAMILIES.values()))
PARTS = ("train", "validation", "combinations", "frames")
_NAME = "NAME"  # stands for the name while a command is drawn; the package has no capitals
_DRAWS = 50  # per pair wanted, before a frame counts as exhausted


@dataclasses.dataclass(frozen=True, eq=False)
class Commands:
    """Distinct commands in pairs: 2i and 2i + 1 have the same words and different answers.

    Attributes:
        texts: N texts as `tokenize` leaves them, joined by single spaces.
        labels: `[N]` int32, index into `KINDS`: the device that is acted on first.
        frames: `[N]` int32, index into `FRAMES`.
        parts: the indices of each of `PARTS`, `[...]` int64, ascending; a pair is in one part.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    frames: np.ndarray
    parts: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.texts)


def load(per_frame: int = 600, fold: int = 0, folds: int = 4, seed: int = 0) -> Commands:
    """Draws pairs of commands, and divides them by what is not in training.

    Frame i is held out if `i % folds == fold`. Of every other frame one name of each kind is held
    out. The parts:

    - "train": `per_frame` pairs of every frame that is not held out, without its held-out names;
    - "validation": 50 further pairs of the same;
    - "combinations": 100 pairs of each of these frames, of two names that it held out;
    - "frames": 100 pairs of every held-out frame, of any names.

    Args:
        per_frame: training pairs of a frame.
        fold: which frames are held out.
        folds: how many folds there are, at least 2.
        seed: another seed draws another sample, and holds out other names.

    Raises:
        ImportError: the extra `data` is not installed.
        ValueError: a number is out of its range, the package has no such template, or a frame has
            fewer pairs than `per_frame`.
    """
    if per_frame < 1 or folds < 2 or fold not in range(folds):
        raise ValueError(
            "load: expected per_frame >= 1, folds >= 2 and 0 <= fold < folds; "
            f"got {per_frame}, {folds} and {fold}"
        )
    with needed_for("the commands"):
        from longlag.data import templates as source

    texts: dict[str, int] = {}
    frames: list[int] = []
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for number, frame in enumerate(FRAMES):
        rng = random.Random(f"{seed} {frame}")
        held = {kind: rng.choice(source.NAMES[kind]) for kind in KINDS}
        every = {kind: source.NAMES[kind] for kind in KINDS}
        known = {kind: tuple(n for n in every[kind] if n != held[kind]) for kind in KINDS}
        new = {kind: (name,) for kind, name in held.items()}
        wanted = [("train", known, per_frame), ("validation", known, 50)]
        wanted += [("combinations", new, 100)]
        if number % folds == fold:
            wanted = [("frames", every, 100)]
        for part, names, count in wanted:
            pairs = itertools.islice(_draw_pairs(frame, names, rng), _DRAWS * count)
            before = len(texts)
            for pair in pairs:
                if len(texts) == before + 2 * count:
                    break
                if not texts.keys() & pair.keys():
                    texts |= pair
            if len(texts) < before + 2 * count:
                drawn = (len(texts) - before) // 2
                raise ValueError(f"{frame!r}: expected {count} pairs, got {drawn} ({part})")
            parts[part] += range(before, len(texts))
            frames += [number] * 2 * count
    return Commands(
        texts=tuple(texts),
        labels=np.array([*texts.values()], np.int32),
        frames=np.array(frames, np.int32),
        parts={part: np.array(rows, np.int64) for part, rows in parts.items()},
    )


def _draw_pairs(
    frame: str, names: Mapping[str, Sequence[str]], rng: random.Random
) -> Iterator[dict[str, int]]:
    """Two commands of the same words with their labels, again and again.

    Args:
        frame: of `FRAMES`.
        names: of each kind, those that may occur.
        rng: source of the draws.
    """
    from longlag.data import templates as source

    forms = _forms()
    one_action = "{device}" in frame
    kinds = [
        pair
        for pair in itertools.combinations(KINDS, 2)
        if not one_action or forms[pair[0]].keys() & forms[pair[1]].keys()
    ]
    while True:
        pair = rng.choice(kinds)
        devices = [rng.choice(names[kind]) for kind in pair]
        if one_action:
            common = [sentence for sentence in forms[pair[0]] if sentence in forms[pair[1]]]
            drawn = [source.draw(forms[pair[0]][rng.choice(common)], rng)] * 2
        else:
            drawn = [source.draw(rng.choice([*forms[kind].values()]), rng) for kind in pair]
        commands = [text.replace(_NAME, device) for text, device in zip(drawn, devices)]
        yield {
            _join(frame, commands[i], commands[1 - i], devices[1 - i]): KINDS.index(pair[i])
            for i in (0, 1)
        }


def _join(frame: str, first: str, other: str, device: str) -> str:
    return " ".join(tokenize(frame.format(first=first, other=other, device=device)))


@functools.cache
def _forms() -> Mapping[str, Mapping[str, Form]]:
    """The forms that command a device of each kind, by template; its name is `_NAME`."""
    from hassil import TextChunk, TextSlotList

    from longlag.data import templates as source

    package = source.read("en")
    name = {"name": TextSlotList.from_strings([_NAME])}
    forms: dict[str, dict[str, Form]] = {kind: {} for kind in KINDS}
    for intent, sentences in TEMPLATES.items():
        for sentence in sentences:
            if sentence not in package.get(intent, {}):
                raise ValueError(f"home-assistant-intents: expected {sentence!r} of {intent}")
            for form in package[intent][sentence]:
                values = (value.text_in for value in form.lists["name"].values)
                taken = {name.text for name in values if isinstance(name, TextChunk)}
                for kind in KINDS:
                    if taken >= {*source.NAMES[kind]}:
                        alone = dataclasses.replace(form, lists={**form.lists, **name})
                        forms[kind][sentence] = alone
    return forms
