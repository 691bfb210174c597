"""A lock on a file: one holder, which leaves nothing behind."""

from __future__ import annotations

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


def test_one_at_a_time_where_many_come_and_go(tmp_path: Path):
    """The file is removed by each, which must let no two of the next ones in."""
    inside, most = 0, []

    def enter() -> None:
        nonlocal inside
        for _ in range(20):
            with held_lock(tmp_path / "lock"):
                inside += 1
                most.append(inside)
                inside -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longlag.system.file_lock.WAIT_SECONDS", 0.0005)
        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert max(most) == 1 and len(most) == 80 and not list(tmp_path.iterdir())


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
