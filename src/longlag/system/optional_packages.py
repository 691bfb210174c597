"""The packages of the extra "data": one message where one of them is missing."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator

__all__ = ["check", "needed_for"]

INSTALL = 'pip install "longlag[data]"'


@contextlib.contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Says of the imports in its block what needs them, and how they are had.

    Args:
        what: in the plural, as "the floors".

    Raises:
        ImportError: one of them fails.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what} need more packages: {INSTALL}") from error


def check(*names: str) -> None:
    """Looks for packages before hours are spent on what needs them at its end.

    Args:
        names: of distributions, as pip knows them.

    Raises:
        ImportError: names those that are not installed.
    """
    missing = []
    for name in names:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise ImportError(f"expected these packages too, {', '.join(missing)}: {INSTALL}")
