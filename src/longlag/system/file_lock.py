"""A file lock for one writer at a time, on all machines. It ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from longlag.system.atomic_files import writing

__all__ = ["held_lock", "holder"]

WAIT_SECONDS = 0.2


@contextlib.contextmanager
def held_lock(path: Path, give_up: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Holds a file lock in its block, after waiting for any other holder.

    The kernel ends the lock with the process, however that goes; a network file system does so
    when the machine is gone. So a process that was given up for dead and lives keeps others out.

    Args:
        path: of the lock, a file which is there while the lock is held. It names the process.
        give_up: looked at whenever another has it.

    Yields:
        Whether the lock is held, which it is unless `give_up` was true.

    Raises:
        DiskError: the disk refused, or the file system has no locks.
    """
    while (descriptor := _try(path)) is None:
        if give_up():
            yield False
            return
        time.sleep(WAIT_SECONDS)
    try:
        yield True
    finally:
        # In this order: nobody else can hold the file that has this name.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(path: Path) -> str:
    """Who holds a lock, for a message: "process 12 on host", or "another process"."""
    try:
        process, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # it has just been taken, or freed
        return "another process"
    return f"process {process} on {host}"


def _try(path: Path) -> int | None:
    """The descriptor of the lock, or None if another process or thread has it."""
    with writing("a lock", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return _lock(path)


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it may have removed the file between the two lines above.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
