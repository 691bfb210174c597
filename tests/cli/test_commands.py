"""The command `longlag`: its overview, the help of each subcommand, and what it refuses."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from longlag.cli.commands import COMMANDS, main
from longlag.system.machine import version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `longlag` in an empty folder; returns the exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def command(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return command


def test_the_overview_has_a_line_for_each_command(say):
    code, out, _ = say("--help")
    assert code == 0
    for name, module in COMMANDS.items():
        docstring = importlib.import_module(f"longlag.cli.{module}").__doc__ or ""
        assert f"  {name:<10}{docstring.splitlines()[0]}\n" in out
    assert all(len(line) <= 100 for line in out.splitlines())
    assert say("--version")[:2] == (0, f"longlag {version('longlag')}\n")
    code, _, err = say()
    assert code == 2 and out in err and "expected a command; got none" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_teaches(say, tmp_path: Path, name: str):
    code, out, _ = say(name, "--help")
    assert code == 0 and out.startswith(f"usage: longlag {name} ")
    assert f"  longlag {name}" in out  # an example
    assert "python -m experiments" not in out and "--help" in out
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_refused_with_the_nearest_name(say):
    code, out, err = say("compair", "--task", "recall")
    assert (code, out) == (2, "")
    assert "got 'compair'. Did you mean 'compare'?" in " ".join(err.split())


def test_the_list_is_that_of_compare(say):
    listed = say("list")
    assert listed[0] == 0 and "selective-copy" in listed[1] and "delta-net" in listed[1]
    assert say("compare", "--list") == listed
    code, _, err = say("list", "--al")
    assert code == 2 and "--al" in err


def test_the_scripts_of_before_call_the_commands():
    for name in ("compare", "demo", "diagnose"):
        text = (ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")
        call = ast.unparse(ast.parse(text).body[-1])
        assert f"sys.exit(main(['{name}', *sys.argv[1:]]))" in call
    script = subprocess.run(
        [sys.executable, "-m", "experiments.compare", "--task", "recal"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert script.returncode == 2 and "Did you mean 'recall'?" in script.stderr.replace("\n", " ")
