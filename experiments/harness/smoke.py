"""Run every script for a few steps, one after another, to see whether it runs.

    python -m experiments.harness.smoke
    python -m experiments.harness.smoke lag-horizon captions

Leaves its folders in runs/smoke. No number in them is a result.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tyro

from experiments.harness.discovery import scripts
from experiments.harness.questions import module_of
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.system.console import console

__all__ = ["commands"]


def commands(out: Path, names: tuple[str, ...] = ()) -> list[list[str]]:
    """The command of every script that has a preset smoke, as words.

    Args:
        out: where their folders are made.
        names: some of the scripts; none means all.
    """
    modules = [name for name, module in scripts().items() if getattr(module, "SMOKE", True)]
    for name in names:
        choose(module_of(name), modules, "script with a preset smoke")
    chosen = [module_of(name) for name in names] or modules
    options = ["--preset", "smoke", "--out", str(out)]
    return [[sys.executable, "-m", module, *options] for module in chosen]


def main(names: tyro.conf.Positional[tuple[str, ...]] = (), out: Path = Path("runs/smoke")) -> int:
    """Runs the scripts, and stops at the first that fails.

    Args:
        names: some of the scripts; none means all.
        out: where their folders are made.
    """
    for command in commands(out, names):
        console.print(" ".join(["python", *command[1:]]), style="bold", highlight=False)
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.harness.smoke", description=__doc__))
