"""A lock on a file: one holder, which leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longlag.system.atomic_files import DiskError
from longlag.system.file_lock import held_lock


def test_one_holds_it_and_the_other_waits_or_gives_up(tmp_path: Path):
    path = tmp_path / "new" / "lock"
    events: list[str] = []

    def second() -> None:
        with held_lock(path) as held:
            events.append(f"second {held}")

    waiting = threading.Thread(target=second)
    with held_lock(path) as held:
        assert held and path.read_text().split()[0] == str(os.getpid())
        with held_lock(path, lambda: True) as again:
            assert not again
        waiting.start()
        waiting.join(0.5)
        events.append("first leaves")
    waiting.join(10)
    assert events == ["first leaves", "second True"]
    assert not path.exists()


def test_a_lock_that_is_removed_while_it_is_taken_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who held it removes the file when the other has opened it and not locked it yet."""
    path, flock = tmp_path / "lock", fcntl.flock
    descriptors: list[int] = []

    def remove_first(descriptor: int, how: int) -> None:
        if not descriptors:
            path.unlink()
        descriptors.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with held_lock(path) as held:
        assert held and path.exists() and len(descriptors) == 2


HOLD = """
import os, signal, sys, fcntl
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_no_lock(tmp_path: Path):
    path = tmp_path / "lock"
    subprocess.run([sys.executable, "-c", HOLD, str(path)], check=False)
    assert path.exists()
    with held_lock(path, lambda: True) as held:
        assert held
    assert not path.exists()


def test_a_disk_that_refuses_is_one_message(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DiskError, match=r"^cannot write a lock to .*file"),
        held_lock(tmp_path / "file" / "lock"),
    ):
        pass
