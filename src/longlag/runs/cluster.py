"""A Dask scheduler as an executor, after its workers are checked."""

from __future__ import annotations

import contextlib
import pickle
import socket
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from longlag.runs.jobs import Call, require_versions, versions
from longlag.system.console import console
from longlag.system.optional_packages import needed_for

__all__ = ["connect"]

CONNECT_SECONDS = 10


@contextlib.contextmanager
def connect(address: str) -> Iterator[Executor]:
    """Connects to a Dask scheduler, and to the workers that it has now or later.

    Args:
        address: of the scheduler, such as `tcp://host:8786`.

    Yields:
        What `longlag.sweep` takes.

    Raises:
        ValueError: it is no address; a worker has other versions than this process, or several
            threads.
        ConnectionError: no scheduler answers.
        ImportError: Dask is not installed here, or longlag not on a worker.
    """
    with needed_for("sweeps over machines", "cluster"):
        import distributed
    _knock(address)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise ConnectionError(f"no scheduler of Dask answers at {address}: {error}") from error
    with client:
        _look_at_workers(client)
        yield client.get_executor(pure=False)


def _knock(address: str) -> None:
    """Looks whether a scheduler is there. Dask itself waits for a silent one without end."""
    url = urllib.parse.urlsplit(address)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if url.scheme not in ("tcp", "tls") or not host or not port:
        raise ValueError(f"cluster: expected an address such as tcp://host:8786, got {address!r}")
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
            # A scheduler greets first; under TLS the client does.
            if url.scheme == "tcp" and not connection.recv(1):
                raise ConnectionError("it closes the connection")
    except OSError as error:
        raise ConnectionError(
            f"no scheduler answers at {address}: {error.strerror or error}. `dask scheduler` "
            "starts one, and says its address"
        ) from error


def _look_at_workers(client: Any) -> None:
    threads = client.nthreads()
    if not threads:
        console.print("the cluster has no worker yet: the sweep begins with the first one")
    for worker, count in threads.items():
        if count != 1:
            raise ValueError(
                f"worker {worker}: expected one thread, since each holds one run, got {count}. "
                "Start it by `dask worker --nthreads 1`, with `--nworkers` for several"
            )
    call = bytes(Call(require_versions, (versions(),)))
    answers = client.run(pickle.loads, call, on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, ImportError):
            raise ImportError(f"worker {worker} has no longlag: {answer}") from answer
        if isinstance(answer, Exception):
            raise answer
