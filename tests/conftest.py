from __future__ import annotations

import jax
import numpy as np
import pytest


def pytest_configure(config: pytest.Config) -> None:
    # `-m deep`, or any other `-m`, takes the place of this.
    if not config.option.markexpr:
        config.option.markexpr = "not deep"


@pytest.fixture
def x64():
    """Double precision for one test; jax keeps apart what it compiles with and without."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
