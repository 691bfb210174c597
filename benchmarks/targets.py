"""Accelerators that need not be here: how to compile for them.

    python -m benchmarks.targets      (installs the compilers, which `make test` does too)

libtpu compiles for a TPU, and XLA's plugin for CUDA with ptxas for a GPU, on any x86-64 Linux. What
they make cannot be run there. jax starts every plugin that it can import, and these two complain
where there is no device. So they lie in the cache, not in the environment, and only a child process
with the right variables sees them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "CHIPS",
    "HAVE_WHEELS",
    "TARGETS",
    "Compiler",
    "devices",
    "folder",
    "install",
    "versions",
]

ROOT = Path(__file__).resolve().parent.parent
# Whether there are wheels of both compilers for this machine.
HAVE_WHEELS = sys.platform == "linux" and platform.machine() == "x86_64"
# jax's own requirements name the versions of the first two.
OF_JAX = ("libtpu", "jax-cuda13-plugin")
OF_CUDA = ("nvidia-cuda-nvcc>=13", "nvidia-nvvm>=13")
CHIPS = (1, 8, 64, 256)


class Target(NamedTuple):
    """A kind of chip: its name in tables, jax's platform, and a description of so many of them."""

    name: str
    platform: str
    topologies: dict[int, str]


_TPU = {1: "2x2", 8: "2x4", 64: "8x8", 256: "16x16"}
TARGETS = {
    "h100": Target("H100", "cuda", {1: "1x1x1", 8: "1x1x8", 64: "1x8x8", 256: "1x32x8"}),
    "v5e": Target("TPU v5e", "tpu", {chips: f"v5e:{shape}" for chips, shape in _TPU.items()}),
    "v6e": Target("TPU v6e", "tpu", {chips: f"v6e:{shape}" for chips, shape in _TPU.items()}),
}
# What XLA asks a GPU: the answers of an H100 SXM.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@functools.cache
def devices(target: str, chips: int) -> list[Any]:
    """Devices to compile for, in the child process of a `Compiler` alone.

    Args:
        target: a key of `TARGETS`.
        chips: one of `CHIPS`.
    """
    from jax.experimental import topologies

    _, kind, described = TARGETS[target]
    if kind == "tpu":
        topology = topologies.get_topology_desc(described[chips], kind)
    else:
        topology = topologies.get_topology_desc(
            target, kind, target_config=H100, topology=described[chips]
        )
    return list(topology.devices)[:chips]


class Compiler:
    """A process that has the compilers, and calls functions by name.

    Raises:
        ValueError: the compilers of this jax are not installed.
    """

    def __init__(self) -> None:
        if not folder().is_dir():
            raise ValueError(
                f"expected compilers in {folder()}; got none. Run: python -m benchmarks.targets"
            )
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.targets", "serve"],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function in the process.

        Args:
            function: such as "benchmarks.programs:measure".
            *arguments: what JSON can hold, as the result.

        Raises:
            RuntimeError: with the function's traceback, or with the last words of the process.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps([function, arguments]) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # the answer is missing too
        answer = stdout.readline()
        if not answer:
            self._log.seek(0)
            last = "".join(self._log.readlines()[-20:])
            raise RuntimeError(f"the compiler ended with exit code {self._process.wait()}:\n{last}")
        result, error = json.loads(answer)
        if error is not None:
            raise RuntimeError(error)
        return result


def _environment() -> dict[str, str]:
    """Of a process that compiles: no device is looked for, and nothing is asked of a network."""
    left_out = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    path = [str(folder()), str(ROOT / "src"), str(ROOT)]
    return kept | {
        "JAX_PLATFORMS": "cpu",
        # Otherwise an error ends with a note on tracebacks.
        "JAX_TRACEBACK_FILTERING": "off",
        "TPU_SKIP_MDS_QUERY": "1",
        # libtpu locks the chips of a machine to one process, also where there are none.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "PYTHONPATH": os.pathsep.join(path),
    }


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        (function, arguments), result, error = json.loads(line), None, None
        module, _, name = function.partition(":")
        try:
            result = getattr(importlib.import_module(module), name)(*arguments)
        except Exception:
            error = traceback.format_exc()
        answers.write(json.dumps([result, error]) + "\n")
        answers.flush()


def install() -> None:
    """Installs the compilers that belong to this jax, if they are not there.

    Raises:
        subprocess.CalledProcessError: pip has failed.
    """
    target = folder()
    if not HAVE_WHEELS or target.is_dir():
        return
    print(f"adding compilers for GPU and TPU to {target}", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        subprocess.run([*command, "--target", f"{made}/all", *_requirements()], check=True)
        # At once, and only if no other process was faster.
        with contextlib.suppress(OSError):
            os.rename(f"{made}/all", target)


def folder() -> Path:
    """Where the compilers of this jax and this Python lie, once they are installed."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    name = f"jax-{importlib.metadata.version('jax')}-{python}"
    return Path(cache) / "longlag" / "compilers" / name


def versions() -> dict[str, str]:
    """The versions of the compilers."""
    names = [*OF_JAX, *(each.partition(">")[0] for each in OF_CUDA)]
    installed = importlib.metadata.distributions(path=[str(folder())])
    by_name = {each.metadata["Name"].replace("_", "-"): each.version for each in installed}
    return {name: by_name[name] for name in names if name in by_name}


def _requirements() -> list[str]:
    of_jax = (each.partition(";")[0].strip() for each in importlib.metadata.requires("jax") or ())
    of_jax = {each.replace("[with-cuda]", "") for each in of_jax if each.startswith(OF_JAX)}
    return [*sorted(of_jax), *OF_CUDA]


if __name__ == "__main__":
    _serve() if sys.argv[1:] == ["serve"] else install()
