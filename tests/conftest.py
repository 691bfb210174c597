from __future__ import annotations

import functools
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from longlag.data import espeak, spoken_digits
from longlag.system.xla_flags import prepend_flags

ROOT = Path(__file__).resolve().parent.parent

# Nearly all that the tests cost is compiling. What XLA does before it generates code, and so what
# a program is, stays as it is for a user.
# By default XLA deals a program's code out to 32 compilers, one for each thread: on two cores with
# two workers that is more work, and nothing goes faster.
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# XLA up to jaxlib 0.10 can generate the code of a fusion in an older way, in a third of the time.
OLD_EMITTERS = ("--xla_cpu_use_fusion_emitters=false",)


def pytest_configure(config: pytest.Config) -> None:
    # Tracing makes many objects that live on. Looking for garbage among them at Python's own
    # thresholds takes one part in fifteen of all that the tests cost.
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    # `-m deep`, or any other `-m`, takes the place of this.
    if not config.option.markexpr:
        config.option.markexpr = "not deep"
    # The workers of pytest-xdist have the flags of the process that starts them.
    if not hasattr(config, "workerinput"):
        # `make test-deep` generates code as a user's jax does.
        # jax has not started yet. A flag of the user's comes later and wins.
        prepend_flags(QUICK if config.option.markexpr == "deep" else QUICK + OLD_EMITTERS)


@pytest.fixture(scope="session")
def few_voices() -> Iterator[spoken_digits.DigitSplits]:
    """The spoken digits, of fewer synthetic voices; to speak takes seconds, once on a machine."""
    named = ("adam", "belinda", "boris", "caleb", "david", "ed", "f1", "f2", "f3", "f4", "f5")
    with pytest.MonkeyPatch.context() as patch:
        timbres = (*named, "m1", "m2", "m3", "m4", "m5", "m6", "m7")
        patch.setattr(espeak, "timbres", lambda: timbres)
        patch.setattr(spoken_digits, "OF_EACH", 1)
        spoken_digits.load.cache_clear()
        yield spoken_digits.load()
    spoken_digits.load.cache_clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps a module whose tests share what is expensive on one worker: a run, samplers of tasks.

    pytest-xdist's own `--dist loadgroup` does nothing with pytest 9, which keeps node ids
    elsewhere.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if _shares(ROOT / file) else nodeid

    return ByFixture(config, log)


@functools.cache
def _shares(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    # `draw` keeps the samplers that it compiled, which two workers would compile twice.
    return (
        'fixture(scope="module"' in text or re.search(r"def test_\w+\(.*\bdraw\b", text) is not None
    )


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


# A process may hold 65,530 memory maps (Linux), of which every compiled program takes some. When
# they run out, jax ends with a segmentation fault.
MAPS = 20_000


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forgets what was compiled: after each deep test, and between two modules at many maps."""
    between = nextitem is None or nextitem.path != item.path
    if item.get_closest_marker("deep") or (between and _maps() > MAPS):
        jax.clear_caches()
        gc.collect()


def _maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.is_file() else 0


@pytest.fixture
def x64():
    """Double precision for one test; jax keeps apart what it compiles with and without."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
