from __future__ import annotations

import datetime
import json
import os
import resource
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from longlag.runs import CheckpointError, RunFolder, folder, run_name
from longlag.system.atomic_files import DiskError
from tests.helpers.small_disk import contents, fill, make_read_only, small_disk

CONFIG = {"task": "copy", "lags": (1, 20), "cell": {"name": "lstm", "forget_bias": 1.0}}


def test_a_new_folder_holds_config_environment_metrics_and_checkpoints(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "runs" / "mine", CONFIG)
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == ["checkpoints", "config.json", "env.json", "metrics.jsonl"]
    assert [path.name for path in folder.path.parent.iterdir()] == ["mine"]
    assert RunFolder.open(folder.path) == folder
    assert folder.config["lags"] == [1, 20]
    environment = json.loads((folder.path / "env.json").read_text())
    assert environment["versions"]["jax"] and environment["device_count"] >= 1


@pytest.mark.parametrize("kind", ["run", "empty folder", "file", "dangling link"])
def test_what_exists_is_refused_and_left(tmp_path: Path, kind: str):
    path = tmp_path / "mine"
    if kind == "run":
        RunFolder.create(path, CONFIG).append([{"step": 1}])
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"mine exists already .*another name.*--resume .*mine"):
        RunFolder.create(path, {})
    assert contents(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_appears_meanwhile_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "mine"

    def environment() -> dict[str, Any]:
        if not path.exists():
            path.mkdir()
            (path / "theirs").write_text("theirs")
        return {}

    monkeypatch.setattr(folder, "environment", environment)
    with pytest.raises(ValueError, match="exists already"):
        RunFolder.create(path, CONFIG)
    assert contents(tmp_path) == {"mine/theirs": b"theirs"}
    # The same within the last gap, where only the rename itself can notice.
    monkeypatch.setattr(folder.os.path, "lexists", lambda _: False)
    with pytest.raises(OSError, match="not empty"):
        RunFolder.create(path, CONFIG)
    assert contents(tmp_path) == {"mine/theirs": b"theirs"}


def test_names_count_up(tmp_path: Path):
    when = datetime.datetime(2026, 7, 9, 8, 5, 3)
    name = run_name("copy", "MGU", "none", when=when)
    assert name == "20260709-080503-copy-mgu-none"
    folders = [RunFolder.create_named(tmp_path, name, CONFIG).path.name for _ in range(3)]
    assert folders == [name, f"{name}-2", f"{name}-3"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"got a folder without config\.json"),
        ('{"task": "co', r"expected JSON in .*config\.json; got: Unterminated string"),
        ("[1]", r"expected a JSON object in .*config\.json; got list"),
        (b"\xff\xfe\x00", r"expected JSON in .*config\.json; got: "),
    ],
)
def test_opening_what_is_no_run_folder(tmp_path: Path, config: str | bytes | None, message: str):
    if config is not None:
        data = config if isinstance(config, bytes) else config.encode()
        (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        RunFolder.open(tmp_path)


def test_opening_nothing_offers_the_nearest_name(tmp_path: Path):
    RunFolder.create(tmp_path / "demo", CONFIG)
    with pytest.raises(ValueError, match=r"got nothing\. Did you mean .*/demo\?"):
        RunFolder.open(tmp_path / "dmeo")
    with pytest.raises(ValueError, match=r"at .*nowhere/demo; got nothing\.$"):
        RunFolder.open(tmp_path / "nowhere" / "demo")
    with pytest.raises(ValueError, match="got a file"):
        RunFolder.open(tmp_path / "demo" / "config.json")


def test_another_configuration_is_named(tmp_path: Path):
    folder = RunFolder.open(RunFolder.create(tmp_path / "mine", CONFIG).path)
    folder.require_same(CONFIG)
    other = {"task": "copy", "lags": [1, 20], "cell": {"name": "gru"}, "seed": 3}
    with pytest.raises(ValueError) as caught:
        folder.require_same(other)
    assert str(caught.value).splitlines()[1:] == [
        "  cell.forget_bias: expected 1.0; got nothing",
        '  cell.name: expected "lstm"; got "gru"',
        "  seed: expected nothing; got 3",
    ]
    # As it is read today, with an option that has come since.
    folder.require_same({**CONFIG, "seed": 3}, {**CONFIG, "seed": 3})


def test_equal_numbers_give_equal_bytes(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "mine", CONFIG)
    folder.append([{"loss": 0.1, "step": 1, "accuracy": [0.5, 1.0]}])
    folder.append(
        [{"accuracy": jnp.asarray([0.5, 1.0]), "step": np.int64(1), "loss": np.float64(0.1)}]
    )
    first, second = folder.metrics_file.read_bytes().splitlines(keepends=True)
    assert first == second == b'{"step": 1, "accuracy": [0.5, 1.0], "loss": 0.1}\n'
    folder.append([{"step": 2, "loss": np.float32(0.1), "norm": float("inf"), "per": {"a": None}}])
    line = folder.metrics()[-1]
    assert line == {"step": 2, "loss": float(np.float32(0.1)), "norm": None, "per": {"a": None}}


@pytest.mark.parametrize("line", [{"loss": 1.0}, {"step": 1.5}, {"step": True}])
def test_a_line_without_a_step_is_refused_with_all_beside_it(tmp_path: Path, line: dict[str, Any]):
    folder = RunFolder.create(tmp_path / "mine", CONFIG)
    with pytest.raises(ValueError, match="integer step"):
        folder.append([{"step": 1}, line])
    assert folder.metrics() == []


def test_a_resume_goes_back_to_the_checkpoint(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "mine", CONFIG)
    state = {"x": jnp.ones(3)}
    expected = b""
    for step in (1, 2, 3):
        folder.append([{"step": step, "seed": seed} for seed in (0, 1)])
        if step < 3:
            folder.save(step, {"x": state["x"] * step})
        if step == 2:
            expected = folder.metrics_file.read_bytes()
    with folder.metrics_file.open("ab") as file:
        file.write(b'{"step": 3, "lo')  # kill -9
    assert len(folder.metrics()) == 6
    restored = folder.resume(state)
    assert (restored.step, float(restored.tree["x"][0])) == (2, 2.0)
    assert folder.metrics_file.read_bytes() == expected
    os.truncate(folder.checkpoints / "step_00000002" / "manifest.json", 10)
    restored = folder.resume(state)
    assert restored.step == 1 and len(restored.skipped) == 1
    assert folder.metrics() == [{"step": 1, "seed": 0}, {"step": 1, "seed": 1}]
    os.truncate(folder.checkpoints / "step_00000001" / "manifest.json", 10)
    with pytest.raises(CheckpointError):
        folder.resume(state)
    assert len(folder.metrics()) == 2
    folder.truncate(-1)
    assert folder.metrics_file.read_bytes() == b""


def test_lines_written_after_the_cut_go_whatever_their_step(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "mine", CONFIG)
    folder.append([{"step": 1}, {"step": 2}, {"step": 1, "late": True}])
    folder.truncate(1)
    assert folder.metrics() == [{"step": 1}]


def test_a_broken_line_before_the_cut_is_named(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "mine", CONFIG)
    broken = b'{"step": 1}\n{"step": \n{"step": 2}\n'
    folder.metrics_file.write_bytes(broken)
    for read in (folder.metrics, lambda: folder.truncate(5)):
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: expected a JSON object"):
            read()
    assert folder.metrics_file.read_bytes() == broken


def test_half_a_line_never_stays_where_a_disk_fills_up(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "mine", CONFIG)
    folder.append([{"step": 1}])
    before = folder.metrics_file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))  # takes a part, then fails
    try:
        with pytest.raises(DiskError, match=r"the metrics to .*metrics\.jsonl: File too large"):
            folder.append([{"step": step} for step in range(2, 20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.metrics_file.read_bytes() == before


def test_a_full_disk(tmp_path: Path):
    with small_disk(tmp_path / "disk", "200k") as disk:
        folder = RunFolder.create(disk / "mine", CONFIG)
        folder.append([{"step": step} for step in range(300)])
        before = contents(disk / "mine")
        fill(disk)
        with pytest.raises(DiskError, match=r"a new run folder to .*/other: No space left"):
            RunFolder.create(disk / "other", CONFIG)
        with pytest.raises(DiskError, match=r"the metrics to .*No space left.*untouched"):
            folder.append([{"step": step} for step in range(300, 900)])
        with pytest.raises(DiskError, match=r"the checkpoint of step 300 to .*No space left"):
            folder.save(300, {"x": jnp.ones(3)})
        assert contents(disk / "mine") == before
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "mine"]
        folder.truncate(10)  # needs no space
        assert len(folder.metrics()) == 11


def test_a_read_only_disk(tmp_path: Path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = RunFolder.create(disk / "mine", CONFIG)
        folder.append([{"step": 1}])
        folder.save(1, {"x": jnp.ones(3)})
        make_read_only(disk)
        before = contents(disk)
        for what, write in (
            ("a new run folder to .*/other", lambda: RunFolder.create(disk / "other", CONFIG)),
            ("the metrics to", lambda: folder.append([{"step": 2}])),
            ("the metrics to", lambda: folder.truncate(0)),
            ("the checkpoint of step 2 to", lambda: folder.save(2, {"x": jnp.ones(3)})),
        ):
            with pytest.raises(DiskError, match=what + r".*Read-only file system"):
                write()
        assert contents(disk) == before
        assert RunFolder.open(folder.path).metrics() == [{"step": 1}]


def test_a_file_in_place_of_the_parent(tmp_path: Path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(DiskError, match=r"a new run folder to .*runs/mine: (Not a dir|File ex)"):
        RunFolder.create(tmp_path / "runs" / "mine", CONFIG)
    assert contents(tmp_path) == {"runs": b"mine"}
