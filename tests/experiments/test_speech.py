"""Who speaks? The choice by held-out folds, the test read once, the table, one utterance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.harness import questions
from experiments.real_data import speech
from experiments.real_data.speech import COLUMNS, Preset, lines, main, verdict
from longlag.cli.arguments import plain_errors
from longlag.data.japanese_vowels import load as utterances
from longlag.runs import Experiment, load, run_job

ARM = "feed-forward"


def here(jobs: dict[str, Experiment], folder: Path, *_: object):
    return {name: run_job(name, job, folder) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of it with one arm, two folds and two seeds."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(speech.PRESETS, "quick", Preset(8, 2, 2, (1e-3, 1e-2)))
        patch.setattr(speech, "WIDTH", 8)
        # In this process: the rates share what is compiled, and no worker has to start.
        for module in (speech, questions):
            patch.setattr(module, "sweep", here)
        argv = ["--preset", "quick", "--arms", ARM, "--out", str(out)]
        assert main(argv) == 0
    return out / "speech-quick"


def test_a_run_chooses_by_the_folds_and_reads_the_whole_test_once(run: Path):
    results = json.loads((run / "results.json").read_text())
    trials = results["trials"]
    assert [trial["rate"] for trial in trials] == [1e-3, 1e-2]
    (chosen,) = (trial for trial in trials if trial["chosen"])
    assert chosen["accuracy"] == max(trial["accuracy"] for trial in trials)
    for trial in trials:
        folds = [run / "folds" / f"{ARM}-{trial['rate']:g}-{fold}" for fold in range(2)]
        rows = [json.loads((fold / "results.json").read_text())["rows"] for fold in folds]
        assert [[row["seed"] for row in of_fold] for of_fold in rows] == [[0], [0]]
        # 135 of each: whole errors.
        right = [of_fold[0]["accuracy"] for of_fold in rows]
        assert trial["accuracy"] == pytest.approx(np.mean(right))
        assert all(135 * share == pytest.approx(round(135 * share), abs=1e-3) for share in right)
    assert [row["seed"] for row in results["rows"]] == [1, 2], "other seeds than the trials'"
    assert {row["rate"] for row in results["rows"]} == {chosen["rate"]}
    # By another way: the answers after the last step, and the share of them that is right.
    loaded, test = load(run / ARM), utterances().test
    for row, shares in zip(results["rows"], results["heard"][ARM]):
        said = speech.step_chances(loaded, row["seed"])[np.arange(370), test.lengths - 1].argmax(
            axis=1
        )
        assert row["accuracy"] == pytest.approx((said == test.speakers).mean(), abs=1e-6)
        assert shares[-1] == pytest.approx(row["accuracy"], abs=1e-4) and len(shares) == 29
    assert (run / "plots" / "heard.png").stat().st_size > 10_000
    anyone, *of_means = (floor["accuracy"] for floor in results["floors"])
    held = [floor["held out"] for floor in results["floors"]]
    assert held[0] is None and held[1:] == pytest.approx([0.930, 0.919], abs=1e-3)
    assert anyone == 1 / 9 and of_means == pytest.approx([0.957, 0.951], abs=1e-3)


def test_an_utterance_is_told_step_by_step(run: Path, capsys: pytest.CaptureFixture[str]):
    argv = ["--preset", "quick", "--out", str(run.parent)]
    assert main([*argv, "--predict", "40"]) == 0
    said = capsys.readouterr().out
    assert "test utterance 40: speaker 2 is speaking" in said
    steps = [line.split()[:2] for line in said.splitlines() if line.split()[1:2] == ["speaker"]]
    assert [int(step) for step, _ in steps] == [*range(1, utterances().test.lengths[40] + 1)]
    for wrong, message in (
        (["--predict", "370"], "from 0 to 369"),
        (["--out", "no"], "run without"),
    ):
        with pytest.raises(SystemExit) as ended, plain_errors():
            main([*argv, "--predict", "0", *wrong])
        assert ended.value.code == 2 and message in capsys.readouterr().err


def row(arm: str, seed: int, right: int):
    fixed = {"lag": 29, "train_lag": 29, "rate": 3e-3, "parameters": 1234, "seconds": 2.0}
    return fixed | {"arm": arm, "seed": seed, "accuracy": right / 370}


RESULTS = {
    "rows": [row("GRU", seed, right) for seed, right in enumerate((356, 360, 352, 358, 355))]
    + [row("LSTM", seed, 350) for seed in range(3)],
    "trials": [
        {"arm": "GRU", "rate": 3e-3, "accuracy": 0.95, "loss": 0.2, "chosen": True},
        {"arm": "GRU", "rate": 1e-2, "accuracy": 0.95, "loss": 0.3, "chosen": False},
        {"arm": "LSTM", "rate": 3e-3, "accuracy": 0.94, "loss": 0.1, "chosen": True},
    ],
    "floors": [
        {"floor": "any speaker", "accuracy": 1 / 9, "held out": None},
        {"floor": "regression", "accuracy": 354 / 370, "held out": 0.93},
    ],
    "meta": {"core_hours": 0.5},
}


def test_a_line_has_the_median_its_interval_and_the_errors():
    gru, lstm, anyone, regression = (dict(zip(COLUMNS, line)) for line in lines(RESULTS))
    assert gru == {
        "arm": "GRU",
        "held out": "0.950",
        "test": "0.962 (0.951–0.973)",
        "95% of one seed": "0.937–0.977",
        "errors": "10–18",
        "rate": "0.003",
        "params": "1,234",
        "time": "2 s",
    }
    assert (lstm["test"], lstm["errors"]) == ("0.946", "20")
    assert anyone["test"] == "0.111" and anyone["held out"] == ""
    assert regression["errors"] == "16" and regression["held out"] == "0.930"


def test_the_verdict_is_of_the_arm_that_the_folds_chose():
    said = verdict(RESULTS)
    assert "chose GRU.\n" in said and "The median of 5 is 0.962: met." in said
    assert "2 utterances of 370 more than by regression" in said
    trials = [
        trial | {"accuracy": 0.96} if trial["arm"] == "LSTM" else trial
        for trial in RESULTS["trials"]
    ]
    said = verdict(RESULTS | {"trials": trials})
    assert (
        "chose LSTM.\n" in said
        and "of 3 is 0.946: too few to tell." in said
        and "4 utterances of 370 fewer" in said
    )


def test_a_claim_that_is_missed_is_said_to_be():
    rows = [row("GRU", seed, 340) for seed in range(5)]
    assert "The median of 5 is 0.919: not met." in verdict(RESULTS | {"rows": rows})


def test_equal_errors_are_told_apart_by_the_loss_and_what_diverged_loses():
    best = speech.best_trial([*RESULTS["trials"][1::-1], {"accuracy": 0.99, "loss": None}])
    assert best is RESULTS["trials"][0]
