"""The question of the order of words: scores by frame, differences with intervals, the table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("home_assistant_intents", reason='pip install "longlag[data]"')

from experiments.real_data import intent_order as asked
from longlag import LSTM
from longlag.data.intent_order import FRAMES
from longlag.runs import Architecture, Experiment
from longlag.tasks import IntentOrder

TASK = IntentOrder(per_frame=40)
PARTS = {part: dataclasses.replace(TASK, part=part) for part in asked.HELD_OUT}


class Knows:
    """In place of a trained run: right at the last word in frames up to one, which is its seed."""

    def __init__(self) -> None:
        self.model = self

    def of_seed(self, seed: int) -> int:
        return seed

    def apply(self, seed: int, tokens: Any, *, mask: Any) -> tuple[None, jax.Array]:
        commands = TASK.corpus.commands
        held = next(p for p in PARTS.values() if len(p.rows) == len(tokens))
        np.testing.assert_array_equal(tokens.shape, held.corpus.tokens[held.rows].shape)
        labels, frames = commands.labels[held.rows], commands.frames[held.rows]
        labels = jnp.where(frames <= seed, labels, (labels + 1) % 8)
        last = jnp.arange(mask.shape[1]) == mask.sum(1, keepdims=True) - 1
        one_hot = jax.nn.one_hot(labels, 8)[:, None]
        return None, jnp.where(last[..., None], one_hot, 1 - one_hot)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    job = Experiment(TASK, LSTM(4), Architecture(width=4, depth=1), seeds=2, first_seed=11)
    arms = {"LSTM": job, "GRU": dataclasses.replace(job, seeds=1)}
    rows = [
        {"arm": arm, "seed": seed, "accuracy": 0.5, "rate": 1e-3, "parameters": 10}
        | {"state_bytes": 8, "seconds": 1.0}
        for arm, job in arms.items()
        for seed in job.seed_numbers
    ]
    rows[-1]["accuracy"] = None  # it diverged
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asked, "load", lambda folder: Knows())
        patch.setattr(asked, "fit_bags", constant)
        scored = asked.score_held_out(arms, rows, Path("nowhere"))
    return {"rows": rows, "meta": {"core_hours": 1.0}, **scored}


def constant(known: list[str], labels: np.ndarray, held: list[str]) -> dict[str, np.ndarray]:
    """One of the two devices of each pair, as a bag of words has it."""
    assert (len(known), len(held)) == (len(labels), 4800) == (18 * 80, 4800)
    commands = TASK.corpus.commands
    rows = np.concatenate([part.rows for part in PARTS.values()])
    assert held == [commands.texts[i] for i in rows]
    return {"bag of words": commands.labels[rows // 2 * 2]}


def test_every_command_is_scored_at_its_last_word(results: dict[str, Any]):
    by_seed = {(s["seed"], s["part"]): s for s in results["scores"] if s["arm"] == "LSTM"}
    for (seed, _), score in by_seed.items():
        assert score["right"] == score["both"]
        assert all(share == (FRAMES.index(f) <= seed) for f, share in score["right"].items())
    assert {len(s["right"]) for s in by_seed.values()} == {18, 6}
    bag = [s for s in results["scores"] if s["arm"] == asked.WORDS]
    assert [s["part"] for s in bag] == [*asked.HELD_OUT]
    assert all({*s["right"].values()} == {0.5} and {*s["both"].values()} == {0} for s in bag)


def test_differences_are_of_the_means_of_the_seeds(results: dict[str, Any]):
    first, second = results["differences"]
    assert (first["arm"], first["than"], first["part"]) == ("LSTM", asked.WORDS, "combinations")
    frames = [f for f in range(24) if f % 4]
    expected = np.mean([f <= 11 for f in frames] + [f <= 12 for f in frames]) - 0.5
    assert first["mean"] == pytest.approx(expected, abs=1e-4)
    assert first["low"] < 0 < first["high"], "half of the frames are right and half are wrong"
    assert second["mean"] == pytest.approx(np.mean([3, 4]) / 6 - 0.5, abs=1e-4)


def test_the_table_has_both_parts_of_every_arm(results: dict[str, Any]):
    table = [dict(zip(asked.COLUMNS, line)) for line in asked.lines(results)]
    assert [(line["arm"], line["held out"]) for line in table] == [
        (arm, name) for arm in ("LSTM", "GRU", asked.WORDS) for name in asked.HELD_OUT.values()
    ]
    assert table[0]["negation"] == "1.000" and table[0]["after or before"] == "0.000"
    assert table[1]["all"] == "0.583 (0.500–0.667)"
    assert table[2]["all"] == "diverged" and table[4]["all"] == "0.500"
    assert "Against the bag of words on new frames, not significant: LSTM." in (
        asked.verdict(results)
    )
    head, rows, _ = asked.difference_table(results)
    assert len(head) == 3 and rows[0][0] == "LSTM − bag of words"
