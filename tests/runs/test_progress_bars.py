"""What the bars of a sweep read in the run folders."""

from __future__ import annotations

import json
from pathlib import Path

from longlag.runs import progress_bars
from longlag.runs.progress_bars import Bars, News, newest
from tests.helpers.tiny import PARITY


def lines(*steps_and_accuracies: tuple[int, float | None]) -> str:
    return "".join(
        json.dumps({"step": step, "accuracy": accuracy}) + "\n"
        for step, accuracy in steps_and_accuracies
    )


def test_the_newest_step_is_the_mean_over_its_seeds(tmp_path: Path, monkeypatch):
    file = tmp_path / "metrics.jsonl"
    assert newest(file) is None
    file.touch()
    assert newest(file) is None
    file.write_text(lines((5, 0.1), (5, 0.2), (10, 0.5), (10, 0.7), (10, None)))
    assert newest(file) == News(10, 10, 0.6)
    with file.open("a") as more:  # a process is in the middle of a line
        more.write('{"step": 15, "accur')
    assert newest(file) == News(10, 10, 0.6)
    file.write_text(lines((5, None)))
    assert newest(file) == News(5, 5, None)
    monkeypatch.setattr(progress_bars, "TAIL_BYTES", 60)
    file.write_text(lines(*((step, 0.25) for step in range(100))))
    assert newest(file) == News(99, 99, 0.25)


def test_a_bar_moves_with_the_file_and_what_was_there_before_is_no_news(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text(lines((5, 0.5)))
    with Bars({"a": PARITY, "b": PARITY}, tmp_path) as bars:
        bars.look()
        assert [task.description for task in bars._progress.tasks] == ["all"]
        (tmp_path / "b" / "metrics.jsonl").write_text(lines((10, 0.5)))
        bars.look()
        of_b = bars._progress.tasks[1]
        assert (of_b.description, of_b.completed, of_b.total) == ("b", 10, 20)
        assert of_b.fields["state"] == "step 10, accuracy 0.50"
        bars.finish("b", {"rows": [{"accuracy": None}]})
        assert (of_b.completed, of_b.fields["state"]) == (20, "diverged")
        assert bars._progress.tasks[0].completed == 1
