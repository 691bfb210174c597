"""XLA flags that this jaxlib knows."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterable

__all__ = ["known_flags", "prepend_flags"]

# Reads the flags as jax does when it starts, without starting a backend.
TRIAL = "from jaxlib import xla_client; xla_client.CompileOptions()"


def known_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """Returns the flags that XLA knows, in order.

    XLA ends the process at a flag that it does not know, and flags come and go with versions. Only
    XLA can tell, since its binary also names the flags that it had before. So a child process
    tries them, which takes a quarter of a second. A flag that cannot be tried counts as unknown.

    Args:
        flags: such as "--xla_backend_optimization_level=1".
    """
    flags = tuple(flags)
    if not flags or _accepts(flags):
        return flags
    return tuple(flag for flag in flags if _accepts((flag,)))


def prepend_flags(flags: Iterable[str]) -> None:
    """Puts the flags that XLA knows before those in XLA_FLAGS, of which the last one wins.

    It has no effect once jax has started.

    Args:
        flags: as for `known_flags`.
    """
    os.environ["XLA_FLAGS"] = " ".join((*known_flags(flags), os.environ.get("XLA_FLAGS", "")))


@functools.cache
def _accepts(flags: tuple[str, ...]) -> bool:
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", TRIAL], env=environment, capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0
