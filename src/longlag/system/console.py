"""The console, and the cache of compiled programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax
from rich.console import Console

__all__ = ["CACHE", "cache_compilations", "console"]


WIDE = 160
# What is no terminal has no width; 80 columns would break a table of results to pieces.
console = Console(width=None if sys.stdout.isatty() else WIDE)

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "longlag" / "compilations"


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    JAX_COMPILATION_CACHE_DIR, if it is set, names another folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
