"""The answers in words, each of them computed from the rows that it speaks of.

"Not within N steps" is all that a failed run can say. "Does not extrapolate" is said only of an
arm that solved its training lengths and then lost it further on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from longlag.core.spec import choose
from longlag.report.summary import FAR, Entry, Spread

__all__ = [
    "ROLES",
    "about_arms",
    "about_lag",
    "about_loss",
    "about_map",
    "about_steps",
    "about_tasks",
    "findings",
    "format_accuracy",
    "format_bytes",
]

ROLES = {
    "recurrence": "the recurrence alone",
    "both": "with attention",
    "attention": "attention alone",
    "feed-forward": "the feed-forward network",
}
"""What an arm can stand for in the comparison, and how a sentence calls it."""


def findings(entries: Sequence[Entry], roles: Mapping[str, str]) -> list[str]:
    """What the tasks say together: what each memory adds, which arm has both, at what cost.

    Args:
        entries: from `summarise`.
        roles: from the name of an arm to one of `ROLES`; an arm without a role takes no part in
            the sentences that set one role against another.

    Returns:
        a sentence for each finding that the rows support, possibly none.
    """
    for role in roles.values():
        choose(role, ROLES, "role")
    trained = [entry for entry in entries if not entry.is_floor]
    return _contrast(trained, roles) + about_arms(trained) + _cost(trained, roles)


def _contrast(entries: Sequence[Entry], roles: Mapping[str, str]) -> list[str]:
    """The tasks that one kind of memory solves and the other does not."""
    stuck: dict[str, list[Entry]] = {"recurrence": [], "attention": []}
    fragile = []
    for task, arms in _by_task(entries).items():
        kinds = {role: [c for c in arms if roles.get(c.arm) == role] for role in ROLES}
        alone, other = kinds["recurrence"], kinds["attention"]
        if alone and not _any_solves(alone) and _any_solves(other + kinds["both"]):
            stuck["recurrence"] += alone
        if other and not _any_solves(other) and _any_solves(alone):
            stuck["attention"] += other
        if any(c.extrapolates is False for c in other) and any(c.extrapolates for c in alone):
            fragile.append(task)
    sentences = []
    for role, adds, by in (
        ("recurrence", "Attention", "with attention"),
        ("attention", "Recurrence", "by the recurrence"),
    ):
        if failed := stuck[role]:
            sentences.append(
                f"{adds} adds {_join([*_by_task(failed)])}: {_name_budget(failed)} for "
                f"{ROLES[role]}, solved {by}."
            )
    if fragile:
        sentences.append(
            f"On {_join(fragile)}, attention alone solves the lengths it was trained on and does "
            f"not extrapolate to {FAR} × longer ones; the recurrence does."
        )
    return sentences


def about_arms(entries: Sequence[Entry]) -> list[str]:
    """Which arms solved every task; nothing where there is but one task."""
    entries = [entry for entry in entries if not entry.is_floor]
    tasks = _by_task(entries)
    if len(tasks) < 2:
        return []
    champions = [
        arm
        for arm in dict.fromkeys(entry.arm for entry in entries)
        if len(mine := [entry for entry in entries if entry.arm == arm]) == len(tasks)
        and all(entry.solves for entry in mine)
    ]
    if not champions:
        return ["No arm solved every task within its steps."]
    each = " each" if len(champions) > 1 else ""
    return [f"{_join(champions)}{each} solved all {len(tasks)} tasks."]


def _cost(entries: Sequence[Entry], roles: Mapping[str, str]) -> list[str]:
    """What the arms with attention carry from step to step, beside the recurrence."""
    shown: list[Entry] = []
    for arms in _by_task(entries).values():
        kinds = {roles.get(entry.arm) for entry in arms}
        # The longest task shows a growing cache best.
        if {"recurrence", "both"} <= kinds and (not shown or arms[0].length > shown[0].length):
            shown = arms
    if not shown:
        return []
    parts = []
    for entry in sorted(shown, key=lambda entry: entry.state_bytes):
        if roles.get(entry.arm) in ("recurrence", "both", "attention"):
            text = f"{entry.arm} {format_bytes(entry.state_bytes)}"
            if entry.far_state_bytes not in (None, entry.state_bytes):
                text += f" ({format_bytes(entry.far_state_bytes or 0)} at {entry.far_length:,})"
            parts.append(text)
    head = (
        f"The price is state, for one sequence of {shown[0].task} of length {shown[0].length:,}: "
    )
    return [head + _join(parts) + "."]


def about_tasks(entries: Sequence[Entry], roles: Mapping[str, str]) -> list[str]:
    """One sentence per task: what each arm reached, in how many steps, and how far it holds.

    Arguments as in `findings`; an arm without a role is called by its name.
    """
    sentences = []
    for task, arms in _by_task(entries).items():
        trained = [entry for entry in arms if not entry.is_floor]
        facts = [f"trained to length {arms[0].length:,}"]
        if (seeds := max((entry.seeds for entry in trained), default=0)) > 1:
            facts.append(f"{seeds} seeds")
        if floors := [entry.accuracy.median for entry in arms if entry.is_floor]:
            facts.append(f"floor {format_accuracy(max(floors))}")
        clauses = []
        # In the order of the argument: recurrence, then what attention does to it.
        for role in (*ROLES, None):
            group = [entry for entry in trained if roles.get(entry.arm) == role]
            if group:
                clauses.append(_clause(group, role))
        clauses[0] = f"On {task} ({', '.join(facts)}), {clauses[0]}"
        sentences.append(" ".join(f"{text[0].upper()}{text[1:]}." for text in clauses))
    return sentences


def _clause(group: Sequence[Entry], role: str | None) -> str:
    """What the arms of one role reached, the role called by its name."""
    if role is None:
        return _join([f"{entry.arm} {_describe(entry)}" for entry in group])
    if role == "both":
        return f"{ROLES[role]}, " + _join([f"{entry.arm} {_describe(entry)}" for entry in group])
    if role == "recurrence" or len(group) > 1:
        named = [f"({entry.arm}) {_describe(entry)}" for entry in group]
        return f"{ROLES[role]} {_join(named)}"
    return f"{ROLES[role]} {_describe(group[0])}"


def _describe(entry: Entry) -> str:
    if entry.diverged == entry.seeds:
        return "diverged in every seed"
    reached = f"reached {format_accuracy(entry.accuracy.median)}"
    if entry.flaws:
        reached += f" ({_describe_flaws(entry.flaws, entry.seeds)})"
    if not entry.solves:
        some = f" in {entry.seeds - entry.solved} of {entry.seeds} seeds" if entry.solved else ""
        return f"{reached}, {_name_budget([entry])}{some}"
    text = f"{reached} within {entry.budget:,} steps"
    if entry.steps:
        median = "a median of " if entry.seeds > 1 else ""
        text = f"{reached} in {median}{entry.steps.median:,.0f} steps"
    if entry.far_accuracy is None:
        return text
    far = format_accuracy(entry.far_accuracy.median)
    if entry.far_flaws:
        far += f" ({_describe_flaws(entry.far_flaws, entry.seeds)})"
    if entry.extrapolates:
        return f"{text} (and {far} at length {entry.far_length:,})"
    return f"{text} but {far} at length {entry.far_length:,}: it does not extrapolate"


def _describe_flaws(flaws: Sequence[str], seeds: int) -> str:
    """In a sentence: of "1 diverged", "1 of 3 seeds diverged"."""
    return _join([flaw.replace(" ", f" of {seeds} seeds ", 1) for flaw in flaws])


def about_steps(entries: Sequence[Entry]) -> list[str]:
    """How long each arm took to solve each task, for the learning curves."""
    sentences = []
    for task, arms in _by_task(entries).items():
        solved = sorted((c for c in arms if c.solves and c.steps), key=lambda c: _steps(c).median)
        parts = []
        for entry in solved:
            steps = _steps(entry)
            low, high = steps.range
            spread = f" ({low:,.0f} to {high:,.0f})" if high > low else ""
            parts.append(f"{entry.arm} {steps.median:,.0f}{spread}")
        failed = [entry for entry in arms if not entry.solves and not entry.is_floor]
        if failed:
            parts.append(f"{_join([entry.arm for entry in failed])} {_name_budget(failed)}")
        if parts:
            sentences.append(
                f"Steps to {format_accuracy(arms[0].threshold)} on {task}: {', '.join(parts)}."
            )
    return sentences


def about_loss(entries: Sequence[Entry]) -> list[str]:
    """What loss each arm ends at, beside the floor's, for the curves of the loss."""
    sentences = []
    for task, arms in _by_task(entries).items():
        floors = [
            f"{entry.loss:.2g}" for entry in arms if entry.is_floor and np.isfinite(entry.loss)
        ]
        floor = f" (floor {_join(floors)})" if floors else ""
        ends = [f"{c.arm} {c.loss:.2g}" for c in arms if not c.is_floor and np.isfinite(c.loss)]
        if ends:
            sentences.append(f"Loss on {task}{floor}: {', '.join(ends)}.")
    return sentences


def about_lag(by_lag: Sequence[Mapping[str, Any]], threshold: float) -> list[str]:
    """Up to which lag the median seed of each arm keeps to the threshold."""
    sentences = []
    for task in dict.fromkeys(point["task"] for point in by_lag):
        points = [point for point in by_lag if point["task"] == task]
        longest = max(point["lag"] for point in points)
        reaches: dict[int, list[str]] = {}
        for arm in dict.fromkeys(point["arm"] for point in points):
            reach = 0
            for lag in sorted({p["lag"] for p in points if p["arm"] == arm}):
                here = (p["accuracy"] for p in points if p["arm"] == arm and p["lag"] == lag)
                if not Spread.of(here).median >= threshold:
                    break
                reach = lag
            reaches.setdefault(reach, []).append(arm)
        parts = []
        for reach in sorted(reaches, reverse=True):
            until = f"to lag {reach:,}" if reach else "at no lag"
            until += ", the longest tested" if reach == longest else ""
            parts.append(f"{_join(reaches[reach])} {until}")
        head = f"On {task}, trained to lag {points[0]['train_lag']:,}, accuracy stays at "
        sentences.append(
            head + f"{format_accuracy(threshold)} or above for " + "; ".join(parts) + "."
        )
    return sentences


def about_map(picture: Mapping[str, Any]) -> str:
    """Where the sharpest read of an attention map goes, in the words of its tokens."""
    weights = np.asarray(picture["weights"], dtype=float)
    # The first step can only read itself: it is sharp by necessity, and tells nothing.
    reads = np.where((weights > 0).sum(axis=1)[:, None] > 1, weights, 0.0)
    query, memory = np.unravel_index(reads.argmax(), reads.shape)
    tokens = picture["tokens"]
    queries = picture.get("queries", tokens[len(tokens) - len(weights) :])
    return (
        f"The sharpest read: at “{queries[query]}”, step {query + 1}, "
        f"{format_accuracy(reads[query, memory])} of the weight lies on “{tokens[memory]}”, "
        f"step {memory + 1}."
    )


def format_accuracy(value: float) -> str:
    """An accuracy as the tables print it: `.58`, `1.00`."""
    return f"{value:.2f}".removeprefix("0") if np.isfinite(value) else "–"


def format_bytes(count: float) -> str:
    """Bytes in units that a person reads: `512 B`, `8.5 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _by_task(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    tasks: dict[str, list[Entry]] = {}
    for entry in entries:
        tasks.setdefault(entry.task, []).append(entry)
    return tasks


def _any_solves(entries: Iterable[Entry]) -> bool:
    return any(entry.solves for entry in entries)


def _steps(entry: Entry) -> Spread:
    assert entry.steps is not None
    return entry.steps


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _name_budget(entries: Sequence[Entry]) -> str:
    low, high = (pick(entry.budget for entry in entries) for pick in (min, max))
    return f"not within {low:,} steps" if low == high else f"not within {low:,} to {high:,} steps"
