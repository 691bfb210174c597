"""The packages of the extras: one message where one of them is missing."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator

__all__ = ["EXPERIMENTS", "check", "needed_for"]

EXPERIMENTS = ("jinja2", "matplotlib", "tyro")
"""What any command needs of the extra "experiments". Some of it, only after hours of training."""

INSTALL = 'pip install "longlag[{extra}]"'


@contextlib.contextmanager
def needed_for(what: str, extra: str = "data") -> Iterator[None]:
    """Says of the imports in its block what needs them, and how they are had.

    Args:
        what: in the plural, as "the floors".
        extra: of longlag, that has them.

    Raises:
        ImportError: one of them fails.
    """
    try:
        yield
    except ImportError as error:
        install = INSTALL.format(extra=extra)
        raise ImportError(f"{what} need more packages: {install}") from error


def check(*names: str, extra: str = "data") -> None:
    """Looks for packages before hours are spent on what needs them at its end.

    Args:
        names: of distributions, as pip knows them.
        extra: of longlag, that has them.

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
        install = INSTALL.format(extra=extra)
        raise ImportError(f"expected these packages too, {', '.join(missing)}: {install}")
