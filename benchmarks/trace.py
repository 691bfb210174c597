"""Which operations of a compiled program take how long, by jax's profiler.

XLA:CPU runs a compiled program as a list of operations, each of which the profiler times. Tracing
makes a run a little longer. A product is an operation in whose program a `dot` stands.
"""

from __future__ import annotations

import collections
import gzip
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["RUNS", "Operation", "Traced", "trace"]

RUNS = 3


class Operation(NamedTuple):
    """One operation of a program.

    Attributes:
        name: in the compiled program.
        runs: how often it ran in one run of the program.
        ms: milliseconds of one run of the program, all its runs together.
        result: dtype and shape of its result, as XLA writes it.
        product: whether a matrix product stands in it.
    """

    name: str
    runs: float
    ms: float
    result: str
    product: bool

    def as_row(self) -> dict[str, Any]:
        """For a JSON object."""
        return {
            "operation": self.name,
            "runs": round(self.runs, 1),
            "ms": round(self.ms, 3),
            "result": self.result,
            "product": self.product,
        }


class Traced(NamedTuple):
    """Means of the traced runs of a program.

    Attributes:
        ms: one run.
        gaps: milliseconds of it in which no timed operation runs.
        operations: longest first.
    """

    ms: float
    gaps: float
    operations: list[Operation]


def trace(run: Callable[[], Any], program: str) -> Traced:
    """Traces `RUNS` runs, each by itself: of one trace the profiler keeps a million events.

    Args:
        run: one run of the compiled program, to its end; it has run before.
        program: the text of the compiled program.
    """
    shapes, products = _read_program(program)
    total, count = collections.Counter(), collections.Counter()
    wall = gaps = 0.0
    for _ in range(RUNS):
        ms, events = _events(run)
        events = [event for event in events if event["name"] in shapes]
        for event in events:
            total[event["name"]] += event["dur"] / 1e3 / RUNS
            count[event["name"]] += 1
        wall += ms / RUNS
        gaps += max(ms - _covered_ms(events), 0.0) / RUNS
    operations = [
        Operation(name, count[name] / RUNS, ms, shapes[name], name in products)
        for name, ms in total.most_common()
    ]
    return Traced(wall, gaps, operations)


def _events(run: Callable[[], Any]) -> tuple[float, list[dict[str, Any]]]:
    """Milliseconds of one traced run, and its events."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
        start = time.perf_counter()
        run()
        ms = (time.perf_counter() - start) * 1e3
        jax.profiler.stop_trace()
        (file,) = Path(folder).rglob("perfetto_trace.json.gz")
        with gzip.open(file) as opened:
            content = json.load(opened)
    events = content if isinstance(content, list) else content["traceEvents"]
    return ms, [event for event in events if event.get("ph") == "X"]


def _covered_ms(events: Sequence[dict[str, Any]]) -> float:
    """Milliseconds in which at least one of the events goes on."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted((event["ts"], event["ts"] + event["dur"]) for event in events):
        covered += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return covered / 1e3


def _read_program(text: str) -> tuple[dict[str, str], set[str]]:
    """Result shapes of the operations that take time, and those in which a product stands."""
    shapes: dict[str, str] = {}
    calls: dict[str, str] = {}
    with_dot, here = set(), ""
    for line in text.splitlines():
        opened = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if opened:
            here = opened[1]
        match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(", line)
        if not match:
            continue
        name, result, opcode = match.groups()
        if opcode == "dot":
            with_dot.add(here)
        if opcode in ("while", "call", "conditional", "parameter", "tuple", "get-tuple-element"):
            continue
        shapes[name] = re.sub(r"\{[^}]*\}", "", result)
        called = re.search(r"calls=%?([\w.\-]+)", line)
        calls[name] = called[1] if called else ("dot" if opcode == "dot" else "")
    products = {name for name, callee in calls.items() if callee == "dot" or callee in with_dot}
    return shapes, products
