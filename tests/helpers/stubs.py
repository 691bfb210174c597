"""Stubs of the packages whose names are found when they are imported, for editors and type checks.

python -m tests.helpers.stubs    # writes them anew
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import longlag

PACKAGES = ("longlag", "longlag.cells", "longlag.tasks")
HEADING = "# Written by tests/helpers/stubs.py from what the modules export. Do not edit.\n\n"


def path_of(package: str) -> Path:
    return Path(longlag.__path__[0]).parent / package.replace(".", "/") / "__init__.pyi"


def text_of(package: str) -> str:
    """A stub that imports every promised name from the module that exports it."""
    module = importlib.import_module(package)
    lines = {f"from {home(package, name)} import {name} as {name}\n" for name in module.__all__}
    if package == "longlag":
        lines |= {"__version__: str\n", "GROUPS: dict[str, tuple[str, ...]]\n"}
    return HEADING + "".join(sorted(lines, key=lambda line: (not line.startswith("from"), line)))


def home(package: str, name: str) -> str:
    """The module or package that exports a name: the nearest one below this package."""
    if package == "longlag":
        for modules in longlag._SOURCES.values():
            for module, names in modules.items():
                if name in (names or importlib.import_module(module).__all__):
                    return module
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if name in getattr(importlib.import_module(info.name), "__all__", ()):
            return info.name
    return importlib.import_module(package).__dict__[name].__module__


if __name__ == "__main__":
    for package in PACKAGES:
        path_of(package).write_text(text_of(package), encoding="utf-8")
