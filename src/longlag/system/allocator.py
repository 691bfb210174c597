"""Freed memory: kept by the process, or returned to the system as the C library does.

The next array then takes fresh pages, and each page is a fault and is cleared first. In a train
step that makes large arrays this is a tenth to a fourth of the time (benchmarks/README.md, memory
of a process). Kept, the pages are used again.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["describe_allocator", "keep_freed_memory"]

VARIABLE = "LONGLAG_MALLOC"
# Parameters of mallopt (malloc.h): no memory goes back from the top of the heap, none is mapped for
# one array, and threads share a heap, since only the first one's may grow without bounds.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
SETTINGS = ((TRIM_THRESHOLD, 2**31 - 1), (MMAP_MAX, 0), (ARENA_MAX, 1))

_kept = False


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for its next arrays.

    It holds until the process ends, for all libraries in it. `LONGLAG_MALLOC=system` leaves
    everything as the system has it. There is an effect with glibc alone (Linux).

    Returns:
        Whether memory is kept.

    Raises:
        ValueError: `LONGLAG_MALLOC` is neither "keep" nor "system".
    """
    global _kept
    setting = os.environ.get(VARIABLE, "keep")
    if setting not in ("keep", "system"):
        raise ValueError(f"{VARIABLE}: expected keep or system; got {setting!r}")
    if setting == "keep" and sys.platform == "linux" and not _kept:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        _kept = mallopt is not None and all(mallopt(*each) for each in SETTINGS)
    return _kept


def describe_allocator() -> str:
    """The policy for freed memory in this process: "keep" or "system"."""
    return "keep" if _kept else "system"
