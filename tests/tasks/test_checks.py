"""A task that does not draw what it declares is refused, before anything is trained on it."""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from longlag import GRU
from longlag.runs import Architecture, Experiment, RunFolder, carry_out
from longlag.tasks import Batch, Floor, Task
from longlag.tasks.batch_checks import check_shapes, check_values
from longlag.testing import check_task
from longlag.testing.tasks import check_keys
from longlag.training import Training


class Maximum(Task):
    """The greatest token so far, asked at the last step."""

    length: int = 6
    symbols: int = 5

    lag_field = "length"

    @property
    def time_steps(self) -> int:
        return self.length

    @property
    def in_features(self) -> int:
        return self.symbols

    @property
    def out_features(self) -> int:
        return self.symbols

    @property
    def weighted_steps(self) -> int | None:
        return 1

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        tokens = jax.random.randint(key, (batch_size, self.length), 0, self.symbols, jnp.int32)
        last = jnp.broadcast_to(jnp.arange(self.length) == self.length - 1, tokens.shape)
        targets = jnp.where(last, tokens.max(axis=1, keepdims=True), 0)
        return Batch(tokens, targets, last.astype(jnp.float32), last, None)

    def floor(self) -> Floor:
        return Floor(1.0, 0.7, "the greatest symbol")

    def picture(self) -> str:
        return "0 3 1 -> 3"


def test_a_sound_task_is_let_through():
    check_task(Maximum())


class Changed(Maximum):
    """The same with one part of the batch changed."""

    part: str = ""

    CHANGES: ClassVar = {
        "column of targets": lambda b: b.replace(targets=b.targets[:, :1]),
        "real inputs": lambda b: b.replace(inputs=b.inputs.astype(jnp.float32)),
        "no scored": lambda b: b.replace(scored=jnp.zeros_like(b.scored)),
        "None scored": lambda b: b.replace(scored=None),
        "no weights": lambda b: b.replace(weights=jnp.zeros_like(b.weights)),
        "negative weights": lambda b: b.replace(weights=b.weights - 1.0),
        "all weights": lambda b: b.replace(weights=jnp.ones_like(b.weights)),
        "great inputs": lambda b: b.replace(inputs=b.inputs + 3),
        "great targets": lambda b: b.replace(targets=b.targets + 3),
        "negative targets": lambda b: b.replace(targets=b.targets - 4),
        "masked answers": lambda b: b.replace(mask=~b.scored),
        "a mask of numbers": lambda b: b.replace(mask=b.weights),
        "a tuple": lambda b: (b.inputs, b.targets),
        "left-over targets": lambda b: b.replace(targets=jnp.ones_like(b.targets)),
        "doubles": lambda b: b.replace(weights=b.weights.astype(jnp.float16)),
    }

    def sample(self, key, batch_size):
        return self.CHANGES[self.part](super().sample(key, batch_size))


MESSAGES = {
    "column of targets": r"targets of dtype int32 and shape \(2, 6\); got int32 of shape \(2, 1\)",
    "real inputs": r"inputs of dtype int32 and shape \(2, 6\); got float32",
    "no scored": "expected a scored step in each sequence; got none",
    "None scored": r"scored of dtype bool and shape \(2, 6\); got None",
    "no weights": "expected a weight at every scored step; got 64 scored without one",
    "negative weights": "expected finite weights of at least 0; got -1 to 0",
    "all weights": r"expected 1 weighted steps in every sequence \(weighted_steps\); got 6 to 6",
    "great inputs": r"expected inputs of 0 to 4 \(in_features - 1\); got 3 to 7",
    "great targets": r"expected weighted targets of 0 to 4 \(out_features - 1\); got \d to 7",
    "negative targets": r"expected weighted targets of 0 to 4 \(out_features - 1\); got -\d to 0",
    "masked answers": "expected weights at real steps alone; got 64 where the mask is false",
    "a mask of numbers": r"mask of dtype bool and shape \(2, 6\); got float32",
    "a tuple": "expected a Batch from sample, got tuple",
}
CONVENTIONS = {
    "left-over targets": "expected targets of zero where the weight is zero",
    "doubles": "expected int32, float32 or bool, got float16",
}


@functools.cache
def drawn(task: Task) -> Batch:
    return task.sample(jax.random.key(0), 64)


@pytest.mark.parametrize("part", MESSAGES)
def test_what_is_not_as_declared_is_refused(part):
    task = Changed(part=part)
    with pytest.raises(ValueError, match=rf"Changed\(length=6.*{MESSAGES[part]}"):
        check_shapes(task)
        check_values(task, drawn(task))


@pytest.mark.parametrize("part", CONVENTIONS)
def test_what_a_run_lets_through_the_contract_refuses(part):
    task = Changed(part=part)
    check_shapes(task)
    check_values(task, drawn(task))
    with pytest.raises(AssertionError, match=CONVENTIONS[part]):
        check_task(task)


def test_steps_that_are_not_as_many_as_declared_are_refused():
    class Longer(Maximum):
        @property
        def time_steps(self):
            return self.length + 1

    expected = (
        r"of 2 sequences of 7 steps \(time_steps\) inputs .* \(2, 7\); got int32 of shape \(2, 6"
    )
    with pytest.raises(ValueError, match=expected):
        check_shapes(Longer())


def test_a_batch_of_more_than_its_key_is_found():
    class Counting(Maximum):
        def sample(self, key, batch_size):
            calls.append(key)
            batch = super().sample(key, batch_size)
            return batch.replace(inputs=(batch.inputs + len(calls)) % self.symbols)

    class Deaf(Maximum):
        def sample(self, key, batch_size):
            return super().sample(jax.random.key(0), batch_size)

    calls: list[jax.Array] = []
    with pytest.raises(AssertionError, match="the same batch without jit"):
        check_keys(Counting())
    with pytest.raises(AssertionError, match="other inputs from another key"):
        check_keys(Deaf())


def test_values_need_a_tolerance():
    class Exact(Maximum):
        targets_kind = "values"

        @property
        def out_features(self):
            return 1

        def sample(self, key, batch_size):
            batch = super().sample(key, batch_size)
            return batch.replace(targets=batch.targets[..., None].astype(jnp.float32))

    class Near(Exact):
        tolerance = 0.5

    check_task(Near())
    with pytest.raises(AssertionError, match="expected a tolerance above 0"):
        check_task(Exact())


def test_a_floor_that_is_none_and_an_empty_picture_are_found():
    class Bottomless(Maximum):
        def floor(self):
            return Floor(float("inf"), 0.7, "nobody")

    class Blank(Maximum):
        def picture(self):
            return " "

    with pytest.raises(AssertionError, match="floor: got Floor"):
        check_task(Bottomless())
    with pytest.raises(AssertionError, match="expected a picture"):
        check_task(Blank())


@pytest.mark.parametrize("part", ["column of targets", "great targets"])
def test_nothing_is_trained_on_it(part, tmp_path, monkeypatch):
    monkeypatch.setattr("longlag.runs.lifecycle.init_states", lambda *_: pytest.fail("begun"))
    run = Experiment(Changed(part=part), GRU(4), Architecture(width=4), Training(steps=2), 1)
    folder = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(ValueError, match=MESSAGES[part]):
        carry_out(run, folder)


@pytest.mark.parametrize("name", ["", "lenght"])
def test_a_lag_dial_that_is_not_there_is_refused_when_an_experiment_is_made(name):
    class Dialless(Maximum):
        lag_field = name

    expected = rf"Dialless.lag_field: expected .*one of length, symbols; got '{name}'"
    with pytest.raises(ValueError, match=expected):
        Experiment(Dialless(), GRU(4), Architecture(width=4))


def test_of_an_impossible_lag_it_is_said_which():
    with pytest.raises(ValueError, match=r"lag 1: expected length >= 2, got .*Short"):

        class Short(Maximum):
            def __post_init__(self):
                self.require(self.length >= 2, "length >= 2")

        Experiment(Short(), GRU(4), Architecture(width=4), test_lags=(1,))
