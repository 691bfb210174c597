"""What every benchmark ends with: one JSON object, and if asked for, a place among the results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import rich.box
from rich.table import Table

from benchmarks.rounds import busy_cores
from longlag.report.rows import insert
from longlag.system.allocator import keep_freed_memory
from longlag.system.atomic_files import replace_file
from longlag.system.console import console
from longlag.system.machine import environment, version

__all__ = ["QUIET", "README", "RESULTS", "Record", "Results", "Row", "source", "table"]

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
# Part of a core that other processes may take while results are recorded.
QUIET = 0.05
# Seconds of one look at the others when results are kept: within one second the kernel's own short
# work makes what is seen swing by half of QUIET. A look that decides nothing is short.
LOOK, GLANCE = 3.0, 1.0
# How often a measurement is taken that others have disturbed.
ATTEMPTS = 3

T = TypeVar("T")
# What a benchmark leaves, and one of its `rows`.
Results = dict[str, Any]
Row = dict[str, Any]


class Record:
    """One run of a benchmark, from its first look at the machine to its last line.

    Args:
        benchmark: its name, as in `python -m benchmarks.NAME`.
        keep: keep the results in benchmarks/results and make their table in benchmarks/README.md.
        packages: whose versions are noted, beside those of longlag and of what it stands on.

    Raises:
        ValueError: results are to be kept, and other processes are busy.
    """

    def __init__(self, benchmark: str, keep: bool, packages: Sequence[str] = ()) -> None:
        self.benchmark, self.keep, self.packages = benchmark, keep, packages
        keep_freed_memory()  # as each contestant does, and each command of longlag
        self.began, self._look = time.perf_counter(), LOOK if keep else GLANCE
        self.loudest = busy_cores(self._look)
        if keep and self.loudest > QUIET:
            raise ValueError(
                f"--record: expected a quiet machine; other processes keep {self.loudest:.2f} "
                "cores busy"
            )

    def measure_quietly(self, measure: Callable[..., T], *arguments: Any) -> T:
        """Measures; if results are kept, again where others were busy right afterwards.

        Raises:
            ValueError: others were busy after the last attempt too.
        """
        others = 0.0
        for _ in range(ATTEMPTS):
            measured = measure(*arguments)
            others = busy_cores(self._look)
            if others > QUIET and self.keep:
                # The kernel may still be freeing what our own measurement took.
                others = busy_cores(self._look)
            if others <= QUIET or not self.keep:
                self.loudest = max(self.loudest, others)
                return measured
        raise ValueError(
            f"--record: other processes kept {others:.2f} cores busy after {ATTEMPTS} attempts; "
            "nothing is kept"
        )

    def finish(
        self, rows: Sequence[Row], section: Callable[[Results], str], **more: Any
    ) -> Results:
        """Prints the JSON object as the last line, and keeps it if that was asked for.

        Args:
            rows: the results, one dict each.
            section: makes the Markdown table from the object; it stands in benchmarks/README.md
                between the markers `<!-- NAME-PLATFORM -->`.
            **more: anything else that belongs into the object, such as `rounds`.

        Returns:
            `benchmark, device, versions, commit, dirty, malloc, busy, wall_seconds, rows`, and
            `more`.
        """
        env = environment()
        on_cpu = env["backend"] == "cpu"
        results = {
            "benchmark": self.benchmark,
            "device": f"{env['cpu']}, {env['cpu_count']} cores" if on_cpu else env["device_kind"],
            "versions": env["versions"] | {name: version(name) for name in self.packages},
            "commit": env["commit"],
            "dirty": env["dirty"],
            "malloc": env["malloc"],
            "busy": round(self.loudest, 3),
            "wall_seconds": round(time.perf_counter() - self.began, 1),
            **more,
            "rows": list(rows),
        }
        if self.keep:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{self.benchmark}-{env['backend']}.json"
            replace_file(path, json.dumps(results, indent=1) + "\n")
            text = insert(README.read_text("utf-8"), path.stem, section(results))
            README.write_text(text, "utf-8")
            console.print(f"recorded in {path} and {README}", highlight=False, soft_wrap=True)
        print(json.dumps(results))
        return results


def table(
    title: str, columns: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1
) -> Table:
    """The rows for people at a terminal; the first `left` columns are names, the others numbers."""
    made = Table(box=rich.box.SIMPLE_HEAD, title=title, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        name = number < left
        made.add_column(column, justify="left" if name else "right", no_wrap=name, overflow="fold")
    for line in lines:
        made.add_row(*line)
    return made


def source(results: Results) -> str:
    """The line under a table: what it was measured on."""
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items() if v)
    rounds = f"{results['rounds']} rounds, " if "rounds" in results else ""
    kept = "freed memory kept; " if results.get("malloc") == "keep" else ""
    return (
        f"{results['device']}; commit `{results['commit'][:10]}`; {rounds}"
        f"{results['wall_seconds']:.0f} s in all; others kept {results['busy']:.2f} cores busy at "
        f"most; {kept}{versions}."
    )
