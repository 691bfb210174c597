"""The answers in words, each of them computed from the rows that it speaks of.

"Not within N steps" is all that a failed run can say. "Does not extrapolate" is said only of an
arm that solved its training lengths and then lost it further on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from longlag.core.spec import choose
from longlag.report.summary import FAR, Cell, Spread

__all__ = [
    "ROLES",
    "about_arms",
    "about_lag",
    "about_loss",
    "about_map",
    "about_steps",
    "answers",
    "findings",
    "score",
    "size",
]

ROLES = {
    "recurrence": "the recurrence alone",
    "both": "with attention",
    "attention": "attention alone",
    "feed-forward": "the feed-forward network",
}
"""What an arm can stand for in the comparison, and how a sentence calls it."""


def findings(cells: Sequence[Cell], roles: Mapping[str, str]) -> list[str]:
    """What the tasks say together: what each memory adds, which arm has both, at what cost.

    Args:
        cells: from `summarise`.
        roles: from the name of an arm to one of `ROLES`; an arm without a role takes no part in
            the sentences that set one role against another.

    Returns:
        a sentence for each finding that the rows support, possibly none.
    """
    for role in roles.values():
        choose(role, ROLES, "role")
    trained = [cell for cell in cells if not cell.is_floor]
    return _apart(trained, roles) + about_arms(trained) + _cost(trained, roles)


def _apart(cells: Sequence[Cell], roles: Mapping[str, str]) -> list[str]:
    """The tasks that one kind of memory solves and the other does not."""
    stuck: dict[str, list[Cell]] = {"recurrence": [], "attention": []}
    fragile = []
    for task, arms in _by_task(cells).items():
        kinds = {role: [c for c in arms if roles.get(c.arm) == role] for role in ROLES}
        alone, other = kinds["recurrence"], kinds["attention"]
        if alone and not _any(alone) and _any(other + kinds["both"]):
            stuck["recurrence"] += alone
        if other and not _any(other) and _any(alone):
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
                f"{adds} adds {_list([*_by_task(failed)])}: {_not_within(failed)} for "
                f"{ROLES[role]}, solved {by}."
            )
    if fragile:
        sentences.append(
            f"On {_list(fragile)}, attention alone solves the lengths it was trained on and does "
            f"not extrapolate to {FAR} × longer ones; the recurrence does."
        )
    return sentences


def about_arms(cells: Sequence[Cell]) -> list[str]:
    """Which arms solved every task; nothing where there is but one task."""
    cells = [cell for cell in cells if not cell.is_floor]
    tasks = _by_task(cells)
    if len(tasks) < 2:
        return []
    champions = [
        arm
        for arm in dict.fromkeys(cell.arm for cell in cells)
        if len(mine := [cell for cell in cells if cell.arm == arm]) == len(tasks)
        and all(cell.solves for cell in mine)
    ]
    if not champions:
        return ["No arm solved every task within its steps."]
    each = " each" if len(champions) > 1 else ""
    return [f"{_list(champions)}{each} solved all {len(tasks)} tasks."]


def _cost(cells: Sequence[Cell], roles: Mapping[str, str]) -> list[str]:
    """What the arms with attention carry from step to step, beside the recurrence."""
    shown: list[Cell] = []
    for arms in _by_task(cells).values():
        kinds = {roles.get(cell.arm) for cell in arms}
        # The longest task shows a growing cache best.
        if {"recurrence", "both"} <= kinds and (not shown or arms[0].length > shown[0].length):
            shown = arms
    if not shown:
        return []
    parts = []
    for cell in sorted(shown, key=lambda cell: cell.state_bytes):
        if roles.get(cell.arm) in ("recurrence", "both", "attention"):
            text = f"{cell.arm} {size(cell.state_bytes)}"
            if cell.far_state_bytes not in (None, cell.state_bytes):
                text += f" ({size(cell.far_state_bytes or 0)} at {cell.far_length:,})"
            parts.append(text)
    head = (
        f"The price is state, for one sequence of {shown[0].task} of length {shown[0].length:,}: "
    )
    return [head + _list(parts) + "."]


def answers(cells: Sequence[Cell], roles: Mapping[str, str]) -> list[str]:
    """One sentence per task: what each arm reached, in how many steps, and how far it holds.

    Arguments as in `findings`; an arm without a role is called by its name.
    """
    sentences = []
    for task, arms in _by_task(cells).items():
        trained = [cell for cell in arms if not cell.is_floor]
        facts = [f"trained to length {arms[0].length:,}"]
        if (seeds := max((cell.seeds for cell in trained), default=0)) > 1:
            facts.append(f"{seeds} seeds")
        if floors := [cell.accuracy.median for cell in arms if cell.is_floor]:
            facts.append(f"floor {score(max(floors))}")
        clauses = []
        # In the order of the argument: recurrence, then what attention does to it.
        for role in (*ROLES, None):
            group = [cell for cell in trained if roles.get(cell.arm) == role]
            if group:
                clauses.append(_clause(group, role))
        clauses[0] = f"On {task} ({', '.join(facts)}), {clauses[0]}"
        sentences.append(" ".join(f"{text[0].upper()}{text[1:]}." for text in clauses))
    return sentences


def _clause(group: Sequence[Cell], role: str | None) -> str:
    """What the arms of one role reached, the role called by its name."""
    if role is None:
        return _list([f"{cell.arm} {_reached(cell)}" for cell in group])
    if role == "both":
        return f"{ROLES[role]}, " + _list([f"{cell.arm} {_reached(cell)}" for cell in group])
    if role == "recurrence" or len(group) > 1:
        named = [f"({cell.arm}) {_reached(cell)}" for cell in group]
        return f"{ROLES[role]} {_list(named)}"
    return f"{ROLES[role]} {_reached(group[0])}"


def _reached(cell: Cell) -> str:
    if cell.diverged == cell.seeds:
        return "diverged in every seed"
    reached = f"reached {score(cell.accuracy.median)}"
    if cell.flaws:
        reached += f" ({_flawed(cell.flaws, cell.seeds)})"
    if not cell.solves:
        some = f" in {cell.seeds - cell.solved} of {cell.seeds} seeds" if cell.solved else ""
        return f"{reached}, {_not_within([cell])}{some}"
    text = f"{reached} within {cell.budget:,} steps"
    if cell.steps:
        median = "a median of " if cell.seeds > 1 else ""
        text = f"{reached} in {median}{cell.steps.median:,.0f} steps"
    if cell.far_accuracy is None:
        return text
    far = score(cell.far_accuracy.median)
    if cell.far_flaws:
        far += f" ({_flawed(cell.far_flaws, cell.seeds)})"
    if cell.extrapolates:
        return f"{text} (and {far} at length {cell.far_length:,})"
    return f"{text} but {far} at length {cell.far_length:,}: it does not extrapolate"


def _flawed(flaws: Sequence[str], seeds: int) -> str:
    """In a sentence: of "1 diverged", "1 of 3 seeds diverged"."""
    return _list([flaw.replace(" ", f" of {seeds} seeds ", 1) for flaw in flaws])


def about_steps(cells: Sequence[Cell]) -> list[str]:
    """How long each arm took to solve each task, for the learning curves."""
    sentences = []
    for task, arms in _by_task(cells).items():
        solved = sorted((c for c in arms if c.solves and c.steps), key=lambda c: _steps(c).median)
        parts = []
        for cell in solved:
            steps = _steps(cell)
            low, high = steps.range
            spread = f" ({low:,.0f} to {high:,.0f})" if high > low else ""
            parts.append(f"{cell.arm} {steps.median:,.0f}{spread}")
        failed = [cell for cell in arms if not cell.solves and not cell.is_floor]
        if failed:
            parts.append(f"{_list([cell.arm for cell in failed])} {_not_within(failed)}")
        if parts:
            sentences.append(f"Steps to {score(arms[0].threshold)} on {task}: {', '.join(parts)}.")
    return sentences


def about_loss(cells: Sequence[Cell]) -> list[str]:
    """What loss each arm ends at, beside the floor's, for the curves of the loss."""
    sentences = []
    for task, arms in _by_task(cells).items():
        floors = [f"{cell.loss:.2g}" for cell in arms if cell.is_floor and np.isfinite(cell.loss)]
        floor = f" (floor {_list(floors)})" if floors else ""
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
            parts.append(f"{_list(reaches[reach])} {until}")
        head = f"On {task}, trained to lag {points[0]['train_lag']:,}, accuracy stays at "
        sentences.append(head + f"{score(threshold)} or above for " + "; ".join(parts) + ".")
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
        f"{score(reads[query, memory])} of the weight lies on “{tokens[memory]}”, "
        f"step {memory + 1}."
    )


def score(value: float) -> str:
    """An accuracy as the tables print it: `.58`, `1.00`."""
    return f"{value:.2f}".removeprefix("0") if np.isfinite(value) else "–"


def size(count: float) -> str:
    """Bytes in units that a person reads: `512 B`, `8.5 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _by_task(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    tasks: dict[str, list[Cell]] = {}
    for cell in cells:
        tasks.setdefault(cell.task, []).append(cell)
    return tasks


def _any(cells: Iterable[Cell]) -> bool:
    return any(cell.solves for cell in cells)


def _steps(cell: Cell) -> Spread:
    assert cell.steps is not None
    return cell.steps


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _not_within(cells: Sequence[Cell]) -> str:
    low, high = (pick(cell.budget for cell in cells) for pick in (min, max))
    return f"not within {low:,} steps" if low == high else f"not within {low:,} to {high:,} steps"
