"""Freed memory is used again: each case in a process of its own, since the setting is for good."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Pages that a process takes while it makes and drops an array of 64 MiB, forty times.
COUNT_FAULTS = """
import resource, sys
import numpy as np
from longlag.system.allocator import describe_allocator, keep_freed_memory
if sys.argv[1] == "commands":
    print(keep_freed_memory())
def make_arrays():
    for _ in range(40):
        np.ones(2**24, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = make_arrays()
print(make_arrays() - before, describe_allocator())
"""


def count_faults(who: str, **settings: str) -> list[str]:
    command = [sys.executable, "-c", COUNT_FAULTS, who]
    env = os.environ | settings
    return subprocess.run(
        command, env=env, check=True, capture_output=True, text=True
    ).stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is a function of glibc")
def test_freed_memory_is_kept_by_commands_alone():
    kept, faults, setting = count_faults("commands")
    assert (kept, setting) == ("True", "keep")
    assert int(faults) < 1000
    # Huge pages are 2 MiB.
    assert int(count_faults("a library")[0]) > 40 * 64 // 2 // 2


def test_the_setting_of_the_system_may_stay():
    kept, faults, setting = count_faults("commands", LONGLAG_MALLOC="system")
    assert (kept, setting) == ("False", "system")
    assert int(faults) > 40 * 64 // 2 // 2


def test_another_setting_is_refused():
    command = [sys.executable, "-m", "longlag", "list"]
    env = os.environ | {"LONGLAG_MALLOC": "jemalloc"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "LONGLAG_MALLOC: expected keep or system; got 'jemalloc'" in done.stderr
