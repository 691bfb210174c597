"""Fair timing: each contestant in a process of its own, round after round, on a quiet machine.

Each process keeps the memory that it frees, longlag's and the others' alike, as the commands of
longlag do (`longlag.system.allocator`). With `LONGLAG_MALLOC=system` none of them does.

All benchmarks have one shape:

    Options           the command line
    main(argv)        reads it, measures row by row (`Record.measure_quietly`), prints a table
    measure(...)      measures one case and returns its row of the results, or several
    section(results)  the Markdown of a recorded JSON object, for benchmarks/README.md
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil

from longlag.system.allocator import keep_freed_memory

__all__ = ["Contestants", "busy_cores", "median_ratio"]

# Time of one contestant in one round, and the runs that it makes then at least.
SECONDS, RUNS = 0.3, 2


class Contestants:
    """Processes that prepare and time what they are told, one at a time.

    Args:
        makers: from a name to a function of module level that takes a description and returns a
            function to be timed. Each runs in a spawned process, where it may import what it likes.
        settings: from a name to what is set in the environment of its process.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[Any], Callable[[], None]]],
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        outside = dict(os.environ)
        self._pipes: dict[str, Any] = {}
        self._processes = []
        for name, maker in makers.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, maker), daemon=True)
            os.environ.update((settings or {}).get(name, {}))
            process.start()
            os.environ.clear()
            os.environ.update(outside)
            self._processes.append(process)
            self._pipes[name] = ours

    def __enter__(self) -> Contestants:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def prepare(self, name: str, description: Any) -> float:
        """Prepares one contestant and runs it once; returns the seconds that took.

        Raises:
            RuntimeError: with the contestant's traceback.
        """
        return self._ask(name, ("prepare", description))

    def time(self, name: str) -> list[float]:
        """Times the prepared function for one round; returns milliseconds of every run."""
        return self._ask(name, ("time", None))

    def rounds(
        self, names: Iterable[str], rounds: int, advance: Callable[[], Any] = lambda: None
    ) -> dict[str, list[list[float]]]:
        """Times prepared functions one after the other, round by round.

        Args:
            names: whom.
            rounds: how often.
            advance: called after every round.

        Returns:
            For each name and round the milliseconds of every run.
        """
        times: dict[str, list[list[float]]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, runs in times.items():
                runs.append(self.time(name))
            advance()
        return times

    def minima(
        self, names: Iterable[str], rounds: int, advance: Callable[[], Any] = lambda: None
    ) -> dict[str, list[float]]:
        """As `rounds`, with the least of every round alone."""
        times = self.rounds(names, rounds, advance)
        return {name: [min(runs) for runs in of_rounds] for name, of_rounds in times.items()}

    def note(self, name: str) -> dict[str, Any]:
        """What the prepared function's attribute `note` says when called, such as its memory."""
        return self._ask(name, ("note", None))

    def _ask(self, name: str, message: Any) -> Any:
        self._pipes[name].send(message)
        answer, error = self._pipes[name].recv()
        if error is not None:
            raise RuntimeError(f"{name}:\n{error}")
        return answer


def _serve(pipe: Connection, maker: Callable[[Any], Callable[[], None]]) -> None:
    keep_freed_memory()
    run: Any = None
    while True:
        what, description = pipe.recv()
        try:
            began = time.perf_counter()
            if what == "prepare":
                run = None  # frees what the one before held
                run = maker(description)
                run()
                answer: Any = time.perf_counter() - began
            elif what == "note":
                answer = run.note()
            else:
                answer = []
                while len(answer) < RUNS or time.perf_counter() - began < SECONDS:
                    start = time.perf_counter()
                    run()
                    answer.append((time.perf_counter() - start) * 1e3)
            pipe.send((answer, None))
        except Exception:
            pipe.send((None, traceback.format_exc()))


def busy_cores(seconds: float) -> float:
    """Cores that all processes together keep busy while this one waits; call it between rounds."""
    before, began = psutil.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after, passed = psutil.cpu_times(), time.perf_counter() - began
    idle = sum(getattr(after, k, 0.0) - getattr(before, k, 0.0) for k in ("idle", "iowait"))
    return max(0.0, (psutil.cpu_count() or 1) - idle / passed)


def median_ratio(ours: Iterable[float], theirs: Iterable[float]) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios of two contestants' minima, round by round."""
    ratios = np.array([*ours]) / np.array([*theirs])
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())
