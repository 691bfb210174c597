"""The command `longlag` and its subcommands, each a module of this folder."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.system.allocator import keep_freed_memory
from longlag.system.machine import version
from longlag.system.optional_packages import EXPERIMENTS, check

__all__ = ["COMMANDS", "main", "overview"]

COMMANDS = {
    "compare": "compare",
    "diagnose": "diagnose",
    "demo": "demo",
    "report": "report",
    "list": "listing",
}
"""The module of each subcommand. It has a `main(argv)`, and its docstring is the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        argv: the arguments after `longlag`. None: those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: 0 after `--help` of a subcommand, 2 after an error in what the user typed.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"longlag {version('longlag')}")
        return 0
    with plain_errors():
        if not name:
            raise ValueError(f"expected a command; got none.\n\n{overview()}")
        module = COMMANDS[choose(name, COMMANDS, "command")]
        check(*EXPERIMENTS, extra="experiments")
        keep_freed_memory()
        return importlib.import_module(f"longlag.cli.{module}").main(rest)


def overview() -> str:
    """The text of `longlag --help`, with a line for each subcommand."""
    lines = [f"  {name:<10}{_first_line(module)}" for name, module in COMMANDS.items()]
    return "\n".join(
        [
            "usage: longlag COMMAND [OPTIONS]",
            "",
            "How far back can a network remember, what does attention add, and what does it cost?",
            "",
            *lines,
            "",
            "`longlag COMMAND --help` explains a command and its options. For example:",
            "",
            "  longlag compare --task recall --cell lstm --attention full",
            "  longlag compare --task parity --cell path/to/my_cell.py:MyCell",
            "  longlag report runs/FOLDER runs/ANOTHER",
            "",
            "Also: longlag --version",
        ]
    )


def _first_line(module: str) -> str:
    # Read and not imported, so that the overview needs no further package.
    text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
