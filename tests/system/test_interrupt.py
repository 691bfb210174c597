from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from longlag.system.interrupt import SIGNALS, catch_stop_signals

# A loop as the training loop: dispatches, a look at the flag, a save, the exit code.
LOOP = """
import sys, time
from longlag.system.interrupt import catch_stop_signals
with catch_stop_signals() as stop:
    print("ready", flush=True)
    for dispatch in range(1000):
        time.sleep(0.05)
        if stop:
            print("saved", flush=True)
            sys.exit(stop.exit_code)
"""

# One dispatch that keeps the main thread inside XLA for minutes.
BUSY = """
import jax, jax.numpy as jnp
from longlag.system.interrupt import catch_stop_signals
spin = jax.jit(lambda x: jax.lax.fori_loop(0, 2 * 10**9, lambda _, c: c * 0.999 + 1.0, x))
spin = spin.lower(jnp.ones(8)).compile()
with catch_stop_signals() as stop:
    print("ready", flush=True)
    spin(jnp.ones(8)).block_until_ready()
"""


@contextlib.contextmanager
def started(code: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_saves_and_leaves(number: signal.Signals, code: int):
    with started(LOOP) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (out, process.returncode) == ("saved\n", code)
    assert "Stopping after this dispatch. It is saved." in err and "Traceback" not in err


def test_a_second_ctrl_c_leaves_at_once_from_within_xla():
    with started(BUSY) as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert "Ctrl-C leaves at once" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)  # a scheduler repeats itself; that is no Ctrl-C
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130 and "Traceback" not in err


def test_the_flag_and_the_handlers(capfd: pytest.CaptureFixture[str]):
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with catch_stop_signals() as stop:
        assert not stop and stop.exit_code == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert stop and stop.exit_code == 130
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGINT
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert capfd.readouterr().err.count("Stopping") == 1


def test_handlers_return_after_an_error():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), catch_stop_signals():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_is_left_alone():
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def work() -> None:
        with catch_stop_signals() as stop:
            seen.extend([bool(stop), [signal.getsignal(number) for number in SIGNALS] == before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, True]
