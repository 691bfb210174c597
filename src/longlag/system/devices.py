"""Accelerators of a machine, found and assigned to processes without starting jax here.

A process in which jax starts on a GPU takes three quarters of its memory, and one in which it
starts on a TPU takes all chips. So a process that only starts others must not ask its own jax.
"""

from __future__ import annotations

import functools
import glob
import os
import subprocess
import sys
from typing import NamedTuple

import jax

__all__ = ["Accelerators", "accelerators", "leave_accelerators", "may_have_accelerators"]

# What an accelerator leaves in a file system: NVIDIA (Linux, WSL), AMD, TPU (older, newer).
NODES = ("/dev/nvidia*", "/dev/dxg", "/dev/kfd", "/dev/accel*", "/dev/vfio/*")
# A chip of an old TPU is two devices, which one process holds.
QUESTION = """
import jax
devices = jax.local_devices()
chips = {tuple(d.coords) if d.platform == "tpu" else d.id for d in devices}
print("accelerators:", devices[0].platform, len(chips))
"""
ANSWER_SECONDS = 120
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
# Each process on a TPU that is not one of several in one program listens on a port of its own.
FIRST_TPU_PORT = 8476


class Accelerators(NamedTuple):
    """The accelerators of this machine that jax uses.

    Attributes:
        platform: "gpu" or "tpu"; "cpu" if there is none.
        number: of GPUs, or of TPU chips.
    """

    platform: str
    number: int

    def environment(self, index: int, shared: bool) -> dict[str, str]:
        """The variables with which a process sees one accelerator, to be set before jax starts.

        Args:
            index: of the accelerator, from 0.
            shared: whether other processes see it too. On a GPU, memory is then not preallocated.
        """
        if self.platform == "gpu":
            variables = {"CUDA_VISIBLE_DEVICES": _visible("CUDA_VISIBLE_DEVICES", index)}
            return variables | (
                {PREALLOCATE: os.environ.get(PREALLOCATE, "false")} if shared else {}
            )
        port = str(FIRST_TPU_PORT + index)
        return {
            "TPU_VISIBLE_CHIPS": _visible("TPU_VISIBLE_CHIPS", index),
            "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
            "TPU_PROCESS_BOUNDS": "1,1,1",
            "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
            "TPU_PROCESS_PORT": port,
            "CLOUD_TPU_TASK_ID": "0",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }


@functools.cache
def accelerators() -> Accelerators:
    """Finds the accelerators of this machine, by jax in another process.

    What the user set (JAX_PLATFORMS, CUDA_VISIBLE_DEVICES) counts. If jax cannot answer there,
    it counts as having none.
    """
    none = Accelerators("cpu", 0)
    if not may_have_accelerators():
        return none
    command = [sys.executable, "-c", QUESTION]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return none
    for line in answer.stdout.splitlines():
        match line.split():
            case ["accelerators:", ("gpu" | "tpu") as platform, number]:
                return Accelerators(platform, int(number))
    return none


def may_have_accelerators() -> bool:
    """Whether the file system shows an accelerator that jax may use."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(True for node in NODES for _ in glob.iglob(node))


def leave_accelerators() -> None:
    """Leaves the accelerators to processes started later. Call it before jax starts here.

    On a GPU this process preallocates no memory, nor do those that it starts. On a TPU, which
    one process holds, this process computes on the CPU.
    """
    platform = accelerators().platform
    if platform == "gpu":
        os.environ.setdefault(PREALLOCATE, "false")
    if platform == "tpu":
        jax.config.update("jax_platforms", "cpu")


def _visible(variable: str, index: int) -> str:
    """The name of an accelerator, where the user may have named those that there are."""
    names = os.environ.get(variable, "")
    return names.split(",")[index].strip() if names else str(index)
