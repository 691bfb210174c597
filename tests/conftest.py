from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache


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


@pytest.fixture(scope="module")
def compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled programs in a folder, for the tests of a module and the processes they start."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compilations"
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        jax.config.update(options[0], str(folder))
        jax.config.update(options[1], 0.5)
        compilation_cache.reset_cache()
        yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
