"""Metrics of a run in TensorBoard and Weights & Biases: the same points however it was resumed."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from longlag.runs import MetricLogs, Progress, RunFolder, require_log_packages
from tests.helpers.small_disk import fill, small_disk
from tests.helpers.tiny_runs import new

Points = dict[tuple[str, int], float]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "of-wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")


def tensorboard_points(run: Path) -> Points:
    """The points of the event file, which has each once."""
    (file,) = (run / "tensorboard").iterdir()
    data, at, points = file.read_bytes(), 0, {}
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += 12 + size + 4
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                assert (value.tag, event.step) not in points
                points[value.tag, event.step] = value.simple_value
    return points


def wandb_records(run: Path) -> Iterator[Any]:
    """What the file of an offline run holds, which is a log as LevelDB has it."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def wandb_points(run: Path) -> tuple[Points, dict[str, float]]:
    """The points of the history, each once, and the summary."""
    points, summary = {}, {}
    # Its service may write the end of the file a while after `finish` has returned.
    until = time.monotonic() + 30
    while not any(record.HasField("exit") for record in wandb_records(run)):
        assert time.monotonic() < until
        time.sleep(0.1)
    for record in wandb_records(run):
        if record.HasField("history"):
            items = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            step = record.history.step.num
            for name, value in items.items():
                if not name.startswith("_"):
                    assert (name, step) not in points
                    points[name, step] = value
        for item in record.summary.update:
            value = json.loads(item.value_json)  # null in place of NaN
            summary["/".join(item.nested_key) or item.key] = math.nan if value is None else value
    return points, summary


def lines(step: int, of: RunFolder) -> Progress:
    """A dispatch of two seeds, one of which may have a loss that is not finite."""
    measured: list[dict[str, Any]] = [
        {"step": step, "seed": seed, "loss": seed + 1 / step, "accuracy": step / 100}
        for seed in (0, 1)
    ]
    if step == 10:
        measured[1]["loss"] = math.inf
    of.append(measured)
    return Progress(step, measured)


def row(lag: int, seed: int, accuracy: float | None) -> dict[str, Any]:
    scores = {"accuracy": accuracy, "exact_match": 0.5, "loss": 0.25}
    return {"lag": lag, "seed": seed, "steps": 20} | scores


def test_both_logs_hold_the_metrics_after_a_stop_and_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = new(tmp_path / "run")
    with MetricLogs(folder, ["tensorboard", "wandb"]) as logs:
        for step in (5, 10, 15):
            logs.add(lines(step, folder))
        assert {step for _, step in tensorboard_points(folder.path)} == {5, 10, 15}
    run_id = (folder.path / "wandb" / "run-id").read_text()
    # The last checkpoint is of step 10.
    with MetricLogs(folder, ["wandb", "tensorboard", "wandb"]) as logs:
        folder.truncate(10)
        logs.add(Progress(10, []))
        for step in (15, 20):
            logs.add(lines(step, folder))
        logs.conclude({"rows": [row(8, 0, 1.0), row(8, 1, None), row(32, 0, 0.75)]})
    metrics = {
        (f"{key}/seed_{line['seed']}", line["step"]): math.nan if line[key] is None else line[key]
        for line in folder.metrics()
        for key in ("loss", "accuracy")
    }
    assert len(metrics) == 4 * 2 * 2 and math.isnan(metrics["loss/seed_1", 10])
    scores = {
        f"test_{key}/lag_{lag}/seed_{seed}": value
        for lag, seed, accuracy in ((8, 0, 1.0), (8, 1, math.nan), (32, 0, 0.75))
        for key, value in (("accuracy", accuracy), ("exact_match", 0.5), ("loss", 0.25))
    }
    points = metrics | {(name, 20): value for name, value in scores.items()}
    assert tensorboard_points(folder.path) == pytest.approx(points, rel=1e-6, nan_ok=True)
    history, summary = wandb_points(folder.path)
    assert history == pytest.approx(metrics, nan_ok=True)
    assert {name: summary[name] for name in scores} == pytest.approx(scores, nan_ok=True)
    assert (folder.path / "wandb" / "run-id").read_text() == run_id
    assert "stopped after an error" not in capsys.readouterr().out


def test_a_log_that_fails_is_named_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with small_disk(tmp_path / "disk", "200k") as disk:
        folder = new(disk / "run")
        (folder.path / "wandb").write_text("in the way")
        with MetricLogs(folder, ["tensorboard", "wandb"]) as logs:
            logs.add(lines(5, folder))
            progress = lines(10, folder)
            fill(disk)
            for _ in range(99):  # more than the page that the file has begun
                logs.add(progress)
            logs.conclude({"rows": [row(8, 0, 1.0)]})
        printed = capsys.readouterr().out
        assert printed.count("\n") == 2
        assert re.search(r"^log wandb: stopped after an error, .* \(FileExistsError: ", printed)
        assert re.search(r"^log tensorboard: .* \(OSError: .*No space left", printed, re.MULTILINE)


def test_a_missing_package_and_an_unknown_log_are_refused(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    with pytest.raises(ValueError, match="log: expected one of tensorboard, wandb; got 'csv'"):
        require_log_packages(["csv"])  # type: ignore[list-item]
    require_log_packages([])
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        message = f'packages too, {package}: pip install "longlag[{name}]"'
        with pytest.raises(ImportError, match=re.escape(message)):
            require_log_packages([name])
