"""XLA's flags: one that it does not know is left out, and does not end the process."""

from __future__ import annotations

import os
import sys

import pytest

from longlag.system.xla_flags import known_flags, prepend_flags

KNOWN, UNKNOWN = "--xla_backend_optimization_level=1", "--xla_of_another_version=true"


def test_a_flag_that_xla_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    prepend_flags((UNKNOWN, KNOWN))
    # The user's own come last: of two, the last one counts.
    assert os.environ["XLA_FLAGS"] == f"{KNOWN} --xla_backend_optimization_level=2"
    assert known_flags(()) == ()


def test_a_flag_that_cannot_be_tried_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert known_flags(("--xla_backend_optimization_level=3",)) == ()
