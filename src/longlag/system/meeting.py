"""A meeting of the processes of a run, before jax joins them.

jax aborts a process that cannot reach its coordinator, and says little. So process 0 first waits at
the coordinator's address until all others have come and have said who they are, and then lets them
go on. Whoever waits in vain, or is of another run, gets one message.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

from longlag.system.machine import version

__all__ = ["meet", "split_address"]

# Of one message; what sends no message at all for this long is no process of a run.
SECONDS, BYTES = 10.0, 4096


def meet(coordinator: str, processes: int, process: int, wait: float) -> None:
    """Waits until every process of a run has connected.

    Args:
        coordinator: HOST:PORT, an address of the machine of process 0.
        processes: how many there are.
        process: which one this is.
        wait: seconds.

    Raises:
        ValueError: nobody answers at the address, or something else does; the address is not one of
            this machine, or is taken; not all have come; one is of another run or version.
    """
    if process == 0:
        _receive_all(coordinator, processes, wait)
    else:
        _report(coordinator, _describe(processes, process), wait)


def split_address(address: str) -> tuple[str, int]:
    """Splits HOST:PORT into host and port.

    Raises:
        ValueError: it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator: expected HOST:PORT; got {address!r}")
    return host.strip("[]"), int(port)


def _describe(processes: int, process: int) -> dict[str, Any]:
    versions = {name: version(name) for name in ("longlag", "jax")}
    return {"processes": processes, "process": process, "versions": versions}


def _receive_all(coordinator: str, processes: int, wait: float) -> None:
    """Process 0: waits for the others, and then lets them go on, or tells them what is wrong."""
    host, port = split_address(coordinator)
    deadline = time.monotonic() + wait
    here: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            server = stack.enter_context(socket.create_server(where, family=family))
        except OSError as error:
            raise ValueError(
                f"coordinator: expected an address of this machine with a free port, since this is "
                f"process 0; got {coordinator} ({error.strerror})"
            ) from error
        problem = None
        while problem is None and len(here) < processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = [i for i in range(1, processes) if i not in here]
                problem = (
                    f"coordinator {coordinator}: expected {processes} processes within {wait:g} s; "
                    f"missing {', '.join(map(str, missing))}"
                )
                break
            other = _receive(connection)
            if other is None:  # not of longlag
                continue
            expected = _describe(processes, other.get("process", -1))
            index = expected["process"]
            if other != expected:
                problem = f"coordinator {coordinator}: expected {expected} to join; got {other}"
            elif not 0 < index < processes or index in here:
                problem = f"coordinator {coordinator}: a second process came as process {index}"
            here[index if problem is None else -1] = connection
        for connection in here.values():
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps({"problem": problem}).encode() + b"\n")
    if problem is not None:
        raise ValueError(problem)


def _report(coordinator: str, me: dict[str, Any], wait: float) -> None:
    """Another process: says who it is at the coordinator's address, and waits for the answer."""
    deadline, problem = time.monotonic() + wait, ""
    while time.monotonic() < deadline:
        try:
            left = max(deadline - time.monotonic(), 1.0)
            with socket.create_connection(split_address(coordinator), timeout=left) as connection:
                connection.sendall(json.dumps(me).encode() + b"\n")
                answer = _receive(connection, left + SECONDS)
        except OSError as error:
            problem = error.strerror or str(error)
            time.sleep(0.1)
            continue
        if answer is None:
            problem = "what answers there is no process 0 of a run, or it has ended"
            break
        if answer["problem"] is not None:
            raise ValueError(answer["problem"])
        return
    raise ValueError(
        f"coordinator {coordinator}: expected process 0 to answer there within {wait:g} s; got: "
        f"{problem}"
    )


def _receive(connection: socket.socket, seconds: float = SECONDS) -> dict[str, Any] | None:
    """A message, or None where something else came, or nothing."""
    connection.settimeout(seconds)
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < BYTES:
            part = connection.recv(BYTES)
            if not part:
                return None
            data += part
        message = json.loads(data)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
