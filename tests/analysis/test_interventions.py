"""Knock-outs take away what they say, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import LSTM
from longlag.analysis import interventions
from longlag.analysis.interventions import (
    BEYOND,
    KNOCK_OUTS,
    Silent,
    beyond,
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    hybrid = dataclasses.replace(
        PARITY,
        architecture=Architecture("full", width=8, depth=2),
        first_seed=3,
    )
    root = tmp_path_factory.mktemp("hybrid")
    folder = create(hybrid, root / "run", root, "run")
    found = carry_out(hybrid, folder)
    assert found is not None
    return folder.path, found["rows"]


def test_the_parts_of_a_run(trained):
    run, rows = trained
    parts = knock_outs(run)
    assert [(p["part"], p["seed"]) for p in parts] == [
        (part, seed) for part in ("none", *KNOCK_OUTS) for seed in (3, 4)
    ]
    near = [row["accuracy"] for row in rows if row["lag"] == 8]
    assert [p["accuracy"] for p in parts[:2]] == pytest.approx(near)


def test_each_seed_is_measured_at_a_lag_of_its_own(trained):
    run, rows = trained
    whole = [part for part in knock_outs(run, {3: 16, 4: 8}) if part["part"] == "none"]
    assert [(part["seed"], part["lag"]) for part in whole] == [(4, 8), (3, 16)]
    of_row = {(row["seed"], row["lag"]): row["accuracy"] for row in rows}
    assert [p["accuracy"] for p in whole] == pytest.approx([of_row[4, 8], of_row[3, 16]])
    assert {part["seed"] for part in knock_outs(run, {4: 8})} == {4}


def test_what_is_put_back_beyond_the_trained_length(trained):
    run, rows = trained
    parts = beyond(run, {3: 8, 4: 8}, 2)
    assert [(p["part"], p["seed"], p["lag"]) for p in parts] == [
        (part, seed, 16) for part in ("none", *BEYOND) for seed in (3, 4)
    ]
    far = [row["accuracy"] for row in rows if row["lag"] == 16]
    assert [p["accuracy"] for p in parts[:2]] == pytest.approx(far)
    # At the trained length nothing is changed but what sees positions not at all.
    for part in beyond(run, {3: 8, 4: 8}, 1):
        near = next(r for r in rows if (r["seed"], r["lag"]) == (part["seed"], 8))
        assert part["part"] == "no positions" or part["accuracy"] == pytest.approx(near["accuracy"])


def test_sharper_scores_are_those_of_larger_queries():
    _, params = drawn(LSTM(8), "full")
    scaled = interventions._scale_queries(params, 2.0)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, old), new in zip(leaves, jax.tree.leaves(scaled), strict=True):
        factor = 2.0 if "query" in jax.tree_util.keystr(path) else 1.0
        np.testing.assert_array_equal(new, factor * old)
    assert any("query" in jax.tree_util.keystr(path) for path, _ in leaves)


def test_a_recurrence_alone_has_its_state_alone(tmp_path: Path):
    folder = create(PARITY, tmp_path / "run", tmp_path, "run")
    assert carry_out(PARITY, folder) is not None
    seed = PARITY.first_seed
    assert [part["part"] for part in beyond(folder.path, {seed: 8}, 2)] == ["none", "young state"]
