"""Tiny runs for the tests of runs and of resuming: one whole, others interrupted."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from longlag.runs import Experiment, Progress, RunFolder, carry_out, create, restore
from longlag.system.interrupt import Interruption
from longlag.training import curriculum, dispatch, init_states
from tests.helpers.tiny import PARITY


class Whole(NamedTuple):
    """A run that nobody interrupted: its folder, its results, and what was told meanwhile."""

    folder: RunFolder
    found: dict[str, Any]
    told: list[Progress]


def run_whole(path: Path) -> Whole:
    folder, told = new(path), []
    found = carry_out(PARITY, folder, on_progress=told.append)
    assert found is not None
    return Whole(folder, found, told)


def new(path: Path, experiment: Experiment = PARITY) -> RunFolder:
    return create(experiment, path, path.parent, "unused")


def without_times(folder: RunFolder) -> bytes:
    return re.sub(rb'"seconds": [\d.e-]+', b'"seconds": 0', folder.metrics_file.read_bytes())


def final(folder: RunFolder, experiment: Experiment = PARITY) -> tuple[bytes, Any]:
    """The metrics but for times, and the last checkpoint: what must not depend on a resume."""
    like = init_states(experiment.model, experiment.training, len(experiment.labels))
    restored = restore(folder.checkpoints, like)
    return without_times(folder), jax.tree.map(np.asarray, restored)


def assert_same(found: tuple[bytes, Any], expected: tuple[bytes, Any]) -> None:
    assert found[0] == expected[0]
    assert found[1].step == expected[1].step
    jax.tree.map(np.testing.assert_array_equal, found[1].tree, expected[1].tree)


class KilledError(Exception):
    """In place of kill -9."""


def interrupt(folder: RunFolder, at: int, how: str) -> None:
    """Ends a run: by a signal during the dispatch to step `at` or after it, or all at once."""
    stop = Interruption()

    def dispatch_and_stop(*arguments: Any) -> Any:
        if how == "in a dispatch" and int(arguments[3].step[0]) == at - 5:
            stop.signal = signal.SIGTERM
        return dispatch(*arguments)

    def told(report: Progress) -> None:
        if report.step == at and how == "after a dispatch":
            stop.signal = signal.SIGTERM
        if report.step == at and how == "killed":
            raise KilledError

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(curriculum, "dispatch", dispatch_and_stop)
        assert carry_out(PARITY, folder, stop=stop, on_progress=told) is None
    assert folder.metrics()[-1]["step"] == at
    assert not (folder.path / "results.json").exists()
