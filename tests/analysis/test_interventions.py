"""Knock-outs take away what they say, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import LSTM
from longlag.analysis.interventions import (
    KNOCK_OUTS,
    Silent,
    change_layers,
    deafen,
    knock_outs,
    replace_layers,
    silence,
)
from longlag.attention import DotProduct
from longlag.models import build
from longlag.nn import Recurrent, Repeated
from longlag.runs import Architecture, carry_out, create
from tests.helpers.tiny import PARITY

pytestmark = pytest.mark.usefixtures("shared_compilations")

OPTIONS = {"inputs": "tokens", "in_features": 5, "out_features": 3, "width": 8}


def drawn(cell, attention, **options):
    model = build(cell=cell, attention=attention, **OPTIONS, **options)
    params = model.init(jax.random.key(0))
    # A fresh head answers zero everywhere.
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    return model, params


def answers(model, params, resets=None):
    tokens = jax.random.randint(jax.random.key(2), (2, 9), 0, 5)
    return np.asarray(jax.jit(model.apply)(params, tokens, resets=resets)[1])


@pytest.fixture
def resets():
    return jnp.zeros((2, 9), bool).at[:, 5].set(True)


def test_a_silent_attention_is_one_whose_output_kernel_is_zero():
    model, params = drawn(LSTM(8), "full", depth=3, mlp=8)
    found = answers(change_layers(model, silence), params)
    assert not np.allclose(found, answers(model, params))
    kernel = params["layers"]["1"]["0"]["inner"]["out"]
    kernel["kernel"] = jnp.zeros_like(kernel["kernel"])
    np.testing.assert_array_equal(found, answers(model, params))


def test_attention_does_not_hear_of_a_reset_and_a_recurrence_does(resets):
    model, params = drawn(None, "full", convolution=4)
    deaf = change_layers(model, deafen)
    np.testing.assert_array_equal(answers(deaf, params, resets), answers(model, params))
    assert not np.allclose(answers(model, params, resets), answers(model, params))
    model, params = drawn(LSTM(8), "none")
    assert change_layers(model, deafen) == model


def test_layers_are_found_in_runs_of_equal_ones():
    model, _ = drawn(None, "full", depth=3)
    (run,) = change_layers(model, silence).layers
    assert isinstance(run, Repeated) and isinstance(run.inner.inner, Silent)
    assert isinstance(run.inner.inner.inner, DotProduct)
    assert replace_layers(Recurrent(LSTM(8)), silence) == Recurrent(LSTM(8))


def test_the_parts_of_a_run(tmp_path: Path):
    hybrid = dataclasses.replace(
        PARITY,
        architecture=Architecture("full", width=8, depth=2),
        first_seed=3,
    )
    folder = create(hybrid, tmp_path / "run", tmp_path, "run")
    found = carry_out(hybrid, folder)
    assert found is not None
    parts = knock_outs(folder.path)
    assert [(p["part"], p["seed"]) for p in parts] == [
        (part, seed) for part in ("none", *KNOCK_OUTS) for seed in (3, 4)
    ]
    near = [row["accuracy"] for row in found["rows"] if row["lag"] == 8]
    assert [p["accuracy"] for p in parts[:2]] == pytest.approx(near)
