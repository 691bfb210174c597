"""Prompts and sources of several lengths: each is answered as if it were alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU
from longlag.attention import DotProduct
from longlag.models import Seq2Seq, SequenceModel, generate, sample
from longlag.nn import Bidirectional, Dense, Layer, Recurrent, Residual, Stack
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, LAYERS, D
from tests.helpers.streams import drawn_like

V, STEPS = 16, 8
PROMPTS = [[3, 4, 1], [2, 15, 7]]
# The same prompts, padded at the left, at the right, on both sides and in between.
PADDED = [[9, 9, 3, 4, 1], [3, 4, 1, 9, 9], [9, 3, 4, 1, 9], [2, 9, 15, 9, 7]]
MASK = np.array(PADDED) != 9

# One of every way to keep the past and to count positions.
FEW: list[Layer] = [
    Recurrent(GRU(4)),
    *(ATTENTION_LAYERS[name] for name in ("additive-window-3", "full", "alibi-grouped")),
    ATTENTION_LAYERS["learned-multi-query"],
]
STREAMING = [layer for name, layer in LAYERS.items() if name != "bidirectional"]
ALL: list[Layer] = [
    *map(Recurrent, CELLS),
    *ATTENTION_LAYERS.values(),
    *BLOCKS.values(),
    *STREAMING,
    DotProduct(4, heads=2, positions="none"),
    DotProduct(4, heads=2, window=3, positions="alibi"),
]


def hybrid(layers: Sequence[Layer]) -> SequenceModel:
    """A model of all these layers: one program for all, and each sees what the others made."""
    mixers = tuple(Residual(Stack((layer, Dense(D)))) for layer in layers)
    return SequenceModel("tokens", V, D, mixers, V)


def weights(model):
    """Random parameters without biases, which would say the same everywhere."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    params = jax.tree.map(jnp.float32, drawn_like(shapes, np.random.default_rng(1)))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if path[-1].key == "bias" else 2 * leaf, params
    )


@pytest.mark.parametrize(
    "layers", [FEW, pytest.param(ALL, marks=pytest.mark.deep)], ids=["few", "all"]
)
def test_a_padded_prompt_is_continued_as_if_alone(layers):
    model = hybrid(layers)
    params, key = weights(model), jax.random.key(0)
    alone = np.asarray(sample(model, params, PROMPTS, STEPS, key, 0))
    padded = sample(model, params, PADDED, STEPS, key, 0, mask=MASK)
    assert np.array_equal(padded, alone[[0, 0, 0, 1]])
    assert not np.array_equal(*alone), "it would show nothing"
    read = sample(model, params, PADDED, STEPS, key, 0, mask=np.ones_like(MASK))
    assert not np.array_equal(read[:3], padded[:3])


def test_lists_are_padded_for_the_user():
    model = hybrid([Recurrent(GRU(4))])
    params, key = weights(model), jax.random.key(0)
    padded, mask = [[3, 4, 1, 0, 0], [2, 15, 7, 1, 1]], [[True] * 3 + [False] * 2, [True] * 5]
    rows = [[3, 4, 1], np.array([2, 15, 7, 1, 1])]
    expected = sample(model, params, padded, STEPS, key, 0.5, mask=np.array(mask))
    assert np.array_equal(sample(model, params, rows, STEPS, key, 0.5), expected)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "local" else pytest.mark.deep)
        for name, attention in ATTENTION_LAYERS.items()
        if attention.window is None
    ],
)
def test_a_padded_source_is_answered_as_if_alone(name):
    """The encoder reads from both ends, and attends to itself; the decoder attends to it."""
    encoder = (Bidirectional(GRU(2)), Residual(DotProduct(4, heads=2)), Bidirectional(GRU(2)))
    attention = ATTENTION_LAYERS[name]
    if isinstance(attention, DotProduct):  # an encoder's order is its own
        attention = dataclasses.replace(attention, positions="none")
    model = Seq2Seq("tokens", V, V, 4, encoder, (Recurrent(GRU(4)),), attention)
    params = weights(model)

    @jax.jit
    def run(sources, mask):
        return generate(model, params, sources, stop=0, max_length=STEPS, beams=2, mask=mask)

    alone, padded = run(np.array(PROMPTS), None), run(np.array(PADDED), MASK)
    assert np.array_equal(padded.tokens, alone.tokens[np.array([0, 0, 0, 1])])
    np.testing.assert_allclose(padded.log_probs, alone.log_probs[np.array([0, 0, 0, 1])], rtol=1e-4)
    assert not np.array_equal(alone.tokens[0], alone.tokens[1]), "it would show nothing"
    assert not np.array_equal(run(np.array(PADDED), np.ones_like(MASK)).tokens, padded.tokens)
