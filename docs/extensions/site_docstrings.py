"""Reads the docstrings of longlag, which are plain text with backticks.

They use no other markup, so `*`, `|` and `_` mean themselves, and an indented block after an empty
line is equations or code. Sections are Google's, which napoleon reads after this.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from sphinx.domains.python._object import PyObject

from longlag.core import array_types

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

SECTION = re.compile(r"^[A-Z][a-z]+( [a-z]+)?:$")
IN_BACKTICKS = re.compile(r"(``.*?``|`[^`]*`)", re.DOTALL)
# What would begin or end markup, and a letter that would count a list.
MARKUP = re.compile(r"[*|\\]|(?<=\w)_(?!\w)")
LETTER = re.compile(r"(?P<before>^\s*|: )(?P<letter>[A-Za-z])\.(?=\s|$)", re.MULTILINE)
ALIAS = re.compile(
    r"TypeAliasForwardRef\('([\w.]+)'\)|(?<![\w.~])(longlag\.core\.array_types\.\w+)"
)


def array_type_names() -> list[str]:
    """The array types of the glossary, in its order."""
    imported = {"Array", "Bool", "Float", "Integer", "Key", "Shaped", "UInt32", "TYPE_CHECKING"}
    return [name for name in vars(array_types) if name[0].isupper() and name not in imported]


def to_restructuredtext(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText with the sections of Google."""
    made: list[str] = []
    text: list[str] = []
    literal = section = False

    def finish() -> None:
        pieces = IN_BACKTICKS.split("\n".join(text))
        pieces[::2] = [
            LETTER.sub(r"\g<before>\g<letter>\\.", MARKUP.sub(r"\\\g<0>", piece))
            for piece in pieces[::2]
        ]
        made.extend("".join(pieces).split("\n") if text else [])
        text.clear()

    for i, line in enumerate(lines):
        indented = line.startswith("    ")
        if line.strip() and not indented:
            following = lines[i + 1] if i + 1 < len(lines) else ""
            section = bool(SECTION.match(line)) and following.startswith("    ")
            if literal:
                finish()
            literal = False
        elif indented and not section and not literal and not (text and text[-1].strip()):
            finish()
            made += ["::", ""]
            literal = True
        if literal:
            made.append(line)
        else:
            text.append(line)
    finish()
    return made


def _docstring(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    del app, what, name, value, options
    lines[:] = to_restructuredtext(lines)


def _signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, *parts: str | None
) -> tuple[str | None, ...]:
    """Shortens array types in the arguments, and in what is returned."""
    del app, what, name, value, options
    return tuple(
        part and ALIAS.sub(lambda match: f"~{match[1] or match[2]}", part) for part in parts
    )


def _skip(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what a class has by its kind: fields of tuples, overridden methods."""
    del app, what, options
    text = getattr(value, "__doc__", None) or ""
    function = getattr(value, "fget", None) or getattr(value, "__func__", value)
    owner = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", name).split(".")[:-1]:
        owner = getattr(owner, part, None)
    overrides = isinstance(owner, type) and any(name in vars(base) for base in owner.__mro__[1:])
    generated = text.startswith(("Alias for field number", "Returns a new object replacing"))
    return True if skip or overrides or generated else None


def _name_array_types(app: Sphinx, config: Config) -> None:
    """Lets an array type keep its name, which the page of array types explains."""
    del app
    names = array_type_names()
    config.autodoc_type_aliases = {name: f"longlag.core.array_types.{name}" for name in names}


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the extension to Sphinx."""
    app.connect("config-inited", _name_array_types)
    # The fields of a configuration are no "Variables".
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Fields"
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
