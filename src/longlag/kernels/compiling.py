"""The library of the native loop: built into a wheel, or compiled where it is first asked for.

A wheel for one kind of machine has a library for each of its instruction sets. The best one that a
processor knows is taken when it runs. From source, the library is compiled for this very machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax

__all__ = ["BUILT", "VARIANTS", "choose_variants", "compile_loop", "libraries"]

SOURCE = Path(__file__).parent / "native"
BUILT = Path(__file__).parent / "built"
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-Wno-psabi")

# What a wheel for a kind of machine has, the best first: flags for the compiler, and what Linux
# says of a processor that runs it.
VARIANTS: dict[str, dict[str, tuple[tuple[str, ...], frozenset[str]]]] = {
    "x86_64": {
        "avx512": (
            ("-march=x86-64-v4", "-mprefer-vector-width=512"),
            frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"}),
        ),
        "avx2": (
            ("-march=x86-64-v3",),
            frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"}),
        ),
    },
    "aarch64": {"neon": (("-march=armv8-a",), frozenset({"asimd"}))},
}


def libraries() -> Iterator[Path]:
    """Libraries that may run here, the best first.

    Those of the wheel come first. The last is compiled if the cache has none of these sources for
    this machine.

    Raises:
        OSError: there is no compiler, or it fails.
    """
    for variant in choose_variants(platform.machine(), _instructions().split()):
        path = BUILT / f"loop-{variant}.so"
        if path.is_file():
            yield path
    yield _in_cache()


def choose_variants(machine: str, instructions: Iterable[str]) -> list[str]:
    """The variants of a wheel that a processor can run, the best first.

    Args:
        machine: as `platform.machine` names it.
        instructions: the flags of the processor, as Linux names them.
    """
    flags = {*instructions}
    of_machine = VARIANTS.get(machine, {})
    return [name for name, (_, needed) in of_machine.items() if needed <= flags]


def compile_loop(compiler: str, flags: Sequence[str], to: Path) -> None:
    """Compiles the library.

    Args:
        compiler: a C++ compiler.
        flags: beside those that every build has.
        to: the library; it appears whole or not at all.

    Raises:
        OSError: the compiler fails. The message ends as its own does.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        made = Path(folder) / to.name
        sources = map(str, sorted(SOURCE.glob("*.cc")))
        include = ("-isystem", jax.ffi.include_dir())
        command = [compiler, *FLAGS, *flags, *include, *sources, "-o", str(made)]
        outcome = subprocess.run(command, capture_output=True, text=True)
        if outcome.returncode:
            raise OSError(f"{compiler} failed: {outcome.stderr.strip()[-500:]}")
        made.replace(to)


def _in_cache() -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise OSError("found no C++ compiler (g++, clang++ or $CXX)")
    flags = (*_flags_of_this_machine(), *os.environ.get("CXXFLAGS", "").split())
    content = [p.read_bytes() for p in sorted(SOURCE.iterdir()) if p.suffix in (".cc", ".h")]
    # A home may be shared by machines that know other instructions.
    settings = [compiler, jax.__version__, *FLAGS, *flags, _instructions()]
    digest = hashlib.sha256(b"\0".join([*content, *(text.encode() for text in settings)]))
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(folder) / "longlag" / "kernels" / f"loop-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        compile_loop(compiler, flags, path)
    return path


def _flags_of_this_machine() -> tuple[str, ...]:
    if platform.machine() in ("x86_64", "AMD64"):
        return ("-march=native", "-mprefer-vector-width=512")
    return ("-mcpu=native",) if platform.machine() in ("aarch64", "arm64") else ()


def _instructions() -> str:
    """What the processor knows, as Linux tells it, or else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line for line in lines if line.startswith(("flags", "Features"))), platform.machine()
    )
