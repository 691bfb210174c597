"""Packages of the extras, with one message if one is missing."""

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
    """Explains a failed import in its block: what needs the package, and how to install it.

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
    """Checks that packages are installed, before hours of training that need them at the end.

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
