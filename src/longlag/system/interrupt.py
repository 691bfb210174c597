"""Clean stops: SIGTERM and Ctrl-C set a flag that the training loop checks."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

__all__ = ["Interruption", "catch_stop_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """True once a signal has asked the process to stop.

    Attributes:
        signal: the first signal that arrived, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code of the process: 130 after Ctrl-C, 143 after SIGTERM, else 0."""
        return 0 if self.signal is None else 128 + self.signal


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Interruption]:
    """Catches SIGINT and SIGTERM in its block; the first sets the flag that it yields.

    The loop looks at the flag between dispatches, saves, and exits with `exit_code`. A Ctrl-C after
    that leaves the process at once with 130, also from within a compilation. The handlers
    from before return at the end. Python handles signals in the main thread alone; in any other
    thread this does nothing, and the flag stays false.
    """
    stop = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _frame: object) -> None:
        if stop.signal is None:
            stop.signal = signal.Signals(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    # Python runs `handle` only when XLA gives control back, which may take a minute of compiling.
    # The interpreter writes the signal's number to this pipe at once, whatever the main thread is
    # doing, and the thread that reads it can still answer.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=_answer_signals, args=(reader,), name="longlag-stop", daemon=True
    )
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            # None: a handler that was not installed from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _answer_signals(reader: int) -> None:
    """Tells the user that the first signal was heard, and leaves at the Ctrl-C after it."""
    stopping = False
    while number := os.read(reader, 1):
        if number[0] not in SIGNALS:
            continue
        if not stopping:
            stopping = True
            _write_to_stderr(
                "\nStopping after this dispatch. It is saved. Another Ctrl-C leaves at once.\n"
            )
        elif number[0] == signal.SIGINT:
            # A live display hides the cursor, and os._exit gives it no time to show it again.
            _write_to_stderr("\x1b[?25h\n" if os.isatty(2) else "\n")
            os._exit(128 + signal.SIGINT)


def _write_to_stderr(text: str) -> None:
    # Straight to the descriptor: sys.stderr may be locked by the thread that was interrupted.
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
