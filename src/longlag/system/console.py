"""The console, its tables, and the cache of compiled programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["CACHE", "cache_compilations", "console", "print_table"]


WIDE = 160
# What is no terminal has no width; 80 columns would break a table of results to pieces.
console = Console(width=None if sys.stdout.isatty() else WIDE)

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "longlag" / "compilations"


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    JAX_COMPILATION_CACHE_DIR, if it is set, names another folder, and
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS the seconds from which a program is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def print_table(
    columns: Sequence[str], table: Sequence[Sequence[str]], title: str | None = None
) -> None:
    """Prints a table of plain text. Brackets in it are no markup."""
    rich_table = Table(*columns, title=title, title_justify="left")
    for line in table:
        rich_table.add_row(*map(Text, line))
    console.print(rich_table)
