"""`longlag compare` as one of several processes; it may send itself a signal in mid-run.

python -m tests.helpers.one_of_several SIGKILL DISPATCH ARGUMENTS: at that dispatch, 0 for never.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from longlag.cli.commands import main
from longlag.runs import lifecycle
from longlag.training import curriculum

if __name__ == "__main__":
    number, at, calls = signal.Signals[sys.argv[1]], int(sys.argv[2]), []
    dispatch = curriculum.dispatch

    def dispatch_and_signal(*arguments: Any, **traced: Any) -> Any:
        if traced:  # `devices_of` looks whether time can be cut, and runs nothing
            return dispatch(*arguments, **traced)
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return dispatch(*arguments)

    curriculum.dispatch = dispatch_and_signal
    lifecycle.CHECKPOINT_SECONDS = 0.0
    sys.exit(main(["compare", *sys.argv[3:]]))
