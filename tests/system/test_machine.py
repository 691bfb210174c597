from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jax
import pytest

from longlag.system import machine
from longlag.system.machine import PACKAGES


def test_it_names_versions_device_and_processor(monkeypatch: pytest.MonkeyPatch):
    jax.devices()  # XLA has read its flags, and does not stumble over this one
    monkeypatch.setenv("XLA_FLAGS", "--xla_example=1")
    record = machine.environment()
    assert json.loads(json.dumps(record)) == record
    assert set(record["versions"]) == set(PACKAGES) and all(record["versions"].values())
    assert record["versions"]["jax"] == jax.__version__
    assert record["device_count"] == jax.device_count()
    assert record["backend"] == jax.default_backend()
    assert record["cpu"] and record["xla_flags"] == "--xla_example=1" and record["argv"]
    assert record["loops"] == "native" or record["loops"].startswith("jax.lax.scan: ")


def test_the_commit_and_whether_the_tree_differs_from_it(tmp_path: Path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file = tmp_path / "code.py"
    file.write_text("1")
    assert machine._commit(file) == (None, None)
    git("init")
    assert machine._commit(file) == (None, None)  # there, but not tracked
    for record in machine.RECORDS:
        path = tmp_path / record / "cpu.json" if record.endswith("results") else tmp_path / record
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("recorded")
    git("add", ".")
    git("commit", "-m", "one")
    assert machine._commit(file) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "benchmarks" / "README.md").write_text("recorded again")
    (tmp_path / "experiments" / "results" / "cpu.json").write_text("recorded again")
    (tmp_path / "benchmarks" / "results" / "new.json").write_text("recorded")
    assert machine._commit(file) == (git("rev-parse", "HEAD"), False)
    file.write_text("2")
    assert machine._commit(file) == (git("rev-parse", "HEAD"), True)


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._commit(Path(machine.__file__)) == (None, None)
