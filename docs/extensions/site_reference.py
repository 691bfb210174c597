"""The reference, made from `longlag.GROUPS` and the docstrings.

Three directives:

    {group} running a cell       the names of a group of `longlag.GROUPS`
    {exports} longlag.report     what a module exports beside the names of `longlag.GROUPS`
    {array-types}                the array types of `longlag.core.array_types`
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from docutils import nodes
from site_docstrings import array_type_names, to_restructuredtext
from sphinx.util.docutils import SphinxDirective

import longlag
from longlag.core import array_types

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _entries(module: str, names: Iterable[str]) -> str:
    """A table of the names, and then each with its docstring, as reStructuredText."""
    names = sorted(names, key=str.casefold)
    values = {f"{module}.{name}": getattr(importlib.import_module(module), name) for name in names}
    described = [name for name, value in values.items() if _is_described(value)]
    table = [".. autosummary::", "   :nosignatures:", "", *(f"   ~{name}" for name in described)]
    each = [line for name, value in values.items() for line in _entry(name, value)]
    return "\n".join([*table, "", *each])


def _is_described(value: Any) -> bool:
    """Whether it has a docstring of its own, and not that of its type."""
    return inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__")


def _entry(name: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", "   :members:", ""]
    if _is_described(value):
        return [f".. autofunction:: {name}", ""]
    comment, written = _assignment(name.rpartition(".")[2])
    return [f".. py:data:: {name}", f"   :value: {written}", "", f"   {comment}", ""]


def _assignment(name: str) -> tuple[str, str]:
    """The comment over a constant or a type, and what is written there, from longlag's source."""
    pattern = re.compile(rf"((?:^# .*\n)*)^{name}(?:: .+?)? = (.+)$", re.MULTILINE)
    for module, loaded in sorted(sys.modules.items()):
        if module.startswith("longlag.") and name in vars(loaded):
            found = pattern.search(inspect.getsource(loaded))
            if found:
                comment = " ".join(line.removeprefix("# ") for line in found[1].splitlines())
                return "".join(to_restructuredtext([comment])), found[2]
    raise ValueError(f"expected {name} to be assigned in a module of longlag; found no such line")


class _Generated(SphinxDirective):
    final_argument_whitespace = True

    def text(self) -> str:
        """The reStructuredText that takes the place of the directive."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parses it."""
        return self.parse_text_to_nodes(f"````{{eval-rst}}\n{self.text()}\n````")


class Group(_Generated):
    """The names of a group of `longlag.GROUPS`."""

    required_arguments = 1

    def text(self) -> str:
        """One entry for each name."""
        return _entries("longlag", longlag.GROUPS[self.arguments[0]])


class Exports(_Generated):
    """What a module exports beside the names of `longlag.GROUPS`."""

    required_arguments = 1

    def text(self) -> str:
        """One entry for each name that is left."""
        (module,) = self.arguments
        promised = {name for names in longlag.GROUPS.values() for name in names}
        exported = importlib.import_module(module).__all__
        return _entries(module, set(exported) - promised)


class ArrayTypes(_Generated):
    """The array types, each with what it holds."""

    def text(self) -> str:
        """One line for each type."""
        module = inspect.getsource(array_types)
        written = dict(re.findall(r"^([A-Z]\w+) = (.+)$", module, re.MULTILINE))
        lines: list[str] = []
        for name in array_type_names():
            lines += [f".. py:data:: longlag.core.array_types.{name}", ""]
            lines += [f"   ``{written[name]}``", ""]
        return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the extension to Sphinx."""
    app.add_directive("group", Group)
    app.add_directive("exports", Exports)
    app.add_directive("array-types", ArrayTypes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
