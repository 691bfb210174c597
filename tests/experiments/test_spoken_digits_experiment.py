"""Which digits are said? The run, its table and picture, and what is written of human voices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.harness import questions
from experiments.real_data import spoken_digits
from experiments.real_data.spoken_digits import (
    COLUMNS,
    Preset,
    best_arm,
    chances,
    lines,
    main,
    question,
    transcribe,
    verdict,
)
from longlag.cli.arguments import plain_errors
from longlag.runs import Experiment, load, run_job
from longlag.tasks.spoken_digits import PAUSE
from longlag.training import transcript

ARM = "GRU both ways + full"


def here(jobs: dict[str, Experiment], folder: Path, *_: object):
    return {name: run_job(name, job, folder) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def run(few_voices, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of it with one small arm and two seeds, in this process."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(spoken_digits.PRESETS, "quick", Preset(4, 2, ("feed-forward", ARM)))
        patch.setattr(spoken_digits, "WIDTH", 8)
        patch.setattr(questions, "sweep", here)
        assert main(["--preset", "quick", "--arms", ARM, "--out", str(out)]) == 0
    return out / "spoken-digits-quick"


def test_a_run_hears_every_recording_and_leaves_the_picture(run: Path, few_voices):
    results = json.loads((run / "results.json").read_text("utf-8"))
    assert [(row["seed"], row["lag"]) for row in results["rows"]] == [
        (0, 2), (1, 2), (0, 1), (1, 1)
    ]  # fmt: skip
    assert results["meta"]["command"].endswith("--preset quick --arms 'GRU both ways + full'")
    answers = results["answers"][ARM]
    assert [len(of_seed) for of_seed in answers] == [50, 50]
    # By another way: a recording alone, through the model, with nothing around it.
    loaded = load(run / "gru-both-ways-full")
    for seed, i in ((0, 0), (1, 37)):
        of_steps = chances(loaded, seed, [i // 10], np.array([[i % 10]]))
        np.testing.assert_allclose(of_steps.sum(axis=-1), 1, atol=1e-5)
        # Recording and the pauses around it; beyond the end there is nothing to be written.
        steps = few_voices.test.lengths[i // 10, i % 10] + 2 * int(PAUSE / 2)
        assert (of_steps[0, steps:, 0] == 1).all() and (of_steps[0, :steps, 0] < 1).all()
        row = np.asarray(transcript(of_steps, np.ones(of_steps.shape[:2], bool)))[0]  # type: ignore[arg-type]
        assert answers[seed][i] == "".join(str(c - 1) for c in row if c)
    assert (run / "plots" / "heard.png").stat().st_size > 10_000
    anyone, by_parts = results["floors"]
    assert anyone["human"] == 0.1 and 0.3 < by_parts["human"] < by_parts["synthetic"] < 1


RESULTS = {
    "rows": [
        {
            "arm": "A",
            "seed": seed,
            "lag": lag,
            "train_lag": 2,
            "seconds": 3.0,
            "parameters": 1234,
            "exact_match": 0.25 + seed / 2,
            "accuracy": 0.5,
        }
        for seed in (0, 1)
        for lag in (2, 1)
    ],
    # The first seed has all of English right and no more; the other all but Russian.
    "answers": {
        "A": [
            [str(i % 10) if i < 10 else "" for i in range(50)],
            [str(i % 10) if i < 40 else "12" for i in range(50)],
        ]
    },
    "synthetic": {"A": [0.5, 0.7]},
    "floors": [{"floor": "any digit", "synthetic": 0.1, "human": 0.1}],
    "meta": {"core_hours": 0.5},
}


def test_the_table_and_the_verdict():
    arm, floor = (dict(zip(COLUMNS, line, strict=True)) for line in lines(RESULTS))
    assert arm["human, of 50"] == "25 (10–40)" and arm["synthetic voices"] == "0.60"
    assert [arm[language] for language in ("en", "fr", "ru")] == ["10.0", "5.0", "0.0"]
    assert arm["two digits, human"] == "0.50" and arm["time"] == "3 s"
    assert arm["95% of one seed"] == "0.37–0.63", "Wilson's of 25 in 50"
    assert floor["human, of 50"] == "5" and floor["params"] == ""
    undefined = {"A": [[*RESULTS["answers"]["A"][0][:-1], "4NaN"], RESULTS["answers"]["A"][1]]}
    (line, _) = lines(RESULTS | {"answers": undefined})
    assert line[2] == "25 (10–40), 1 answered NaN"
    of_steps = np.eye(11)[[[0, 5, 5, 0, 3, 0]]]
    assert transcribe(of_steps) == ["42"]
    of_steps[0, 3, 7] = np.nan
    assert transcribe(of_steps) == ["4NaN2"]
    worse = {"worse": [["", *of_seed[1:]] for of_seed in RESULTS["answers"]["A"]]}
    assert best_arm(worse | RESULTS["answers"]) == best_arm(RESULTS["answers"] | worse) == "A"
    assert (
        "A writes down the most right, 25. That is more than the 5 that the any digit names"
        in verdict(RESULTS)
    )


def test_human_voices_are_heard(run: Path, capsys: pytest.CaptureFixture[str]):
    argv = ["--preset", "quick", "--out", str(run.parent)]
    assert main([*argv, "--hear", "it", "385"]) == 0
    said = capsys.readouterr().out
    assert f"the human voice of it says 3 8 5 ({ARM})" in said
    assert [line.split()[0] for line in said.splitlines()[2:]] == ["0", "1"]
    for wrong, message in (
        (["--hear", "de", "4"], "expected a language of en, es, fr, it, ru, got 'de'"),
        (["--hear", "it", "four"], "expected digits such as 47, got 'four'"),
        (["--hear", "it", "4", "--out", "no"], "run without --hear first"),
    ):
        with pytest.raises(SystemExit) as ended, plain_errors():
            main([*argv, *wrong])
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_every_arm_of_the_full_preset_is_possible():
    arms = question(spoken_digits.PRESETS["full"]).arms
    assert len(arms) == 4 and {job.seeds for job in arms.values()} == {3}
    assert {job.test_lags for job in arms.values()} == {(1,)}
