"""The demo at a tiny size: the same twice, and put in place only at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import demo
from longlag import LSTM
from longlag.cells import FeedForward
from longlag.tasks import Parity, Recall
from tests.small_disk import contents

KEYS = (
    *("task", "arm", "seed", "accuracy", "exact_match", "loss", "length", "steps"),
    *("parameters", "state_bytes", "seconds"),
)
STEPS = 10


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {
        "recall": (Recall(length=8, pairs=2, vocab=34), STEPS),
        "parity": (Parity(min_length=1, max_length=8), STEPS),
    }
    arms = {
        "feed-forward": (FeedForward(8), "none"),
        "LSTM": (LSTM(8), "none"),
        "LSTM + full": (LSTM(8), "full"),
    }
    for name, value in {"TASKS": tasks, "ARMS": arms, "WIDTH": 8, "SEEDS": 2}.items():
        monkeypatch.setattr(demo, name, value)


def timeless(value: Any) -> Any:
    """Results without what depends on the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "wall_seconds")}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_the_demo_twice(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "runs" / "demo"
    assert demo.main(out, steps=STEPS) == 0
    first = json.loads((out / "results.json").read_text())
    check_rows(first["rows"])
    assert str(out / "report.html") in capsys.readouterr().out.replace("\n", "")
    page = (out / "report.html").read_text()
    assert "longlag demo" in page and list((out / "plots").glob("*.png"))
    assert (out / "recall-lstm-full" / "metrics.jsonl").is_file()

    (out / "mark").write_text("of the earlier demo")
    before, replace, seen = contents(out), demo._replace, []

    def watched(out: Path, aside: Path) -> None:
        seen.append((contents(out) == before, (aside / "report.html").is_file()))
        replace(out, aside)

    monkeypatch.setattr(demo, "_replace", watched)
    assert demo.main(out, steps=STEPS) == 0
    assert seen == [(True, True)], "the earlier demo stands until the new one is complete"
    assert not (out / "mark").exists()
    assert timeless(json.loads((out / "results.json").read_text())) == timeless(first)
    assert [path.name for path in out.parent.iterdir()] == ["demo"]


def check_rows(rows: list[dict[str, Any]]) -> None:
    assert all(set(KEYS) <= set(row) for row in rows)
    floors = [row for row in rows if row["seed"] is None]
    assert {(row["task"], row["length"]) for row in floors} == {
        (row["task"], row["length"]) for row in rows
    }
    assert all(row["arm"].startswith("floor: ") for row in floors)
    trained = [row for row in rows if row["seed"] is not None and row["lag"] == row["train_lag"]]
    assert {(row["task"], row["arm"], row["seed"]) for row in trained} == {
        (task, arm, seed) for task in demo.TASKS for arm in demo.ARMS for seed in (0, 1)
    }
    assert all(row["steps"] == STEPS and row["parameters"] > 0 for row in trained)


def test_a_demo_that_fails_leaves_the_earlier_one(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "results.json").write_text("{}")

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(demo, "_run_all", fail)
    with pytest.raises(RuntimeError, match="no"):
        demo.main(out, steps=STEPS)
    assert contents(out) == {"results.json": b"{}"}


@pytest.mark.parametrize("files", [["notes.txt"], ["results.json", "config.json"], []])
def test_what_is_no_demo_is_not_replaced(tmp_path: Path, files: list[str]):
    out = tmp_path / "mine"
    out.mkdir()
    for name in files:
        (out / name).write_text("mine")
    with pytest.raises(
        ValueError, match=r"expected a new folder, or that of an earlier demo; .*mine"
    ):
        demo.main(out, steps=STEPS)
    assert contents(tmp_path) == {f"mine/{name}": b"mine" for name in sorted(files)}


def test_the_demo_itself():
    """Three tasks, five arms of equal depth, three seeds; failing arms get steps enough."""
    jobs = demo.experiments()
    assert {task for task, _ in jobs} == {"recall", "parity", "selective-copy"}
    assert len(jobs) == 15 and set(demo.ROLES) == {arm for _, arm in jobs}
    for (task, _), experiment in jobs.items():
        assert experiment.seeds == 3 and experiment.architecture.depth == 2
        assert experiment.training.steps == demo.TASKS[task][1]
    assert demo.TASKS["recall"][0].length == 32
    parity = jobs["parity", "LSTM"]
    assert (parity.task.min_length, parity.task.max_length, parity.lags) == (1, 40, (40, 80, 160))
