"""The option of every command and script that says what carries out a sweep."""

from __future__ import annotations

from typing import Annotated

import tyro

__all__ = ["WorkersOption"]

WorkersOption = Annotated[
    int | str, tyro.conf.arg(aliases=("--cluster",), metavar="NUMBER|tcp://HOST:PORT")
]
"""`--workers 2`, or `--cluster tcp://host:8786`: as `longlag.sweep` takes it."""
