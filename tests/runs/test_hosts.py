"""One run by several processes over loopback: numbers, losses and wrong coordinators."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from longlag import MinGRU
from longlag.cli import compare
from longlag.cli.arguments import plain_errors
from longlag.runs import RunFolder, carry_out, checkpoints, load
from longlag.system import hosts
from longlag.system.meeting import meet, split_address
from tests.helpers.tiny import OPTIONS, PARITY
from tests.helpers.tiny_runs import new

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("shared_compilations")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


Ended = list[tuple[int, str, float]]


def run_together(
    arguments: Sequence[Sequence[str]],
    environments: Sequence[dict[str, str]],
    signals: str = "SIGKILL",
    at: int = 0,
) -> Ended:
    """Exit code, what was printed, and when, of each process.

    The last sends itself a signal at a dispatch, if it is not 0.
    """
    last, driver = len(arguments) - 1, "tests.helpers.one_of_several"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", driver, signals, str(at * (i == last)), *words],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i, (words, environment) in enumerate(zip(arguments, environments))
    ]
    ended: dict[int, tuple[int, str, float]] = {}

    def wait(i: int) -> None:
        try:
            output = processes[i].communicate(timeout=150)[0]
        except subprocess.TimeoutExpired:
            processes[i].kill()
            output = processes[i].communicate()[0] + "\nkilled by the test"
        ended[i] = processes[i].returncode, output, time.monotonic()

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ended[i] for i in range(len(processes))]


def by_coordinator(count: int, *words: str | Path) -> list[list[str]]:
    where = f"--coordinator 127.0.0.1:{free_port()} --processes {count} --process".split()
    return [[*map(str, words), *where, str(i)] for i in range(count)]


def by_slurm(count: int) -> list[dict[str, str]]:
    # jax makes the port of the job's number.
    job = free_port() % 4096 + 4096
    names = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_LOCALID": "0"}
    count_of_tasks = {"SLURM_NTASKS": str(count), "SLURM_STEP_NUM_NODES": "1"}
    return [names | count_of_tasks | {"SLURM_PROCID": str(i)} for i in range(count)]


def assert_near(folder: RunFolder, whole: RunFolder) -> None:
    """Losses, weights and accuracies of two runs, within rounding."""
    losses, expected = ([m["loss"] for m in each.metrics()] for each in (folder, whole))
    np.testing.assert_allclose(losses, expected, atol=2e-6)
    assert [m["step"] for m in folder.metrics()] == [m["step"] for m in whole.metrics()]
    for leaf, other in zip(*(jax.tree.leaves(load(each.path).params) for each in (folder, whole))):
        np.testing.assert_allclose(leaf, other, atol=2e-6)
    rows = [
        json.loads((each.path / "results.json").read_text())["rows"] for each in (folder, whole)
    ]
    for row, other in zip(*rows, strict=True):
        assert (row["seed"], row["lag"]) == (other["seed"], other["lag"])
        assert abs(row["accuracy"] - other["accuracy"]) < 1e-6


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.deep)])
def test_a_killed_process_ends_the_others_and_the_run_goes_on(tmp_path: Path, count: int):
    """On as many processes, which Slurm started, and on one."""
    whole = new(tmp_path / "whole")
    carry_out(PARITY, whole)

    mesh = {2: "data=2", 4: "seeds=2,data=2"}[count]
    words = by_coordinator(count, *OPTIONS, "--out", tmp_path / "run", "--mesh", mesh)
    ended = run_together(words, [{}] * count, at=3)
    assert ended[-1][0] == -signal.SIGKILL
    for code, output, when in ended[:-1]:
        assert code == 2, output
        assert "another process of this run has ended" in " ".join(output.split()), output
        assert f"--resume {tmp_path / 'run'}" in output
        assert when - ended[-1][2] < 30
    run = RunFolder.open(tmp_path / "run")
    assert {m["step"] for m in run.metrics()} == {5, 10}
    sizes = {"seeds": count // 2, "data": 2, "time": 1}
    assert run.env["meshes"] == [{"from_step": 0, "mesh": sizes, "processes": count}]
    shutil.copytree(run.path, tmp_path / "alone")

    resume = ["--resume", str(run.path)]
    ended = run_together([resume] * count, by_slurm(count))
    assert [code for code, *_ in ended] == [0] * count, ended
    assert "median accuracy by lag" in ended[0][1] and str(run.path) in ended[0][1]
    assert not any("accuracy" in output or "seed" in output for _, output, _ in ended[1:])
    assert [note["from_step"] for note in run.env["meshes"]] == ([0, 10] if count == 2 else [0])
    assert_near(run, whole)

    alone = RunFolder.open(tmp_path / "alone")
    carry_out(PARITY, alone)
    assert_near(alone, whole)


@pytest.mark.deep
def test_the_time_of_a_sequence_is_cut_over_processes(tmp_path: Path):
    experiment = dataclasses.replace(PARITY, cell=MinGRU(8))
    whole = new(tmp_path / "whole", experiment)
    carry_out(experiment, whole, mesh="none")
    options = [*OPTIONS, "--cell", "min-gru", "--mesh", "time=2", "--out", tmp_path / "run"]
    ended = run_together(by_coordinator(2, *options), [{}] * 2)
    assert [code for code, *_ in ended] == [0, 0], ended
    run = RunFolder.open(tmp_path / "run")
    sizes = {"seeds": 1, "data": 1, "time": 2}
    assert run.env["meshes"] == [{"from_step": 0, "mesh": sizes, "processes": 2}]
    assert_near(run, whole)


@pytest.mark.deep
def test_a_signal_to_one_process_stops_all_after_one_dispatch(tmp_path: Path):
    words = by_coordinator(2, *OPTIONS, "--out", tmp_path / "run")
    ended = run_together(words, [{}] * 2, "SIGTERM", at=2)
    assert [code for code, *_ in ended] == [128 + signal.SIGTERM] * 2, ended
    assert f"stopped; resume it by --resume {tmp_path / 'run'}" in ended[0][1]
    run = RunFolder.open(tmp_path / "run")
    assert [m["step"] for m in run.metrics()] == [5, 5, 10, 10]
    assert [*checkpoints(run.checkpoints)][-1] == 10


@pytest.mark.deep
def test_what_process_0_is_refused_ends_all(tmp_path: Path):
    (tmp_path / "run").mkdir()
    ended = run_together(by_coordinator(2, *OPTIONS, "--out", tmp_path / "run"), [{}] * 2)
    assert [code for code, *_ in ended] == [2, 2], ended
    assert all("exists already and is left as it is" in output for _, output, _ in ended)
    assert not [*(tmp_path / "run").iterdir()]


# --- meeting ------------------------------------------------------------------------------------


def meet_all(port: int, *who: tuple[int, int], wait: float = 1.0) -> list[str | None]:
    """What each of several threads, (process, processes), is refused with."""
    problems: list[str | None] = [None] * len(who)

    def come(i: int, process: int, processes: int) -> None:
        try:
            meet(f"127.0.0.1:{port}", processes, process, wait)
        except ValueError as error:
            problems[i] = str(error)

    threads = [threading.Thread(target=come, args=(i, *each)) for i, each in enumerate(who)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def test_processes_meet_in_any_order():
    assert meet_all(free_port(), (2, 3), (0, 3), (1, 3), wait=20) == [None] * 3


def test_each_process_learns_who_is_missing_or_wrong():
    missing, same = meet_all(free_port(), (0, 3), (2, 3))
    assert missing == same and missing is not None
    assert missing.endswith("expected 3 processes within 1 s; missing 1")
    for problem in meet_all(free_port(), (0, 3), (1, 2), wait=5):
        assert problem is not None and "'processes': 3" in problem and "'processes': 2" in problem
    first, *others = meet_all(free_port(), (0, 4), (1, 4), (1, 4), wait=5)
    assert first is not None and first.endswith("a second process came as process 1")
    assert others == [first, first]


def test_nobody_or_somebody_else_at_the_coordinator():
    port = free_port()
    (problem,) = meet_all(port, (1, 2), wait=0.3)
    assert problem is not None and "expected process 0 to answer there within 0.3 s" in problem
    with socket.create_server(("127.0.0.1", port)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        (problem,) = meet_all(port, (1, 2), wait=5)
        thread.join()
        assert problem is not None and "what answers there is no process 0 of a run" in problem
        (problem,) = meet_all(port, (0, 2))
        assert problem is not None and "address of this machine with a free port" in problem


def test_an_address_is_a_host_and_a_port():
    assert split_address("[::1]:80") == ("::1", 80) and split_address("a.b:1") == ("a.b", 1)
    for wrong in ("a.b", ":80", "a:b", "a:0", "a:65536"):
        with pytest.raises(ValueError, match="expected HOST:PORT; got"):
            split_address(wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--coordinator 127.0.0.1:PORT --processes 2 --process 1 --wait 0.2", "expected process 0"),
        ("--coordinator 127.0.0.1:PORT --processes 2 --process 0 --wait 0.2", "missing 1"),
        ("--coordinator 127.0.0.1 --processes 2 --process 0", "expected HOST:PORT"),
        ("--coordinator 127.0.0.1:PORT", "expected --processes and --process beside it"),
        ("--coordinator 127.0.0.1:PORT --processes 2 --process 2", "expected 0 .. 1 of 2"),
        ("--processes 2", "expected a coordinator beside them"),
    ],
)
def test_a_wrong_coordinator_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
):
    where = words.replace("PORT", str(free_port())).split()
    with pytest.raises(SystemExit) as left, plain_errors():
        compare.main([*OPTIONS, "--out", str(tmp_path / "run"), *where])
    err = " ".join(capsys.readouterr().err.split())
    assert left.value.code == 2 and message in err and err.count("error:") == 1
    assert not [*tmp_path.iterdir()]


# --- launchers ----------------------------------------------------------------------------------

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "JOB_COMPLETION_INDEX": "0"}


@pytest.mark.parametrize(
    ("environment", "installed", "method"),
    [
        ({}, (), "not joined"),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (), "not joined"),
        (SLURM, (), None),
        (OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://127.0.0.1:1"}, (), None),
        (OPEN_MPI, ("mpi4py",), "mpi4py"),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, ("mpi4py",), "mpi4py"),
        (KUBERNETES, ("kubernetes",), None),
        (KUBERNETES, (), "not joined"),
    ],
)
def test_launchers_are_known(monkeypatch: pytest.MonkeyPatch, environment, installed, method):
    calls: list[Any] = []
    pretend_launched(monkeypatch, environment, installed)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    hosts._join(None, None, None, 60)
    assert [call["cluster_detection_method"] for call in calls or [{**NOT_JOINED}]] == [method]
    if calls:
        assert not hosts._join(None, 1, None, 60) and len(calls) == 1


NOT_JOINED = {"cluster_detection_method": "not joined"}


def pretend_launched(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], installed: Sequence[str]
) -> None:
    for name in (*SLURM, *OPEN_MPI, *KUBERNETES, "PMI_SIZE", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        hosts.importlib.util, "find_spec", lambda name: name if name in installed else None
    )


def test_mpi_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch):
    pretend_launched(monkeypatch, OPEN_MPI, ())
    with pytest.raises(ValueError, match=r"Open MPI started 2 processes: expected .* mpi4py"):
        hosts._join(None, None, None, 60)


def test_a_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch):
    pretend_launched(monkeypatch, SLURM, ())
    with pytest.raises(ValueError, match=r"expected process 0 to answer there within 0\.1 s"):
        hosts._join(f"127.0.0.1:{free_port()}", None, None, 0.1)
