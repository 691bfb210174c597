"""Old names of modules: a user's own file in an old run folder imports them."""

from __future__ import annotations

import importlib
import sys

import pytest

import longlag
from longlag.system.moved import MOVED


@pytest.fixture
def fresh():
    """Old modules as if none had been imported, and without a trace afterwards."""
    names = [f"longlag.{name}" for name in MOVED]
    before = dict(vars(longlag))
    for name in names:
        sys.modules.pop(name, None)
    yield
    for name in names:
        sys.modules.pop(name, None)
        vars(longlag).pop(name.partition(".")[2], None)
    vars(longlag).update(before)


@pytest.mark.parametrize("name", MOVED)
def test_an_old_module_warns_and_has_what_the_new_places_have(name, fresh):
    with pytest.warns(DeprecationWarning, match=rf"longlag\.{name} is now in longlag\."):
        old = importlib.import_module(f"longlag.{name}")
    for place in MOVED[name]:
        new = importlib.import_module(f"longlag.{place}")
        for public in getattr(new, "__all__", ()):
            assert getattr(old, public) is not None
    with pytest.raises(AttributeError, match="it is now in"):
        _ = old.nothing_of_that_name


def test_an_old_module_can_be_called_as_its_function(fresh):
    with pytest.warns(DeprecationWarning):
        from longlag.unroll import unroll  # type: ignore[import-not-found]
    assert unroll is importlib.import_module("longlag.core.unrolling").unroll
    with pytest.raises(ValueError, match="expected a cell"):
        longlag.unroll(longlag.LSTM, {}, None)
