"""Names that the modules of a package export, so that a new file needs no entry anywhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from typing import Any

__all__ = ["exports"]


def exports(package: str, base: type | None = None) -> dict[str, Any]:
    """Imports every module of a package, and collects what each names in `__all__`.

    Args:
        package: its name, as in `exports(__name__)` of its `__init__.py`.
        base: collect only its concrete subclasses.

    Returns:
        The objects by name, sorted.

    Raises:
        ImportError: two modules export one name.
    """
    objects: dict[str, Any] = {}
    for info in pkgutil.iter_modules(sys.modules[package].__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if base is not None and not _is_concrete(value, base):
                continue
            if objects.setdefault(name, value) is not value:
                raise ImportError(
                    f"{package}: expected one module to export {name}; two do, the second is "
                    f"{info.name}"
                )
    return dict(sorted(objects.items()))


def _is_concrete(value: Any, base: type) -> bool:
    return inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
