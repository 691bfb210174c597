"""Workers that are killed, that lack longlag, or are no longer the same: nothing is lost by them.

Each with processes of this machine, and with a real scheduler of Dask over loopback.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import distributed
import pytest

from experiments.harness import questions
from experiments.harness.questions import Question
from longlag import LSTM
from longlag.cli.arguments import plain_errors
from longlag.runs import (
    Architecture,
    Experiment,
    cell_class,
    checkpoints,
    cluster,
    jobs,
    run_job,
    sweep,
    sweeps,
)
from longlag.runs.cluster import connect
from longlag.system.file_lock import held_lock
from longlag.tasks import FirstInput
from longlag.training import Training
from tests.helpers import dask_cluster

pytestmark = pytest.mark.usefixtures("shared_compilations")

RUN = Experiment(
    task=FirstInput(lag=3),
    cell=LSTM(4),
    architecture=Architecture(width=4, depth=1),
    training=Training(steps=200, dispatch=5, batch_size=4, eval_size=16, stop_when_solved=False),
    seeds=1,
    test_lags=(3,),
)
TWELVE = {f"run-{seed}": dataclasses.replace(RUN, first_seed=seed) for seed in range(12)}
KILLS = 3
# For minutes.
LONG = dataclasses.replace(RUN, training=dataclasses.replace(RUN.training, steps=10**6))


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in results["rows"]]
    return results | {"rows": rows}


def metrics(run: Path) -> bytes:
    return re.sub(rb'"seconds": [\d.e-]+', b"", (run / "metrics.jsonl").read_bytes())


def await_that(condition: Callable[[], Any]) -> None:
    began = time.monotonic()
    while not condition() and time.monotonic() - began < 60:
        time.sleep(0.02)


def assert_saved(run: Path) -> None:
    """The newest checkpoint is of the newest line."""
    newest = max(checkpoints(run / "checkpoints"))
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == newest


@pytest.fixture(scope="module", autouse=True)
def _everything_compiled_is_kept() -> Iterator[None]:
    """Most of what these tests cost is workers that begin anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shared_compilations: None) -> Any:
    """The folder and the results of the sweep, one run after another in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, {name: timeless(run_job(name, job, folder)) for name, job in TWELVE.items()}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, _everything_compiled_is_kept: None
) -> Iterator[str]:
    with dask_cluster.cluster(tmp_path_factory.mktemp("dask"), 2) as address:
        yield address


class Killer(threading.Thread):
    """Kills the workers of three runs, each once, in the middle of its run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.victims, self.finished = folder, {}, {}

    def run(self) -> None:
        began = time.monotonic()
        while len(self.victims) < KILLS and time.monotonic() - began < 120:
            for lock in self.folder.glob(".run-*.lock"):
                self.kill(lock, self.folder / lock.name.removeprefix(".").removesuffix(".lock"))
            time.sleep(0.002)

    def kill(self, lock: Path, run: Path) -> None:
        try:
            lines = (run / "metrics.jsonl").read_bytes().count(b"\n")
            pid = int(lock.read_text().split()[0])
            if run.name not in self.victims and 2 < lines < 30:
                self.finished |= {p: p.stat().st_mtime for p in self.folder.glob("*/results.json")}
                os.kill(pid, signal.SIGKILL)
                self.victims[run.name] = pid
        except (OSError, IndexError):
            pass  # the run has only begun, or has just ended


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_workers_are_killed_and_the_results_are_those_of_an_undisturbed_sweep(
    where: str,
    request: pytest.FixtureRequest,
    undisturbed: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    workers = 2 if where == "here" else request.getfixturevalue("address")
    (tmp_path / ".sweep-left").touch()  # by an earlier sweep, which was killed
    killer = Killer(tmp_path)
    killer.start()
    results = sweep(TWELVE, tmp_path, workers)
    killer.join()
    assert len(killer.victims) == KILLS and len({*killer.victims.values()}) == KILLS
    assert {name: timeless(run) for name, run in results.items()} == undisturbed[1]
    assert [*results] == [*TWELVE]
    for name in TWELVE:
        assert metrics(tmp_path / name) == metrics(undisturbed[0] / name)
    # What had finished is as it was, and nothing else is left in the folder.
    assert killer.finished == {path: path.stat().st_mtime for path in killer.finished}
    assert {path.name for path in tmp_path.iterdir()} == {*TWELVE}
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{name} .* accuracy \d\.\d\d", shown, re.M) for name in TWELVE)


# Wrong as soon as it runs in another process than this one.
WRONG = """
import os
from longlag import LSTM


class Wrong(LSTM):
    def update(self, params, carry, z):
        if os.getpid() != {pid}:
            raise TypeError("expected another cell")
        return super().update(params, carry, z)
"""
DEADLY = """
import os, signal, threading
from longlag import LSTM

if os.getpid() != {pid}:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(LSTM):
    pass
"""


def with_cell(path: Path, text: str, name: str) -> Experiment:
    path.write_text(text.format(pid=os.getpid()))
    return dataclasses.replace(RUN, cell=cell_class(f"{path}:{name}")(4))  # type: ignore[call-arg]


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_an_error_in_a_cell_of_ones_own_names_file_and_line(
    where: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    workers = 1 if where == "here" else request.getfixturevalue("address")
    file = tmp_path / "own.py"
    job = with_cell(file, WRONG, "Wrong")
    text = file.read_text()
    file.unlink()  # a worker need not have it
    with pytest.raises(SystemExit) as leave, plain_errors():
        sweep({"wrong": job}, tmp_path / "runs", workers)
    assert leave.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: TypeError: expected another cell")
    assert error.endswith(f"({file}:9, in update)")
    assert (tmp_path / "runs" / "wrong" / "cell.py").read_text() == text


def test_a_run_that_kills_every_worker_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sweeps, "DEATHS", 1)
    job = with_cell(tmp_path / "own.py", DEADLY, "Deadly")
    with pytest.raises(ChildProcessError, match=r"^run deadly: 2 workers died of it, perhaps for"):
        sweep({"deadly": job}, tmp_path / "runs", 1)


def test_what_the_executor_itself_raises_is_one_message():
    """As Dask does once a run has killed four workers, or when the scheduler is gone."""
    cases = (
        (RuntimeError("killed"), ChildProcessError, "^run a: RuntimeError: killed$"),
        (ModuleNotFoundError("No module named 'longlag'"), ImportError, "a worker has no longlag"),
    )
    for raised, kind, message in cases:
        future: Future[Any] = Future()
        future.set_exception(raised)
        with pytest.raises(kind, match=message):
            sweeps._outcome(future, "a")


def test_an_error_of_the_library_comes_with_where_it_was_raised():
    try:
        {}["key"]
    except KeyError as error:
        plain = jobs._plain(error)
    assert type(plain) is RuntimeError
    assert "test_lost_workers.py" in str(plain) and str(plain).endswith("KeyError: 'key'\n")


def test_what_a_worker_cannot_import_is_named(tmp_path: Path):
    job = jobs.Job.of("a", RUN, tmp_path, tmp_path / "mark")
    job = dataclasses.replace(job, experiment=b"cno_such_module\nname\n.")
    results, error = pickle.loads(bytes(job))
    assert results is None and type(error) is ImportError
    assert re.search(r"cannot import what a is made of: No module named 'no_such", str(error))


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'need more packages: pip install "longlag\[cluster\]"'):
        sweep({}, Path("unused"), "tcp://127.0.0.1:1")


def test_other_versions_are_refused_before_anything_is_written(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = jobs.versions() | {"jax": "0.0.1"}
    monkeypatch.setattr(jobs, "versions", lambda: here)
    message = r"has other versions: jax: expected 0\.0\.1, got \d"
    with (  # without a look at the workers
        distributed.Client(address, set_as_default=False) as client,
        pytest.raises(ValueError, match=message),
    ):
        sweep(TWELVE, tmp_path / "runs", client.get_executor(pure=False))
    assert not list((tmp_path / "runs").glob("*"))
    monkeypatch.setattr(cluster, "versions", lambda: here)
    with pytest.raises(ValueError, match=message), connect(address):
        pass


def test_a_worker_without_longlag_says_so(address: str, tmp_path: Path):
    (tmp_path / "longlag.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'longlag'\", name='longlag')"
    )
    worker = ("distributed.cli.dask_worker", address, "--no-nanny", "--name", "bare")
    options = (*dask_cluster.LOOPBACK, "--nthreads", "1", "--local-directory", str(tmp_path))
    with (
        dask_cluster.processes((*worker, *options), PYTHONPATH=str(tmp_path)),
        distributed.Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(3, timeout=60)
        with pytest.raises(ImportError, match=r"^worker tcp://127.* has no longlag: No module"):
            sweep(TWELVE, tmp_path / "runs", address)
        # One that joins later says it too.
        bare = client.get_executor(pure=False, workers=["bare"])
        with pytest.raises(ImportError, match=r"^a worker has no longlag: No module named"):
            sweep(TWELVE, tmp_path / "runs", bare)
    assert not list((tmp_path / "runs").glob("*"))


def test_a_scheduler_out_of_reach_is_one_message_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arms = {"LSTM": RUN}
    for scheduler, message in (
        ("tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1: "),
        ("127.0.0.1:8786", "expected an address such as tcp://host:8786, got '127.0.0.1:8786'"),
    ):
        with pytest.raises(SystemExit) as leave:
            questions.script(
                "family",
                "",
                {"": lambda size: Question("Does it answer?", arms, 0.95)},
                argv=["--cluster", scheduler, "--out", str(tmp_path / "runs")],
            )
        assert leave.value.code == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_listens_and_is_no_scheduler_is_left_soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        scheduler = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"answers at {scheduler}: timed out"):
            sweep({}, Path("unused"), scheduler)


def test_ctrl_c_leaves_the_cluster_which_saves_what_it_did(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines, lock = tmp_path / "long" / "metrics.jsonl", tmp_path / ".long.lock"

    def interrupted(*_: Any) -> Any:
        await_that(lambda: lines.is_file() and lines.stat().st_size)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "wait", interrupted)
    with pytest.raises(SystemExit) as leave:
        sweep({"long": LONG}, tmp_path, address)
    assert leave.value.code == 130
    await_that(lambda: not lock.exists())
    assert {path.name for path in tmp_path.iterdir()} == {"long"}
    assert_saved(tmp_path / "long")


class Stub:
    """A client whose workers have these threads."""

    def nthreads(self) -> dict[str, int]:
        return {"tcp://127.0.0.1:2": 1, "tcp://127.0.0.1:3": 4}


def test_a_worker_has_one_thread():
    with pytest.raises(ValueError, match=r"worker tcp://127.0.0.1:3: expected one thread.*got 4"):
        cluster._look_at_workers(Stub())


def test_a_run_is_written_by_one_process_at_a_time(tmp_path: Path):
    """A worker that was given up for dead and lives: its successor waits, and finds the results."""
    results: list[Any] = []
    second = threading.Thread(
        target=lambda: results.append(run_job("a", RUN, tmp_path)), daemon=True
    )
    with held_lock(tmp_path / ".a.lock"):
        second.start()
        time.sleep(0.5)
        assert second.is_alive() and not (tmp_path / "a").exists()
    second.join(60)
    assert results[0]["rows"] and {path.name for path in tmp_path.iterdir()} == {"a"}


def test_a_run_whose_sweep_is_over_is_saved_and_left(tmp_path: Path):
    mark, lines = tmp_path / "mark", tmp_path / "a" / "metrics.jsonl"
    results: list[Any] = []
    stop = jobs._SweepIsOver(mark)
    running = threading.Thread(
        target=lambda: results.append(run_job("a", LONG, tmp_path, stop)), daemon=True
    )
    with held_lock(mark):
        running.start()
        await_that(lambda: lines.is_file() and lines.stat().st_size)
    running.join(60)
    assert results == [None]
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert_saved(tmp_path / "a")
