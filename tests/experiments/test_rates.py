"""Choosing learning rates: by accuracy, if tied by loss, from a grid that grows where it must."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from experiments.harness import rates
from experiments.harness.rates import TRIAL_SEEDS, choose_rates, folder, trial
from experiments.harness.recorded import RESULTS
from tests.helpers.tiny import PARITY

JOB = dataclasses.replace(PARITY, training=dataclasses.replace(PARITY.training, steps=30))


FAILED = 0.125  # the loss of the step before the one that was not finite


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    loss_of,
    grid=(1e-3, 3e-3, 1e-2),
    accuracy_of=lambda arm, rate: 0.5,
):
    """What is chosen if a rate leads to these: the arms, the trials, and the sweeps made."""
    asked: list[list[tuple[float, ...]]] = []

    def sweep(jobs, out: Path, workers: int):
        asked.append([job.rates for job in jobs.values()])
        assert out.name == "rates" and all(job.seeds == TRIAL_SEEDS for job in jobs.values())
        found = {}
        for name, job in jobs.items():
            arm, curves, rows = name.partition("-rates-")[0], [], []
            for label in job.labels:
                loss = loss_of(arm, label["rate"])
                accuracy = accuracy_of(arm, label["rate"])
                curves.append(label | {"validation_loss": [9.0, loss], "accuracy": [0.0, accuracy]})
                rows.append(label | {"seconds": 1.0, "accuracy": None if loss == FAILED else 0.5})
            found[name] = {"curves": curves, "rows": rows}
        return found

    monkeypatch.setattr(rates, "sweep", sweep)
    arms, trials = choose_rates({"one": JOB, "two": JOB}, grid, Path("nowhere"), 1)
    return arms, trials, asked


def valley(bottom: float):
    """A loss that is least at one rate."""
    return lambda rate: abs(math.log(rate / bottom))


def test_the_least_loss_wins_and_the_table_takes_other_seeds(monkeypatch: pytest.MonkeyPatch):
    arms, trials, asked = chosen(monkeypatch, lambda arm, rate: valley(3e-3)(rate))
    assert len(asked) == 1 and [t["rate"] for t in trials if t["chosen"]] == [3e-3, 3e-3]
    for job in arms.values():
        assert job.training.learning_rate == 3e-3
        assert job.seed_numbers == range(TRIAL_SEEDS, TRIAL_SEEDS + JOB.seeds)
        assert job.training.steps == JOB.training.steps


def test_accuracy_wins_over_loss(monkeypatch: pytest.MonkeyPatch):
    right = {1e-3: 0.39, 3e-3: 0.2, 1e-2: 0.17}
    arms, *_ = chosen(
        monkeypatch, lambda arm, rate: -rate, accuracy_of=lambda arm, rate: right.get(rate, 0.1)
    )
    assert {job.training.learning_rate for job in arms.values()} == {1e-3}


def test_of_tied_accuracies_the_least_loss_wins(monkeypatch: pytest.MonkeyPatch):
    right = {1e-3: 0.39, 3e-3: 0.39 - rates.TIED / 2, 1e-2: 0.3}
    arms, _, asked = chosen(
        monkeypatch, lambda arm, rate: -rate, accuracy_of=lambda arm, rate: right[rate]
    )
    assert {job.training.learning_rate for job in arms.values()} == {3e-3} and len(asked) == 1


def test_a_grid_grows_where_accuracy_rises_at_its_end(monkeypatch: pytest.MonkeyPatch):
    arms, _, asked = chosen(
        monkeypatch, lambda *_: 1.0, accuracy_of=lambda arm, rate: 0.9 - 200 * abs(rate - 3e-4)
    )
    assert asked[1:] == [[(3e-4,), (3e-4,)], [(1e-4,), (1e-4,)]]
    assert {job.training.learning_rate for job in arms.values()} == {3e-4}


# The results whose rates were chosen by this rule; speech has one of its own.
RECORDED = {
    path.parent.name: json.loads(path.read_text()).get("trials", [])
    for path in sorted(RESULTS.glob("*/cpu.json"))
    if path.parent.name != "speech"
}


@pytest.mark.parametrize("name", [name for name, trials in RECORDED.items() if trials])
def test_what_is_recorded_was_chosen_so(name: str):
    trials = RECORDED[name]
    for arm in {found["arm"] for found in trials}:
        of_arm = {found["rate"]: found for found in trials if found["arm"] == arm}
        assert [rate for rate, found in of_arm.items() if found["chosen"]] == [
            rates.best_rate(of_arm)
        ]


def test_the_grid_of_an_arm_is_one_run(monkeypatch: pytest.MonkeyPatch):
    *_, asked = chosen(monkeypatch, lambda arm, rate: valley(3e-3)(rate))
    assert asked == [[(1e-3, 3e-3, 1e-2)] * 2]


def test_a_grid_grows_at_the_end_where_the_best_lies(monkeypatch: pytest.MonkeyPatch):
    low, high = valley(1e-4), valley(3e-2)
    losses = {"one": low, "two": high}
    arms, _, asked = chosen(monkeypatch, lambda arm, rate: losses[arm](rate))
    assert asked[1:] == [[(3e-4,), (3e-2,)], [(1e-4,), (1e-1,)], [(3e-5,)]]
    found = [job.training.learning_rate for job in arms.values()]
    assert found == pytest.approx([1e-4, 3e-2])


@pytest.mark.parametrize("loss", [0.0, 5.0])
def test_where_all_is_one_no_grid_grows(monkeypatch: pytest.MonkeyPatch, loss: float):
    arms, _, asked = chosen(monkeypatch, lambda arm, rate: loss - 1e-6 * math.log(rate))
    assert len(asked) == 1 and arms["one"].training.learning_rate == 1e-2


@pytest.mark.parametrize("last", [None, FAILED])
def test_a_rate_that_diverged_is_never_chosen(monkeypatch: pytest.MonkeyPatch, last: float | None):
    arms, trials, _ = chosen(monkeypatch, lambda arm, rate: last if rate > 1e-3 else 0.5)
    assert arms["one"].training.learning_rate < 3e-3
    assert {t["loss"] for t in trials if t["rate"] == 1e-2} == {None}


def test_the_ladder_ends(monkeypatch: pytest.MonkeyPatch):
    arms, *_ = chosen(monkeypatch, lambda arm, rate: valley(1e-9)(rate))
    assert arms["one"].training.learning_rate == rates.LADDER[0]


def test_a_trial_is_a_third_of_a_run_at_the_trained_lag():
    found = trial(JOB, (1e-3, 1e-2))
    assert found.training.steps == 10 and found.lags == (8,)
    assert found.rates == (1e-3, 1e-2) and found.seed_numbers == range(2)


def test_folders_are_names():
    assert folder("DeltaNet, negative + attention") == "deltanet-negative-attention"
