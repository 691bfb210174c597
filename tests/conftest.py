from __future__ import annotations

import os
from collections.abc import Iterator

import jax
import numpy as np
import pytest


def pytest_configure(config: pytest.Config) -> None:
    # `-m deep`, or any other `-m`, takes the place of this.
    if not config.option.markexpr:
        config.option.markexpr = "not deep"


@pytest.fixture(scope="session", autouse=True)
def compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The processes that the tests start share what they compile, and leave the user's cache be."""
    with pytest.MonkeyPatch.context() as patch:
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compilations")))
        yield


@pytest.fixture
def x64():
    """Double precision for one test; jax keeps apart what it compiles with and without."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
