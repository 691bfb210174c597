"""Convolutions as products of patches beside flax's own; a captioner, whole and word by word."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from longlag import LSTM
from longlag.models import Pictures, Seq2Seq
from longlag.runs import Captioner
from tests.helpers.streams import close, drawn_like

SIDE, W, V, L, B = 8, 8, 6, 4, 3


@pytest.fixture(scope="module")
def captioner() -> Seq2Seq:
    task = type("Drawn", (), {"in_features": 3 * SIDE, "out_features": V})
    return Captioner("additive", width=W).build(task, LSTM(5))  # type: ignore[arg-type]


def drawn(captioner: Seq2Seq):
    """Parameters, none of them zero, pictures and targets."""
    rng = np.random.default_rng(0)
    params = drawn_like(jax.eval_shape(captioner.init, jax.random.key(0)), rng)
    return params, rng.random((B, SIDE, 3 * SIDE)), rng.integers(0, V, (B, L))


class Convolutions(linen.Module):
    """The oracle: flax's own convolutions."""

    @linen.compact
    def __call__(self, x):
        for i, (features, stride) in enumerate(((W // 4, 2), (W // 2, 2), (W, 1))):
            x = linen.Conv(features, (3, 3), strides=stride, name=f"conv{i}")(x)
            x = linen.relu(linen.LayerNorm(name=f"norm{i}")(x))
        return x


def test_regions_and_gradients_are_those_of_convolutions(captioner: Seq2Seq, x64):
    params, pictures, _ = drawn(captioner)
    params, layer = params["source"], captioner.source
    gradient = np.random.default_rng(1).normal(size=(4, B, W))

    def ours(params, pictures):
        return layer.apply(params, pictures)[0]

    def theirs(params, pictures):
        named = {}
        for i in range(3):
            dense = params[f"_Convolution_{i}"]["Dense_0"]
            features = dense["bias"].shape[0]
            kernel = dense["kernel"].reshape(3, 3, -1, features)
            named[f"conv{i}"] = {"kernel": kernel, "bias": dense["bias"]}
            named[f"norm{i}"] = params[f"LayerNorm_{i}"]
        found = Convolutions().apply({"params": named}, pictures.reshape(B, SIDE, SIDE, 3))
        return jnp.moveaxis(found.reshape(B, 4, W), 0, 1)

    (one, mine), (other, flax) = (
        jax.jit(
            lambda p, x, run=run: (run(p, x), jax.grad(lambda p: (run(p, x) * gradient).sum())(p))
        )(params, pictures)
        for run in (ours, theirs)
    )
    close(one, other)
    jax.tree.map(close, mine, flax)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(mine))


def test_word_by_word_is_the_whole_and_the_mean_is_all_that_the_other_arm_knows(
    captioner: Seq2Seq, x64
):
    params, pictures, targets = drawn(captioner)

    @jax.jit
    def run(params, pictures, targets):
        encoded = captioner.encode(params, pictures)
        state = captioner.init_state(params, B, L)

        def step(state, token):
            state, answers = captioner.decode(params, encoded, token, state)
            return state, answers[:, 0]

        stepped = jax.lax.scan(step, state, captioner.shift_right(targets).T[:, :, None])[1]
        answers = captioner.apply(params, pictures, targets)
        looked = captioner.alignment(params, pictures, targets)
        return jnp.swapaxes(stepped, 0, 1), answers, encoded.summary, looked

    stepped, answers, summary, looked = run(params, pictures, targets)
    close(stepped, answers)
    assert looked.shape == (B, L, 4)
    np.testing.assert_allclose(looked.sum(axis=-1), 1)
    regions = captioner.source.apply(params["source"], jnp.asarray(pictures))[0]
    kernel, bias = (params["summary"][name] for name in ("kernel", "bias"))
    close(summary, np.asarray(regions).mean(axis=0) @ kernel + bias)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="in_features: expected a multiple of 12, got 10"):
        Pictures(10, 8)
    with pytest.raises(ValueError, match="width: expected at least 4, got 3"):
        Pictures(24, 3)
    layer = Pictures(24, 8)
    apply = functools.partial(layer.apply, layer.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"pictures of shape \[B, 8, 24\]; got .* \(2, 4, 24\)"):
        apply(jnp.zeros((2, 4, 24)))
    with pytest.raises(ValueError, match="mask: expected None"):
        apply(jnp.zeros((2, 8, 24)), jnp.ones((2, 8), bool))
