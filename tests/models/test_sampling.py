"""Drawing what comes next: streamed, it is what the whole sequence would have given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import LSTM
from longlag.models import build, sample
from tests.helpers.streams import drawn_like

V = 5
MODEL = build(inputs="tokens", in_features=V, out_features=V, cell=LSTM(4), attention="full",
              width=4, heads=1)  # fmt: skip
PROMPT = jnp.array([[1, 2, 3], [4, 0, 0]])


@pytest.fixture(scope="module")
def params():
    like = jax.eval_shape(MODEL.init, jax.random.key(0))
    return jax.tree.map(jnp.float32, drawn_like(like, np.random.default_rng(0)))


def test_at_no_temperature_each_token_is_the_likeliest_after_all_before(params):
    drawn = sample(MODEL, params, PROMPT, 6, jax.random.key(0), temperature=0)
    assert drawn.shape == (2, 6) and drawn.dtype == jnp.int32
    whole = jnp.concatenate([PROMPT, drawn], axis=1)
    _, answers = MODEL.apply(params, whole)
    assert np.array_equal(answers[:, 2:-1].argmax(-1), drawn)
    assert len(np.unique(drawn)) > 1, "a constant continuation would show nothing"


def test_draws_are_as_often_as_the_softmax_says(params):
    rows = jnp.repeat(PROMPT[:1], 4000, axis=0)
    _, answers = MODEL.apply(params, PROMPT[:1])
    for temperature in (0.5, 2.0):
        drawn = sample(MODEL, params, rows, 1, jax.random.key(1), temperature)[:, 0]
        shares = np.bincount(drawn, minlength=V) / 4000
        expected = jax.nn.softmax(answers[0, -1] / temperature)
        assert np.abs(shares - expected).max() < 0.03  # four standard errors


def test_bad_input_is_refused(params):
    key = jax.random.key(0)
    for change, message in (
        ({"prompt": PROMPT[:, :0]}, "at least one token"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"temperature": -1.0}, "temperature: expected at least 0"),
    ):
        given = {"prompt": PROMPT, "steps": 2, "temperature": 1.0} | change
        with pytest.raises(ValueError, match=message):
            sample(MODEL, params, given["prompt"], given["steps"], key, given["temperature"])
    other = build(inputs="tokens", in_features=V, out_features=2, cell=LSTM(4), width=4)
    with pytest.raises(ValueError, match="whose answers are its own inputs"):
        sample(other, params, PROMPT, 2, key)
