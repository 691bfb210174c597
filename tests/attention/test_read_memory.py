"""Attention over what an encoder left, against the oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.attention import Additive, Attention, DotProduct, Local, Multiplicative
from longlag.testing.running import jit
from tests.helpers.attention_oracle import attend_source
from tests.helpers.streams import close, drawn_like

T, B, S, D, E = 20, 3, 6, 4, 5  # T: more than one block of queries of additive attention
LAYERS = {
    "additive": Additive(7),
    "general": Multiplicative(D),
    "dot": Multiplicative(D, score="dot"),
    "heads": DotProduct(5, heads=4, kv_heads=2, inner_features=8, positions="none"),
    "local-general": Local(3, attention=Multiplicative(D), radius=2),
    "local-heads": Local(3, attention=DotProduct(8, heads=2, positions="none"), radius=1),
}


def drawn(layer: Attention, width: int):
    rng = np.random.default_rng(0)
    params = drawn_like(jax.eval_shape(lambda: layer.init(jax.random.key(0), D, width)), rng)
    mask = np.arange(S) < np.array([[S], [4], [0]])
    mask[0, 2] = False
    source = rng.normal(size=(B, S, width))
    return params, rng.normal(size=(T, B, D)), source, mask, rng


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_reads_as_the_oracle_does(layer, x64):
    width = D if layer == LAYERS["dot"] else E
    params, xs, source, mask, rng = drawn(layer, width)
    expected, weights = attend_source(layer, params, xs, source, mask)
    gradient = rng.normal(size=expected.shape)

    @jit
    def run(params, xs, source, mask):
        def outputs(params, xs, source):
            memory = layer.write_memory(params, source, mask)
            return layer.read_memory(params, xs, memory)

        ys, pull, alpha = jax.vjp(outputs, params, xs, source, has_aux=True)
        return ys, alpha, pull(gradient)

    # What is not read may be anything.
    spoilt = np.where(mask[..., None], source, np.nan)
    got, alpha, pulled = run(params, xs, spoilt, mask)
    close(got, expected)
    close(alpha, weights)
    assert np.all(np.asarray(pulled[2])[~mask] == 0)
    point = (params, xs, source)
    leaves, structure = jax.tree.flatten(point)
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(pulled))):
        direction = rng.normal(size=leaf.shape)
        moved = [x + 1e-30j * direction if i == j else x for j, x in enumerate(leaves)]
        ys = attend_source(layer, *jax.tree.unflatten(structure, moved), mask)[0]
        wanted = np.sum(ys.imag * gradient) / 1e-30
        assert abs(wanted) > 1e-3
        np.testing.assert_allclose(np.sum(np.asarray(slope) * direction), wanted, 1e-9, 1e-9)


def test_a_source_that_is_not_finite_spoils_its_own_row():
    layer = Additive(7)
    params = layer.init(jax.random.key(0), D, E)
    xs, source = jnp.ones((T, B, D)), jnp.ones((B, S, E)).at[1, 2, 0].set(jnp.nan)
    ys, _ = layer.read_memory(params, xs, layer.write_memory(params, source))
    np.testing.assert_array_equal(jnp.isnan(ys).all((0, 2)), [False, True, False])
    assert jnp.isfinite(ys[:, 0]).all() and jnp.isfinite(ys[:, 2]).all()


def test_positions_mean_nothing_over_an_encoder():
    layer = DotProduct(8, heads=2)
    with pytest.raises(ValueError, match="positions: expected 'none' over an encoder, got 'rotary"):
        layer.write_memory(layer.init(jax.random.key(0), D, E), jnp.ones((B, S, E)))


def test_the_dot_score_needs_equal_widths():
    with pytest.raises(ValueError, match="expected a memory as wide as its inputs, 4; got 5"):
        Multiplicative(D, score="dot").init(jax.random.key(0), D, E)


def test_local_refuses_a_window_and_no_radius():
    with pytest.raises(ValueError, match=r"Local\.window: expected None"):
        Local(3, attention=Additive(3, window=2))
    with pytest.raises(ValueError, match=r"Local\.radius: expected at least 1, got 0"):
        Local(3, attention=Additive(3), radius=0)
