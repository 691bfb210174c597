"""A small instance of every task that draws its data, and what the tests of all tasks expect of it.

A new task needs no entry here. Its own tests, `tests/tasks/test_MODULE.py`, may define

    SMALL: an instance of few steps, where the defaults of its dials have many;
    TURNED: another value for every dial, where the value beside it does not do;
    STEPS_PER_LAG: the steps of time that a step of its lag has, where that is not one;
    FROZEN: the checksum of its data, which `test_data_are_frozen` prints.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import typing
from typing import Any

from longlag.runs import task_names
from longlag.tasks import (
    Adding,
    AssociativeRecall,
    BinaryAddition,
    BinaryMultiplication,
    BucketSort,
    Compression,
    ComputeSqrt,
    CopyMemory,
    CycleNavigation,
    DuplicateString,
    EvenPairs,
    FirstInput,
    GroupWord,
    InContextRecall,
    InductionHeads,
    LagCopy,
    Memorization,
    MissingDuplicate,
    ModularArithmetic,
    ModularArithmeticBrackets,
    OddsFirst,
    Parity,
    ParityDense,
    Recall,
    Reverse,
    SelectiveCopy,
    SolveEquation,
    StackManipulation,
    StateRecall,
    Task,
    TemporalOrder,
)

__all__ = ["SMALL", "frozen", "is_new", "steps_per_lag", "turned"]

_BY_HAND: dict[Task, dict[str, Any]] = {
    CopyMemory(lag=5, symbols=6, items=3): {"lag": 7, "symbols": 4, "items": 4},
    Adding(length=9): {"length": 12},
    SelectiveCopy(length=9, items=3, vocab=6): {
        "length": 11, "items": 4, "vocab": 4, "marker_once": True,
    },
    Recall(length=12, pairs=3, vocab=15): {"length": 14, "pairs": 2, "vocab": 16},
    FirstInput(lag=7, symbols=5): {"lag": 9, "symbols": 3, "dense": False},
    Parity(min_length=2, max_length=9): {"min_length": 5, "max_length": 11},
    ParityDense(min_length=2, max_length=9): {"min_length": 5, "max_length": 11},
    EvenPairs(min_length=1, max_length=9): {"min_length": 5, "max_length": 11},
    CycleNavigation(1, 9, places=5): {"min_length": 5, "max_length": 11, "places": 3},
    ModularArithmetic(1, 9, modulus=5): {"min_length": 5, "max_length": 11, "modulus": 3},
    GroupWord(1, 9, group="s3"): {"min_length": 5, "max_length": 11, "group": "a5"},
    Reverse(2, 7, symbols=3): {"min_length": 5, "max_length": 9, "symbols": 2},
    InductionHeads(length=9, vocab=6): {"length": 12, "vocab": 4},
    TemporalOrder(length=20, symbols=2): {"length": 40, "symbols": 3},
    StateRecall(1, 5, group="s3", pairs=4, values=7): {
        "min_length": 3, "max_length": 6, "group": "z5", "pairs": 3, "values": 9,
    },
    LagCopy(lag=3, symbols=5, items=6): {"lag": 5, "symbols": 3, "items": 7},
    Compression(lag=2, symbols=4, items=5): {"lag": 4, "symbols": 3, "items": 4},
    Memorization(length=8, facts=5): {"length": 10, "facts": 4, "map_seed": 1},
    AssociativeRecall(pairs=4, keys=3, values=5): {"pairs": 5, "keys": 4, "values": 4},
    InContextRecall(24, 4, 5, key_tokens=2, value_tokens=2, noise=0.3, noise_tokens=3): {
        "length": 28, "keys": 5, "values": 4, "key_tokens": 1, "value_tokens": 4, "noise": 0.5,
        "noise_tokens": 2,
    },
    DuplicateString(2, 7, symbols=3): {"min_length": 5, "max_length": 9, "symbols": 2},
    OddsFirst(2, 7, symbols=3): {"min_length": 5, "max_length": 9, "symbols": 2},
    BucketSort(2, 7, symbols=3): {"min_length": 5, "max_length": 9, "symbols": 2},
    MissingDuplicate(2, 9): {"min_length": 5, "max_length": 11},
    ModularArithmeticBrackets(1, 9): {"min_length": 5, "max_length": 11, "modulus": 3},
    SolveEquation(3, 9): {"min_length": 5, "max_length": 11, "modulus": 3},
    StackManipulation(1, 7): {"min_length": 5, "max_length": 9},
    BinaryAddition(3, 8): {"min_length": 5, "max_length": 9},
    BinaryMultiplication(3, 8): {"min_length": 5, "max_length": 9},
    ComputeSqrt(1, 8): {"min_length": 5, "max_length": 9},
}  # fmt: skip
# A step of lag is so many steps of time, if it is not one.
_STEPS_PER_LAG: dict[type[Task], float] = {
    AssociativeRecall: 2, BinaryAddition: 2, BinaryMultiplication: 2, BucketSort: 2,
    ComputeSqrt: 1.5, DuplicateString: 3, OddsFirst: 2, Reverse: 2, StackManipulation: 2,
    TemporalOrder: 1.1,
}  # fmt: skip
_FROZEN: dict[type[Task], str] = {
    CopyMemory: "167b02501578",
    Adding: "38d5de29dff1",
    SelectiveCopy: "3d612e7efe7b",
    Recall: "3f0198fa35dc",
    FirstInput: "b72f7d103f4d",
    Parity: "9fef7c2d7336",
    ParityDense: "e556b66fe435",
    EvenPairs: "60f13338de65",
    CycleNavigation: "ded5d49d25ab",
    ModularArithmetic: "c3db243c6ca4",
    GroupWord: "e2584a2aa9d9",
    Reverse: "8fde203817d3",
    InductionHeads: "e6b353f7e2fa",
    TemporalOrder: "c53061ad896e",
    StateRecall: "18f508416178",
    LagCopy: "c086059e5bd2",
    Compression: "001ef0c8f361",
    Memorization: "2f23639a3a10",
    AssociativeRecall: "5c2c5b12d363",
    InContextRecall: "7ea94a12cc85",
    BinaryAddition: "a4912f029079",
    BinaryMultiplication: "5be00a56f254",
    BucketSort: "7eab89cd36cd",
    ComputeSqrt: "92071ff6c49d",
    DuplicateString: "b45a6d71745e",
    MissingDuplicate: "15a9510219b9",
    ModularArithmeticBrackets: "d01d48d69892",
    OddsFirst: "329607e024ae",
    SolveEquation: "96767de4e8dc",
    StackManipulation: "0e7e2c582ea1",
}


def is_new(kind: type[Task]) -> bool:
    """Whether a task has no entry here."""
    return all(type(task) is not kind for task in _BY_HAND)


def frozen(kind: type[Task]) -> str | None:
    """The checksum of its data, or None before it has one."""
    return _FROZEN.get(kind) or _of_tests(kind, "FROZEN", None)


def steps_per_lag(kind: type[Task]) -> float:
    """The steps of time that a step of its lag has."""
    return _STEPS_PER_LAG.get(kind) or _of_tests(kind, "STEPS_PER_LAG", 1)


def _of_tests(kind: type[Task], name: str, default: Any) -> Any:
    """What the tests of a task define; they may be still to be written."""
    tests = f"tests.tasks.test_{kind.__module__.rpartition('.')[2]}"
    if importlib.util.find_spec(tests) is None:
        return default
    return getattr(importlib.import_module(tests), name, default)


def turned(task: Task) -> dict[str, Any]:
    """Another value for every dial: the nearest that the task takes."""
    types = typing.get_type_hints(type(task))
    dials: dict[str, Any] = {}
    for field in dataclasses.fields(task):
        now = getattr(task, field.name)
        if isinstance(now, bool):
            values: list[Any] = [not now]
        elif isinstance(now, int):
            values = [now + step for step in (1, 2, 3, -1)] + [2 * now]
        elif isinstance(now, float):
            values = [now / 2, now + 0.25]
        else:
            values = [value for value in typing.get_args(types[field.name]) if value != now]
        for value in values:
            try:
                dataclasses.replace(task, **{field.name: value})
            except ValueError:
                continue
            dials[field.name] = value
            break
        else:
            raise ValueError(f"{task}: expected TURNED in its tests, with a value for {field.name}")
    return dials


def _discovered() -> dict[Task, dict[str, Any]]:
    """The tasks that are not entered by hand and draw their data, as their tests have them."""
    known = {type(task) for task in _BY_HAND}
    tasks: dict[Task, dict[str, Any]] = {}
    for kind in task_names().values():
        # A task whose data have parts reads them from files.
        if kind in known or kind.evaluation_task is not Task.evaluation_task:
            continue
        task = _of_tests(kind, "SMALL", None) or kind()
        tasks[task] = _of_tests(kind, "TURNED", None) or turned(task)
    return tasks


SMALL = _BY_HAND | _discovered()
