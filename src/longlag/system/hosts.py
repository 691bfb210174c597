"""Several processes that carry out one run, each with devices of its own.

`jax.distributed` joins them. Process 0 alone prints, and reads and writes the files of the run. All
processes learn from it what it read, or why it could not (`on_first`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from longlag.system.console import console
from longlag.system.meeting import meet, split_address

__all__ = ["any_process", "explain_loss", "is_first", "joined", "on_first"]

T = TypeVar("T")

# A process that has sent nothing for so long counts as gone, and the others end.
HEARTBEAT_SECONDS = 10
# The others wait so long for process 0, which writes the report last.
SHUTDOWN_SECONDS = 120
# A launcher, how many processes it says there are, and which one this is.
LAUNCHERS = (
    ("Slurm", "SLURM_NTASKS", "SLURM_PROCID"),
    ("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("MPI", "PMI_SIZE", "PMI_RANK"),
)
# Bytes of one message from process 0 to all.
BLOCK = 2**26


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    wait: float = 300,
) -> Iterator[None]:
    """Joins the processes of a run for the duration of its block, before jax finds devices.

    Without a coordinator they are found by themselves: under Slurm (a step of several tasks), MPI
    (Open MPI, or any with mpi4py) and Kubernetes (an indexed job, with jax[k8s]).

    Args:
        coordinator: HOST:PORT, where process 0 can be reached by all.
        processes: how many there are; None: as many as the launcher says. With 1 nothing is joined.
        process: which one this is, from 0; None: the one that the launcher says.
        wait: seconds to wait until all have come.

    Raises:
        ValueError: the arguments are incomplete or impossible, process 0 cannot be reached, not all
            come, or one that comes is of another run or version.
    """
    if not _join(coordinator, processes, process, wait):
        yield
        return
    console.quiet = not is_first()
    try:
        yield
    except BaseException as error:
        # The end of jax waits for processes that may be gone, and then aborts this one.
        atexit.register(_leave, _exit_code(error))
        raise
    finally:
        console.quiet = False
    jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def on_first(make: Callable[[], T]) -> T:
    """Calls a function in process 0, and returns its result in every process.

    Args:
        make: what it returns can be pickled. Every process must come here.

    Raises:
        ValueError: in the others, if `make` raised a `ValueError` or an `OSError`; process 0 raises
            what `make` did.
    """
    if jax.process_count() == 1:
        return make()
    value, problem, raised = None, None, None
    if is_first():
        try:
            value = make()
        except (ValueError, OSError) as error:
            problem, raised = str(error), error
    value, problem = _broadcast((value, problem))
    if raised is not None:
        raise raised
    if problem is not None:
        raise ValueError(f"process 0: {problem}")
    return value  # type: ignore[return-value]


def any_process(flag: bool) -> bool:
    """Whether a flag is true in any process. Every process must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


@contextlib.contextmanager
def explain_loss(advice: str) -> Iterator[None]:
    """Turns the error of a computation that lost another process into a clear message.

    Args:
        advice: what to do now.

    Raises:
        ConnectionError: another process has ended, or cannot be reached.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        # jax has no type for it. These are the names of what carries messages between processes.
        named = re.search(r"gloo|nccl|coordination ?service|heartbeat", str(error), re.IGNORECASE)
        if jax.process_count() == 1 or not named:
            raise
        line = str(error).partition("\n")[0]
        raise ConnectionError(
            f"another process of this run has ended or cannot be reached; {advice} ({line})"
        ) from error


def _join(coordinator: str | None, processes: int | None, process: int | None, wait: float) -> bool:
    """Joins the processes; whether there are several."""
    if processes == 1:
        return False
    options: dict[str, Any] = {
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
        "initialization_timeout": max(int(wait), 1),
    }
    launcher, count, index = _find_launcher(os.environ)
    if coordinator is None:
        if (processes, process) != (None, None):
            raise ValueError("processes, process: expected a coordinator beside them; got none")
        if launcher is None:
            return False
        method = None
        if "MPI" in launcher and "OMPI_MCA_orte_hnp_uri" not in os.environ:
            if importlib.util.find_spec("mpi4py") is None:
                raise ValueError(
                    f"{launcher} started {count} processes: expected the package mpi4py, by which "
                    "they find each other, --coordinator HOST:PORT, or --processes 1"
                )
            method = "mpi4py"
        jax.distributed.initialize(cluster_detection_method=method, **options)
        return jax.process_count() > 1
    processes = count if processes is None else processes
    process = index if process is None else process
    if processes is None or process is None:
        raise ValueError(
            "coordinator: expected --processes and --process beside it, since no launcher (Slurm, "
            "MPI) says them"
        )
    if processes < 1 or not 0 <= process < processes:
        raise ValueError(
            f"process: expected 0 .. {processes - 1} of {processes} processes; got {process}"
        )
    split_address(coordinator)
    meet(coordinator, processes, process, wait)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=coordinator,
        **options,
    )
    return True


def _find_launcher(environment: Mapping[str, str]) -> tuple[str | None, int | None, int | None]:
    """What started several processes: its name, how many there are, and which one this is."""
    for name, count, index in LAUNCHERS:
        if int(environment.get(count, 1)) > 1 and index in environment:
            return name, int(environment[count]), int(environment[index])
    # Kubernetes alone knows how many there are; jax asks it.
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= {*environment}
    if indexed and importlib.util.find_spec("kubernetes") is not None:
        return "Kubernetes", None, None
    return None, None, None


def _broadcast(value: Any) -> Any:
    """What process 0 has, in every process. As bytes, which keep each number as it is."""
    data = np.frombuffer(pickle.dumps(value) if is_first() else b"", np.uint8)
    blocks = int(multihost_utils.broadcast_one_to_all(np.int32(-(-data.size // BLOCK))))
    last = int(multihost_utils.broadcast_one_to_all(np.int32(data.size % BLOCK)))
    received = []
    for i in range(blocks):
        size = last if last and i == blocks - 1 else BLOCK
        # Messages of like sizes share a program.
        block = np.zeros(1 << (size - 1).bit_length(), np.uint8)
        part = data[i * BLOCK : (i + 1) * BLOCK]
        block[: part.size] = part
        received.append(multihost_utils.broadcast_one_to_all(block)[:size])
    return pickle.loads(np.concatenate(received).tobytes())


def _exit_code(error: BaseException) -> int:
    """What a process exits with: 2 after an error that is shown as a message, else 1."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 2 if isinstance(error, (ValueError, OSError, ImportError)) else 1


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
