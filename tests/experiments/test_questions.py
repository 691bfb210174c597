"""A question put to several arms: run once, gone on with, its table and verdict."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest

from experiments.harness.questions import Options, Question, ask, folder
from experiments.harness.recorded import committed_results, source_line
from experiments.harness.tables import COLUMNS, lines, spread, verdict
from experiments.memory import family
from longlag import LSTM
from longlag.runs import cell_names
from longlag.system.machine import environment
from tests.helpers.tiny import PARITY

TINY = dataclasses.replace(
    PARITY, seeds=1, training=dataclasses.replace(PARITY.training, steps=5, eval_size=8)
)


def row(arm: str, seed: int, lag: int, accuracy: float | None, solved_at: int | None = None):
    fixed = {"kind": "dense", "train_lag": 40, "budget": 2000, "parameters": 1234, "rate": 3e-3}
    cost = {"state_bytes": 256, "seconds": 2.0, "floor": 0.5}
    varying = {"arm": arm, "seed": seed, "lag": lag, "accuracy": accuracy, "solved_at": solved_at}
    return fixed | cost | varying


RESULTS = {
    "threshold": 0.95,
    "meta": {"core_hours": 0.5},
    "rows": [
        # Seed 0 holds at both lengths, seed 1 at the longer one alone.
        *(row("both", 0, 40, 1.0, 100), row("both", 0, 64, 0.97), row("both", 0, 256, 0.96)),
        *(row("both", 1, 40, 1.0, 300), row("both", 1, 64, 0.90), row("both", 1, 256, 0.99)),
        *(row("lost", 0, 40, None), row("lost", 0, 64, None), row("lost", 0, 256, None)),
    ],
}


def test_lines_count_the_seeds_that_hold_at_every_length():
    both, lost = (dict(zip(COLUMNS, line)) for line in lines(RESULTS))
    assert both == {
        "arm": "both",
        "kind": "dense",
        "trained at": "40: 1.00",
        "tested at": "256: 0.97 (0.96–0.99)",
        "solved": "1/2",
        "floor": "0.50",
        "steps": "200",
        "rate": "0.003",
        "params": "1,234",
        "state": "256 B",
        "time": "2 s",
    }
    assert (lost["tested at"], lost["solved"], lost["steps"]) == (
        "256: diverged",
        "0/1",
        "not within 2,000",
    )
    assert "Of 2 arms, 0 solved it in every seed and 1 in at least one." in verdict(RESULTS)


def test_a_seed_that_did_not_solve_it_took_longer_than_any_that_did():
    for solved, said in (
        ([100, 300, None], "300"),
        ([100, None, None], "not within 2,000"),
        ([100, None], "not within 2,000"),
    ):
        rows = [row("a", seed, 40, 0.5, at) for seed, at in enumerate(solved)]
        (line,) = lines(RESULTS | {"rows": rows})
        assert dict(zip(COLUMNS, line))["steps"] == said


def test_two_arms_do_not_share_a_run(tmp_path: Path):
    with pytest.raises(ValueError, match=r"arm 'MinGRU': expected a name with a folder of its own"):
        ask(Question("?", {"MinGRU": TINY, "minGRU": TINY}, 0.5), "a command", tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_be_had_end_it_before_any_run(tmp_path: Path, monkeypatch):
    def sample(task, key, size):
        raise FileNotFoundError("words: no network")

    monkeypatch.setattr(type(TINY.task), "sample", sample)
    with pytest.raises(FileNotFoundError, match="no network"):
        ask(Question("?", {"a": TINY}, 0.5), "a command", tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_where_nothing_longer_is_tested_the_trained_length_counts():
    rows = [row("a", seed, 40, accuracy) for seed, accuracy in enumerate((0.95, 0.94))]
    (line,) = lines(RESULTS | {"rows": rows})
    assert dict(zip(COLUMNS, line))["solved"] == "1/2"


@pytest.mark.usefixtures("shared_compilations")
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"bits": 2.0}, {"bits": 2.5}, {"bits": 4.0}], "2.500 (2.000–4.000)"),
        ([{"bits": 2.0}, {"bits": None}], "2.000, 1 diverged"),
        ([{"bits": 2.0}, {"bits": 2.0004}], "2.000"),
        ([{"bits": None}], "diverged"),
        ([{"accuracy": 1.0}], ""),
        ([{"bits": math.nan, "nan": 0.1}, {"bits": 2.0}], "2.000, 1 answered NaN"),
        ([{"bits": None, "nan": 0.1}, {"bits": None}], "1 diverged, 1 answered NaN"),
        # An accuracy is a number though answers are NaN, so the row says how many.
        ([{"bits": 2.0, "accuracy": 0.9, "loss": None, "nan": 0.1}], "2.000, 1 answered NaN"),
        # As results have it that were recorded before NaN was counted.
        ([{"bits": 2.0, "accuracy": 0.9, "loss": None}], "2.000, 1 without a finite loss"),
    ],
)
def test_a_spread_is_a_median_and_its_range(rows, said):
    assert spread(rows, "bits", 3) == said


def test_a_question_leaves_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arms = {"LSTM, small": TINY, "LSTM, 2": dataclasses.replace(TINY, cell=LSTM(4))}
    options = Options(log=("tensorboard",))
    question = options.restrict(Question("Which is it?", arms, 0.5))
    results = ask(question, "a command", tmp_path, workers=1)
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert [(r["arm"], r["lag"]) for r in results["rows"]] == [
        *(("LSTM, small", 8), ("LSTM, small", 16), ("LSTM, 2", 8), ("LSTM, 2", 16))
    ]
    assert results["meta"]["command"] == "a command" and results["rows"][0]["floor"] == 0.5
    made = tmp_path / folder("LSTM, 2")
    assert (made / "results.json").is_file() and [*made.glob("tensorboard/events.*")]
    assert "Which is it?" in capsys.readouterr().out
    assert not {"resumed", "commits"} & {*results["meta"]}
    # Of a run that began before, and elsewhere, the record says so.
    env = json.loads((made / "env.json").read_text())
    (made / "env.json").write_text(json.dumps(env | {"commit": "0f" * 20}))
    os.utime(made / "env.json", (0, 0))
    again = ask(question, "a command", tmp_path, workers=1)
    assert again["rows"] == results["rows"]
    assert again["meta"]["resumed"] and again["meta"]["commits"] == {"0f" * 20: ["lstm-2"]}
    where = source_line(again["meta"])
    assert "s since it was resumed; commit" in where and ", and `0f0f0f0f0f` (lstm-2)" in where


def test_a_question_may_be_restricted():
    question = Question("?", {"a": TINY, "b": TINY}, 0.5).restrict(["b"], seeds=3, steps=7)
    ((arm, job),) = question.arms.items()
    assert (arm, job.seeds, job.training.steps) == ("b", 3, 7)
    with pytest.raises(ValueError, match="arm"):
        question.restrict(["c"])


def test_every_cell_is_asked():
    for name in ("hold", "parity"):
        asked = {type(job.cell) for job in family.QUESTIONS[name]().arms.values()}
        assert asked == set(cell_names().values())


def test_how_a_question_was_restricted_is_recorded(tmp_path: Path):
    asked = Question("Quick?", {"a b": TINY, "other": TINY}, 0.5)
    found = ask(asked.restrict(["a b"], steps=3), "python -m experiments.x", tmp_path, 1)
    assert found["meta"]["command"] == "python -m experiments.x --arms 'a b' --steps 3"
    assert found["meta"]["dirty"] == environment()["dirty"]
    assert asked.restrict(seeds=1).smoke().options == ("--seeds 1",)


@pytest.mark.parametrize("question", family.QUESTIONS)
def test_committed_results_answer_the_question_as_it_is(question: str):
    """A table in the documents is of the arms, seeds and budget that the script has today."""
    rows = (committed_results(f"family-{question}") or {})["rows"]
    found: dict[str, set[tuple[int, int]]] = {}
    for r in rows:
        found.setdefault(r["arm"], set()).add((r["seed"], r["budget"]))
    arms = family.QUESTIONS[question]().arms
    assert found == {
        arm: {(seed, job.training.steps) for seed in range(job.seeds)} for arm, job in arms.items()
    }, f"record the arms: python -m experiments.memory.family {question} --arms (see CONTRIBUTING)"
