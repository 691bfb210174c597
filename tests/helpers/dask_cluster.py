"""A scheduler of Dask and its workers, real processes that talk over loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")


@contextlib.contextmanager
def processes(*commands: tuple[str, ...], **variables: str) -> Iterator[list[subprocess.Popen]]:
    """Processes of Python that end with the block, and with them all that they started."""
    started = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", *command],
                    env=os.environ | variables,
                    start_new_session=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """The address of a scheduler with some workers, each of which a nanny replaces if it dies."""
    file = folder / "scheduler.json"
    where = ("--scheduler-file", str(file))
    scheduler = ("distributed.cli.dask_scheduler", "--port", "0", *LOOPBACK, *where)
    many = ("--nworkers", str(workers), "--nthreads", "1", "--local-directory", str(folder))
    worker = ("distributed.cli.dask_worker", *LOOPBACK, *where, *many)
    with processes(scheduler, worker):
        yield wait_for(file)


def wait_for(file: Path) -> str:
    """The address in the file of a scheduler, once it is there."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(file.read_text())["address"]
        time.sleep(0.05)
    raise TimeoutError(file)
