"""Provenance of a measurement: versions, device, processor, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from longlag.kernels import native
from longlag.system.allocator import describe_allocator

__all__ = ["environment", "provenance", "version"]

# What a recording writes, from the root of the repository; nothing of it is run.
RECORDS = tuple(
    f"{room}/{part}" for room in ("benchmarks", "experiments") for part in ("results", "README.md")
)
PACKAGES = ("longlag", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, Any]:
    """Returns the environment of this process as a dict that JSON can hold.

    Returns:
        `python`; `versions` by package; `platform` (operating system); `backend`, `device_kind` and
        `device_count` of jax; `cpu`; `cpu_count`; `commit` and `dirty` of longlag's sources (None
        where they are not in a git repository); `argv`; `xla_flags`; `loops`, what runs loops over
        time on a CPU ("native", or why it is jax.lax.scan); `malloc`, whether freed memory is kept
        ("keep", or "system").
    """
    devices = jax.devices()
    commit, dirty = _commit(Path(__file__))
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "backend": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "commit": commit,
        "dirty": dirty,
        "argv": list(sys.argv),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "loops": native.describe(),
        "malloc": describe_allocator(),
    }


def provenance(command: str, began: float) -> dict[str, Any]:
    """Provenance of a result file, as its entry `meta`.

    Args:
        command: that makes it again.
        began: `time.perf_counter()` when it began.

    Returns:
        `command`, `commit`, `dirty` (the sources were changed since), `device`, `versions` of jax,
        jaxlib and longlag, `wall_seconds`.
    """
    env = environment()
    return {
        "command": command,
        "commit": env["commit"],
        "dirty": env["dirty"],
        "device": f"{env['cpu']}, {env['cpu_count']} cores",
        "versions": {name: env["versions"][name] for name in ("jax", "jaxlib", "longlag")},
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def version(package: str) -> str | None:
    """The installed version of a package. None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    # platform.processor() is empty or just "x86_64" on Linux.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit(file: Path) -> tuple[str | None, bool | None]:
    """Returns the commit that `file` is tracked in, and whether anything there differs from it.

    Records of other runs (`RECORDS`) may differ, so that several can be made one after another.
    An installed copy inside somebody else's repository is not tracked, so that repository's commit
    does not pass for ours.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None, None
    commit = _git(file.parent, "rev-parse", "HEAD")
    others = (f":(top,exclude){path}" for path in RECORDS)
    status = _git(file.parent, "status", "--porcelain", "--", ":(top)", *others)
    return commit, None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
