"""`longlag compare` as one of several processes; it may end itself by SIGKILL in mid-run.

python -m tests.helpers.one_of_several DISPATCH ARGUMENTS: at that dispatch, 0 for never.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from longlag.cli.commands import main
from longlag.runs import lifecycle

if __name__ == "__main__":
    last, calls, dispatch = int(sys.argv[1]), [], lifecycle.dispatch

    def dispatch_or_die(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return dispatch(*arguments)

    lifecycle.dispatch = dispatch_or_die
    lifecycle.CHECKPOINT_SECONDS = 0.0
    sys.exit(main(["compare", *sys.argv[2:]]))
