"""Processes of this machine as an executor: one for each core, or for each accelerator."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import Any, NamedTuple

from longlag.system.devices import accelerators
from longlag.system.xla_flags import known_flags

__all__ = ["QUICK_COMPILING", "LocalPool", "Place", "places"]

# Two thirds of a short run is compiling. At this level it takes two thirds of the time, and
# programs of width 48 are as fast. A flag of the user's comes later and wins.
QUICK_COMPILING = ("--xla_backend_optimization_level=1",)


class Place(NamedTuple):
    """The core or accelerator of one process.

    Attributes:
        core: that it is pinned to, or None.
        environment: variables that it has beside those of this process.
    """

    core: int | None
    environment: dict[str, str]


def places(workers: int = 0) -> list[Place]:
    """Lists the places of this machine, one for each process.

    On a machine with accelerators each process sees one of them, and flags of XLA for a CPU are
    not set. On any other, each is pinned to a core: two processes on a core each do half as much
    again as one process on two cores, at the sizes of memory tasks.

    Args:
        workers: how many processes; 0 means one for each accelerator, or core. There are no more
            of them than cores. GPUs are shared.

    Raises:
        ValueError: `workers` is negative, or more than the chips of a TPU.
    """
    if workers < 0:
        raise ValueError(f"workers: expected at least 0, got {workers}")
    devices = accelerators()
    platform, number = devices
    if platform == "tpu" and workers > number:
        raise ValueError(f"workers: expected at most {number}, one for each chip, got {workers}")
    if number:
        each = [index % number for index in range(workers or number)]
        return [Place(None, devices.environment(i, each.count(i) > 1)) for i in each]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    flags = " ".join((*known_flags(QUICK_COMPILING), os.environ.get("XLA_FLAGS", "")))
    return [Place(core, {"XLA_FLAGS": flags}) for core in cores[: workers or len(cores)]]


class LocalPool(Executor):
    """An executor with one process in each place. A process that dies ends one call only.

    Each place is a pool of one process, with a thread that waits for it. In a pool of several
    processes the death of one would end the calls of all, and none would say which it was.
    Processes start when there is something to do. They leave with this process, however it goes.
    """

    def __init__(self, where: list[Place]) -> None:
        self._places = where
        self._context = multiprocessing.get_context("spawn")
        self._others = {*multiprocessing.active_children()}
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(where)):
            self._free.put(index)
        self._mine = threading.local()
        self._changing = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(len(where), "longlag-place", self._take_place)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor`; `BrokenExecutor` comes out if the process died."""
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures.Executor`."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools.values():
            pool.shutdown(wait)

    def terminate(self) -> None:
        """Ends the processes at once, whatever they do, and waits until they are gone."""
        with self._changing:
            self._closed = True
        for worker in {*multiprocessing.active_children()} - self._others:
            worker.terminate()
        self.shutdown(cancel_futures=True)

    def _take_place(self) -> None:
        self._mine.index = self._free.get()

    def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        index = self._mine.index
        try:
            with self._changing:
                if self._closed:
                    raise CancelledError
                if index not in self._pools:
                    begin = (os.getpid(), self._places[index])
                    self._pools[index] = ProcessPoolExecutor(1, self._context, settle, begin)
                # This starts the process, if there is none.
                future = self._pools[index].submit(fn, *args, **kwargs)
            return future.result()
        except BrokenExecutor:
            with self._changing:
                self._pools.pop(index).shutdown()
            raise


def settle(parent: int, place: Place) -> None:
    """Makes this process a worker in a place, before jax starts."""
    # Ctrl-C is the parent's to answer. A worker whose parent is gone, however it went, goes too;
    # what it saved so far is where the next sweep goes on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    if place.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {place.core})
    os.environ.update(place.environment)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
