from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

# Nearly all that the tests cost is compiling. A flag of the user's comes later and wins; what XLA
# does before LLVM, and so what a program is, stays as it is for a user. Set before jax starts.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"


def pytest_configure(config: pytest.Config) -> None:
    # `-m deep`, or any other `-m`, takes the place of this.
    if not config.option.markexpr:
        config.option.markexpr = "not deep"
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a module whose tests share an expensive fixture, such as a run, on one worker."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        found = [d for name in names for d in item._fixtureinfo.name2fixturedefs.get(name, ())]  # type: ignore[attr-defined]
        own = {d.scope for d in found if d.baseid and d.baseid == item.nodeid.partition("::")[0]}
        if "module" in own:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session", autouse=True)
def compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The processes that the tests start share what they compile, and leave the user's cache be."""
    # A folder for each worker of pytest: jax may read an entry while another process writes it.
    folder = tmp_path_factory.mktemp("compilations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def shared_compilations(compilations: Path) -> Iterator[None]:
    """This process shares them too, while the tests of one module run."""
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in zip(options, (str(compilations), 0.5)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def x64():
    """Double precision for one test; jax keeps apart what it compiles with and without."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
