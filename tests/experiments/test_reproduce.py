"""Protocols: every arm of every preset is a possible model; the table follows the paper's rule."""

from __future__ import annotations

import jax
import pytest

from experiments.published import reproduce
from experiments.published.protocols import PROTOCOLS
from experiments.published.reproduce import COLUMNS, lines, verdict
from longlag.cli.arguments import plain_errors


@pytest.mark.parametrize("preset", ["cpu", "paper"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_arm_has_shapes(name: str, preset: str):
    protocol = PROTOCOLS[name]
    arms = protocol.question(preset).arms
    for job in {str(job): job for job in arms.values()}.values():
        batch = jax.eval_shape(lambda job=job: job.task.sample(jax.random.key(0), 2))

        def answer(batch, job=job):
            return job.model.answer(job.model.init(jax.random.key(0)), batch)

        assert jax.eval_shape(answer, batch).shape[:2] == batch.targets.shape[:2]
        for lag in job.lags:
            assert job.task.at_lag(lag).time_steps >= lag
    if preset == "cpu":
        assert set(protocol.published) <= set(arms), "a published number without an arm"
    assert protocol.source and protocol.rule and protocol.shrunk


def row(arm: str, seed: int, lag: int, accuracy: float):
    row = {"arm": arm, "seed": seed, "lag": lag, "train_lag": 40, "accuracy": accuracy}
    return row | {
        "exact_match": accuracy / 2,
        "kind": "dense",
        "solved_at": None,
        "budget": 3000,
        "parameters": 10,
        "state_bytes": 4,
        "seconds": 1.0,
        "floor": 0.5,
    }


def results(arm: str, by_seed: list[tuple[float, float]]):
    rows = []
    for seed, (short, long) in enumerate(by_seed):
        rows += [row(arm, seed, 40, 1.0), row(arm, seed, 64, short), row(arm, seed, 255, long)]
    meta = {"core_hours": 1.0}
    return {"rows": rows, "threshold": 0.99, "preset": "cpu", "meta": meta}


def test_the_best_seed_is_the_one_with_the_best_mean_over_lengths():
    found = results("parity, Elman", [(1.0, 0.5), (0.9, 0.7), (0.6, 0.6)])
    line = dict(zip(COLUMNS, lines("chomsky", found)[0]))
    assert (line["published"], line["by their rule"]) == ("100.0", "80.0")
    assert line["median"] == "75.0 (60.0–80.0)" and line["solved"] == "0/3"
    assert line["floor"] == "50.0"
    said = verdict("chomsky", found)
    assert PROTOCOLS["chomsky"].shrunk in said and "Accuracy in per cent" in said


def test_of_several_rates_the_best_seed_counts_and_the_best_rate_is_shown():
    rows = []
    for rate, of_rate in ((1e-4, [1.0, 0.2, 0.2]), (3e-4, [0.9, 0.8, 0.7])):
        made = results(f"parity, LSTM, {rate:g}", [(value, value) for value in of_rate])
        rows += [row | {"rate": rate} for row in made["rows"]]
    found = made | {"rows": rows, "preset": "paper"}
    ((arm, *cells),) = lines("chomsky", found)
    assert arm == "parity, LSTM, 0.0003"
    assert cells[:3] == ["100.0", "100.0", "80.0 (70.0–90.0)"]
    assert "Preset: paper." in verdict("chomsky", found)


def test_a_mean_of_exact_matches_where_the_source_took_that():
    found = results("4 items, GRU", [(1.0, 1.0), (0.5, 0.5)])
    line = dict(zip(COLUMNS, lines("cpustudy-selcopy", found)[0]))
    assert line["by their rule"] == "37.5"  # exact matches of .5 and .25
    assert line["floor"] == "", "the floor of an accuracy is none of exact matches"


def test_an_error_is_best_where_it_is_least():
    made = results("LSTM", [(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]) | {"floor": 1 / 6}
    made["rows"] = [
        row | {"loss": loss}
        for row, loss in zip([r for r in made["rows"] if r["lag"] == 40], (2e-3, 0.17, None))
    ]
    line = dict(zip(COLUMNS, lines("adding-400", made)[0]))
    assert line["by their rule"] == "2.0e-03" and line["solved"] == "1/3"
    assert line["median"] == "1.7e-01 (2.0e-03–inf)" and line["floor"] == "1.7e-01"
    assert "at most 0.01" in verdict("adding-400", made)


def test_the_list_names_every_protocol(capsys: pytest.CaptureFixture[str]):
    assert reproduce.main(list=True) == 0
    out = capsys.readouterr().out
    assert all(name[:6] in out for name in PROTOCOLS)


def test_an_unknown_protocol_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as error, plain_errors():
        reproduce.main(("chomski",))
    assert error.value.code == 2 and "chomsky" in capsys.readouterr().err
