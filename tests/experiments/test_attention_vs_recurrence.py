"""The flagship: arms of equal parameters, its claim in words, and one arm from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

from experiments.harness.questions import script
from experiments.memory.attention_vs_recurrence import (
    AXES,
    CLAIMED,
    CLAIMED_ON,
    QUESTIONS,
    SUMMARY,
    WIDTHS,
    ask_options,
    claim,
    knock_out_lines,
    question,
    summary,
)
from longlag.models import mixer_parameters, mixers
from longlag.nn import Repeated


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
@pytest.mark.parametrize("axis", AXES)
def test_every_arm_is_possible_and_as_large_as_the_others(axis: str, preset: str):
    size = WIDTHS[preset]
    asked = question(axis, preset)
    for job in asked.arms.values():
        assert len(job.lags) == 3  # the task allows them
        layers = job.model.layers
        assert sum(la.count if isinstance(la, Repeated) else 1 for la in layers) == size.depth
        for layer in layers:
            for mixer in mixers(layer):
                count = mixer_parameters(mixer, size.width)
                assert abs(count - size.mixer) <= 0.05 * size.mixer, (mixer, count)
    seeds = {arm: job.seeds for arm, job in asked.arms.items()}
    ten = {arm for arm, count in seeds.items() if count == 10}
    assert ten == (set(CLAIMED) if axis in CLAIMED_ON else set())
    assert len(asked.arms) == (20 if axis in ("look-up", "both") else 10)


def test_every_arm_has_shapes():
    """With a convolution; the axes without it have the same arms."""
    for arm, job in question("look-up", "cpu").arms.items():
        if "convolution" in arm:
            batch = jax.eval_shape(lambda job=job: job.task.sample(jax.random.key(0), 2))

            def answer(batch, job=job):
                return job.model.answer(job.model.init(jax.random.key(0)), batch)

            assert jax.eval_shape(answer, batch).shape == (2, 32, 256)


def results(**held: tuple[int, int]):
    rows = [
        {"arm": arm, "seed": seed, "lag": 8, "train_lag": 8, "accuracy": float(seed < good)}
        for arm, (good, of) in held.items()
        for seed in range(of)
    ]
    return {"rows": rows, "threshold": 0.95}


def test_the_claim_is_met_by_nine_of_ten():
    assert CLAIMED == ("LSTM + attention", "DeltaNet negative")
    said = claim("track", results(**{"LSTM + attention": (9, 10), "DeltaNet negative": (8, 10)}))
    assert "Claim for LSTM + attention, made before the runs: at least 9 of 10 seeds. " in said
    assert "Result: 9 of 10, met." in said
    assert "at least 9 of 10 seeds. Result: 8 of 10, not met." in said
    few = claim("track", results(**{"LSTM + attention": (5, 5)}))
    assert "5 of 5, not met" in few, "five seeds are not the ten that were named"
    assert claim("hold", results(**{"LSTM + attention": (10, 10)})) == ""


def test_attention_adds_only_where_the_intervals_are_apart():
    apart = results(GRU=(0, 5), **{"GRU + attention": (5, 5)})
    assert "Attention helps GRU: 0 of 5 seeds without it, 5 of 5 with" in claim("hold", apart)
    assert "hurts GRU" in claim("hold", results(GRU=(5, 5), **{"GRU + attention": (0, 5)}))
    assert claim("hold", results(GRU=(2, 5), **{"GRU + attention": (5, 5)})) == ""


def test_the_summary_has_all_axes_and_the_convolution_beside():
    found = {
        "hold": results(GRU=(2, 5)),
        "look-up": results(GRU=(0, 5), **{"GRU, convolution": (4, 5)}),
        "both": results(**{"GRU, convolution": (1, 5), "GRU": (0, 5)}),
    }
    assert SUMMARY[-2:] == ("look-up with convolution", "both with convolution")
    assert summary(found) == [("GRU", "2/5", "", "0/5", "", "0/5", "4/5", "1/5")]


def test_tracking_counts_the_longer_lags_and_the_others_the_trained_one():
    found = results(GRU=(5, 5))
    found["rows"] += [row | {"lag": 32, "accuracy": 0.5} for row in found["rows"]]
    assert claim("hold", found) == "" and summary({"hold": found})[0][1] == "5/5"
    assert summary({"track": found})[0][4] == "0/5"


def test_knock_outs_are_a_line_for_each_arm():
    parts = [
        {"arm": "a", "seed": seed, "part": part, "lag": 8, "accuracy": accuracy}
        for seed in (0, 1)
        for part, accuracy in (
            ("none", 1.0),
            ("attention silent", 0.25),
            ("carry reset", 0.5 + 0.25 * seed),
            ("short window", 1.0),
        )
    ]
    assert knock_out_lines({"knock_outs": parts}) == [
        ("a", "1.00", "0.25", "0.62 (0.50–0.75)", "1.00")
    ]


@pytest.mark.usefixtures("shared_compilations")
def test_one_arm_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arm = "feed-forward"  # compiles in half the time of the others
    options = ("--preset", "smoke", "--arms", arm, "--out", str(tmp_path), "--workers", "1")
    script("attention-vs-recurrence", "", QUESTIONS, ask_options, ["track", *options])
    found = json.loads((tmp_path / "attention-vs-recurrence-track-smoke/results.json").read_text())
    assert [(r["arm"], r["lag"]) for r in found["rows"]] == [(arm, 40), (arm, 80), (arm, 160)]
    assert found["knock_outs"] == [] and "tracks a state" in capsys.readouterr().out


def test_an_unknown_axis_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as error:
        script("attention-vs-recurrence", "", QUESTIONS, argv=["lookup"])
    assert error.value.code == 2 and "look-up" in capsys.readouterr().err
