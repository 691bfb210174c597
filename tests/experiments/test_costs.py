"""What a token costs: what is timed is the model as it answers, and shares are of one sequence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import costs
from experiments.harness.rates import folder
from longlag.runs import Architecture, carry_out, create, load
from longlag.training import evaluation_batch
from tests.helpers.tiny import PARITY

pytestmark = pytest.mark.usefixtures("shared_compilations")

FULL = Architecture("full", width=8, depth=2)
ARMS = {"LSTM": PARITY, "LSTM + attention": dataclasses.replace(PARITY, architecture=FULL)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """The folder of both arms, and their rows."""
    out, rows = tmp_path_factory.mktemp("costs"), []
    for arm, job in ARMS.items():
        results = carry_out(job, create(job, out / folder(arm), out, arm))
        assert results is not None
        rows += [row | {"arm": arm} for row in results["rows"]]
    return out, rows


def test_shares_are_of_one_sequence_and_bytes_those_of_the_state(
    trained: tuple[Path, list], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(costs, "ROUNDS", 2)
    # Round by round: the six contestants take a second in the first, three in the other.
    monkeypatch.setattr(costs, "_time_round", lambda run: next(seconds))
    seconds = iter([1.0] * 6 + [3.0] * 6)
    out, rows = trained
    found = costs.measure_costs(ARMS, rows, out)["costs"]
    assert [cost["arm"] for cost in found] == [*ARMS]
    for cost, job in zip(found, ARMS.values()):
        assert (cost["batch"], cost["length"], cost["longest"]) == (4, 8, 16)
        for what, tokens in (("at_once", 32), ("at_once_longest", 64), ("streamed", 16)):
            each = cost[f"{what}_us"]
            assert each == pytest.approx([1e6 / tokens, 2e6 / tokens], abs=1e-3)
        params = job.model.init(jax.random.key(0))
        for key, length in (("state_bytes", 8), ("state_longest_bytes", 16)):
            state = job.model.init_state(params, 1, length)
            assert cost[key] == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    lines = costs.cost_lines({"costs": found})
    assert all(len(line) == len(costs.COLUMNS) for line in lines)
    # A key and a value of eight features each, and whether they are there.
    assert [line[-1] for line in lines] == ["0 B", f"{2 * 8 * 4 + 4} B"]
    assert "LSTM + attention" in capsys.readouterr().out


@pytest.mark.parametrize("arm", ARMS)
def test_what_is_streamed_answers_as_what_is_read_at_once(trained: tuple[Path, list], arm: str):
    loaded = load(trained[0] / folder(arm))
    inputs = evaluation_batch(PARITY.task.at_lag(16), 3, "test").inputs
    at_once, tokens = costs._read_at_once(loaded.model, loaded.of_seed(), inputs)
    streamed, steps = costs._stream(loaded.model, loaded.of_seed(), inputs[:1])
    assert (tokens, steps) == (48, 16)
    for _ in range(2):  # a run begins anew
        np.testing.assert_allclose(streamed()[0, 0], at_once()[0, -1], rtol=2e-5, atol=1e-6)
    assert jnp.abs(at_once()).max() > 0


def test_a_round_is_the_mean_of_what_fills_it(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 0.02, 0.04])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    assert costs._time_round(lambda: None) == pytest.approx(0.02)


def test_nothing_is_said_where_nothing_was_timed():
    assert costs.note({}) == "" and costs.cost_lines({}) == []
