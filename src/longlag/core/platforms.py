"""Choices that depend on the platform of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

__all__ = ["on_cpu_or_else"]

Result = TypeVar("Result")


def on_cpu_or_else(cpu: Callable[..., Result], others: Callable[..., Result], *args: Any) -> Result:
    """`cpu(*args)` in a program for a CPU, `others(*args)` in one for anything else.

    A program may be traced on one platform and lowered for another (`jax.export`, ahead of time,
    arrays on another device than the default one), so `jax.default_backend()` is no answer. Here
    jax chooses when it lowers, so that the compiler sees one of the two. Both are traced, and both
    must return the same shapes and dtypes.
    """
    return jax.lax.platform_dependent(*args, cpu=cpu, default=others)
