"""Which accelerators there are, and what a process is given, on machines that have none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from longlag.system import devices, local_pool
from longlag.system.devices import PREALLOCATE, Accelerators, accelerators
from longlag.system.local_pool import LocalPool, places

GPUS, CHIPS = Accelerators("gpu", 2), Accelerators("tpu", 4)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch):
    for name in ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", PREALLOCATE):
        monkeypatch.delenv(name, raising=False)
    accelerators.cache_clear()
    yield
    accelerators.cache_clear()


def test_jax_is_asked_in_another_process_and_only_if_there_may_be_accelerators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    questions = []

    def answer(command: list[str], **_: object) -> SimpleNamespace:
        questions.append(command)
        return SimpleNamespace(stdout="a warning\naccelerators: gpu 2\n")

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(devices, "NODES", (str(tmp_path / "nvidia*"),))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert accelerators() == Accelerators("cpu", 0) and not questions
    (tmp_path / "nvidia0").touch()
    accelerators.cache_clear()
    assert accelerators() == GPUS == accelerators()
    assert questions == [[sys.executable, "-c", devices.QUESTION]]
    accelerators.cache_clear()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert accelerators().number == 0 and len(questions) == 1


def test_jax_answers_the_question():
    """As on a machine whose only platform is the CPU."""
    question = [sys.executable, "-c", devices.QUESTION]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    answer = subprocess.run(question, capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout == "accelerators: cpu 1\n"


def test_each_process_sees_one_gpu_and_memory_is_preallocated_for_one_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(local_pool, "accelerators", lambda: GPUS)
    assert places() == [(None, {"CUDA_VISIBLE_DEVICES": str(index)}) for index in (0, 1)]
    shared = {"CUDA_VISIBLE_DEVICES": "0", PREALLOCATE: "false"}
    assert places(3) == [(None, shared), (None, {"CUDA_VISIBLE_DEVICES": "1"}), (None, shared)]
    # What the user set counts.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    monkeypatch.setenv(PREALLOCATE, "true")
    seen = [(place.environment["CUDA_VISIBLE_DEVICES"]) for place in places()]
    assert seen == ["5", "7"] and places(3)[0].environment[PREALLOCATE] == "true"


def test_each_process_sees_one_chip_of_a_tpu_by_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_pool, "accelerators", lambda: CHIPS)
    each = [place.environment for place in places()]
    assert [variables["TPU_VISIBLE_CHIPS"] for variables in each] == ["0", "1", "2", "3"]
    assert len({variables["TPU_PROCESS_PORT"] for variables in each}) == 4
    assert {v["TPU_CHIPS_PER_PROCESS_BOUNDS"] for v in each} == {"1,1,1"}
    assert not any("XLA_FLAGS" in variables for variables in each)
    with pytest.raises(ValueError, match="workers: expected at most 4, one for each chip, got 5"):
        places(5)


def test_without_accelerators_each_process_has_a_core_and_the_flags_of_a_cpu():
    cores = sorted(os.sched_getaffinity(0))
    each = places()
    assert [place.core for place in each] == cores
    assert "--xla_backend_optimization_level=1" in each[0].environment["XLA_FLAGS"]
    assert [place.core for place in places(1)] == cores[:1]


def test_a_command_leaves_the_accelerators_to_its_workers(monkeypatch: pytest.MonkeyPatch):
    updates: list[tuple[str, str]] = []
    config = SimpleNamespace(update=lambda *update: updates.append(update))
    monkeypatch.setattr(devices, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(devices, "accelerators", lambda: CHIPS)
    devices.leave_accelerators()
    assert updates == [("jax_platforms", "cpu")] and PREALLOCATE not in os.environ
    monkeypatch.setattr(devices, "accelerators", lambda: Accelerators("cpu", 0))
    devices.leave_accelerators()
    assert len(updates) == 1 and PREALLOCATE not in os.environ
    monkeypatch.setattr(devices, "accelerators", lambda: GPUS)
    monkeypatch.setenv(PREALLOCATE, "true")
    devices.leave_accelerators()
    assert len(updates) == 1 and os.environ[PREALLOCATE] == "true"
    monkeypatch.delenv(PREALLOCATE)
    devices.leave_accelerators()
    assert len(updates) == 1 and os.environ.pop(PREALLOCATE) == "false"


def test_a_process_has_the_environment_of_its_place():
    with LocalPool([local_pool.Place(None, {"CUDA_VISIBLE_DEVICES": "7"})]) as pool:
        assert pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "7"
