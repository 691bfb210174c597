"""Training over a mesh of devices: numbers, resuming elsewhere, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from longlag.cli import compare
from longlag.cli.arguments import plain_errors
from longlag.training import MeshSizes, choose_mesh
from tests.helpers.tiny import OPTIONS, TRAINING

ROOT = Path(__file__).resolve().parents[2]
# A thousandth of what one step of Adam moves a weight. Adam divides by the size of a gradient, so
# where that is nearly zero its rounding counts: 1e-6 to 2.2e-6, by the processor.
ROUNDING = 1e-3 * TRAINING.learning_rate


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_on_four_devices()


def run_on_four_devices(*arguments: str) -> Any:
    # With the older way of fusing, XLA rounds the only seed of a program in another way.
    flags = os.environ.get("XLA_FLAGS", "").replace("--xla_cpu_use_fusion_emitters=false", "")
    flags += " --xla_force_host_platform_device_count=4"
    child = subprocess.run(
        [sys.executable, "-m", "tests.helpers.runs_on_meshes", *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def test_a_seed_on_a_device_of_its_own_has_the_bits_of_one_device(report):
    assert report["seeds"] == {"same": True, "weights": 0, "losses": 0}
    assert report["home"] == {"same": True, "weights": 0, "losses": 0}  # and after a resume
    # Two seeds at two rates are four states, one for each device.
    shape = {"seeds": 4, "data": 1, "time": 1}
    assert report["grid"] == {"same": True, "weights": 0, "losses": 0, "mesh": shape}
    # XLA's partitioner, if it has an axis to cut, fuses other operations together.
    assert report["manual"] == [["data", "seeds", "time"], ["seeds"]]


def test_a_batch_over_devices_changes_rounding_alone(report):
    """Also when a run is resumed with its batch over devices, and then again on one."""
    for name in ("both", "moved"):
        assert 0 < report[name]["weights"] < ROUNDING and report[name]["losses"] < 2e-6, report[
            name
        ]
    assert report["drawn"] == [2]  # of 4 rows each device draws its half


def test_time_over_devices_changes_rounding_alone(report):
    """Also when a run that began so goes on with its batch over devices too, and ends on one."""
    time = report["time"]
    assert 0 < time["weights"] < ROUNDING and time["losses"] < 2e-6, time
    assert time["ended"] == [[5, 0], 0, True]
    assert time["parts shorter than the answers"] == 4


@pytest.mark.deep
def test_devices_of_a_seed_that_has_ended_keep_no_other_waiting():
    assert run_on_four_devices("seeds=2,time=2") == [[5, 0], 0, True]


def test_what_cannot_run_with_time_over_devices_is_refused_before_there_is_a_folder(report):
    refused, messages = (
        report["refused"],
        {
            "dense cell": "expected a linear or a matrix cell with time over devices",
            "time_chunk": "mesh time: expected carry False and time_chunk 0",
        },
    )
    assert [*refused] == [*messages]
    for name, message in messages.items():
        code, error, folder = refused[name]
        assert code == 2 and message in error and not folder, error


def test_a_mesh_is_noted_and_is_no_part_of_the_experiment(report):
    both = {"mesh": {"seeds": 2, "data": 2, "time": 1}, "processes": 1}
    seeds = {"mesh": {"seeds": 4, "data": 1, "time": 1}, "processes": 1}
    assert report["configs"]
    assert report["meshes"] == [
        None,
        [{"from_step": 0, **both}],
        [
            {"from_step": 0, **seeds},
            {"from_step": 5, **both},
            {"from_step": 10, "mesh": None, "processes": 1},
        ],
    ]


def test_each_mesh_is_compiled_for_once(report):
    assert report["compiled"] == 2


def test_auto_shares_out_seeds_first_and_then_the_batch(report):
    assert report["auto"] == {
        "4 seeds, 4 rows": [4, 1, 1],
        "2 seeds, 4 rows": [2, 2, 1],
        "3 seeds, 4 rows": [3, 1, 1],
        "3 seeds, 3 rows": [3, 1, 1],
        "1 seeds, 2 rows": [1, 2, 1],
    }


def test_one_device_is_no_mesh():
    for mesh in ("auto", "none", "seeds=1", "seeds=1,data=1,time=1", MeshSizes()):
        assert choose_mesh(mesh, TRAINING, 2) is None
    assert MeshSizes.parse(" data=2, seeds = 4 ") == MeshSizes(seeds=4, data=2)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("seed=2", "expected one of seeds, data, time; got 'seed'. Did you mean 'seeds'?"),
        ("batch", "mesh: expected auto, none or sizes such as seeds=2,data=4; got 'batch'"),
        ("data=-2", "mesh: expected auto, none or sizes such as seeds=2,data=4; got 'data=-2'"),
        ("seeds=2,seeds=2", "mesh: expected each axis once; got 'seeds=2,seeds=2'"),
        ("seeds=0", "mesh seeds: expected at least 1, got 0"),
        ("time=0", "mesh time: expected at least 1, got 0"),
        ("time=2", "mesh: expected at most 1 devices; got seeds=1,data=1,time=2"),
        ("seeds=3", "mesh seeds: expected a divisor of seeds 2; got 3"),
        ("data=3", "mesh data: expected a divisor of batch_size 4; got 3"),
        ("seeds=2,data=4", "mesh: expected at most 1 devices; got seeds=2,data=4,time=1"),
    ],
)
def test_an_impossible_mesh_is_refused_before_there_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mesh: str, message: str
):
    with pytest.raises(SystemExit) as left, plain_errors():
        compare.main([*OPTIONS, "--out", str(tmp_path / "run"), "--mesh", mesh])
    assert left.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not [*tmp_path.iterdir()]
