"""The parts of attention: softmax and rotary positions; what is never made; what is refused."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from longlag.attention import Additive, DotProduct, rotate
from longlag.attention import additive as additive_module
from longlag.attention.cache import masked_softmax
from longlag.testing.running import jit
from tests.helpers.attention_oracle import turned
from tests.helpers.streams import drawn_like

D = 4
ADDITIVE = Additive(6)


def drawn(layer):
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), D))
    return drawn_like(shapes, np.random.default_rng(0))


# What is never made


def largest_intermediate(jaxpr) -> int:
    """The number of elements of the largest array in a jaxpr and all jaxprs within."""
    largest = 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            largest = max(largest, math.prod(getattr(variable.aval, "shape", ())))
        for inner in jaxprs_in_params(equation.params):
            largest = max(largest, largest_intermediate(inner))
    return largest


def largest_in_gradient(layer, steps: int, batch: int = 2) -> int:
    params = drawn(layer)
    gradient = jax.grad(lambda p, x: layer.apply(p, x)[1].sum(), argnums=(0, 1))
    made = jax.make_jaxpr(gradient)(params, jnp.ones((steps, batch, D)))
    return largest_intermediate(made.jaxpr)


def test_additive_attention_makes_no_array_of_all_pairs_and_features():
    steps, batch, width = 64, 2, 32
    block = batch * additive_module.QUERY_BLOCK * steps * width
    assert block < batch * steps * steps * width
    assert largest_in_gradient(Additive(width), steps, batch) == block


def test_a_window_makes_nothing_that_grows_with_the_square_of_the_length():
    layer = DotProduct(8, heads=2, window=4)
    assert largest_in_gradient(layer, 512) <= 2 * largest_in_gradient(layer, 256)


# Softmax and rotary positions


def test_the_softmax_sees_what_is_visible_only(rng):
    logits = rng.normal(size=(3, 5)).astype(np.float32)
    visible = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    logits[1, 1] = np.inf
    logits[0] += 1e4  # without the shift, an overflow
    weights, pull = jax.vjp(lambda x: masked_softmax(x, visible), logits)
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 0], rtol=1e-6)
    assert not np.any(np.asarray(weights)[~visible])
    (gradient,) = pull(jnp.ones_like(weights) * jnp.arange(5.0))
    assert np.all(np.isfinite(gradient))
    assert not np.any(np.asarray(gradient)[~visible])


def test_rotary_products_depend_on_the_difference_of_positions_only(rng, x64):
    q, k = rng.normal(size=(2, 1, 1, 2, 6))

    def at(x, position):
        return np.asarray(rotate(x, jnp.full((1, 1), position)))[0, 0]

    for shift in (1, 17, 4096):
        product = np.sum(at(q, 9 + shift) * at(k, 4 + shift), axis=-1)
        np.testing.assert_allclose(product, np.sum(at(q, 9) * at(k, 4), axis=-1), rtol=1e-9)
    assert not np.allclose(np.sum(at(q, 9) * at(k, 5)), np.sum(at(q, 9) * at(k, 4)))
    np.testing.assert_array_equal(at(q, 0), q[0, 0])
    layer = DotProduct(12, heads=2)
    np.testing.assert_allclose(at(q, 123), turned(layer, q.ravel(), 123), rtol=1e-12)


def test_angles_are_float32_under_bfloat16(rng):
    x = jnp.asarray(rng.normal(size=(1, 1, 2, 6)), jnp.bfloat16)
    got = rotate(x, jnp.full((1, 1), 1001))
    assert got.dtype == jnp.float32
    exact = turned(DotProduct(12, heads=2), np.asarray(x, np.float64).ravel(), 1001)
    np.testing.assert_allclose(got[0, 0], exact, atol=1e-3)

    layer = DotProduct(8, heads=2, window=2)
    params = drawn(layer)
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    state = layer.init_state(low, (1,), 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.entries)} == {np.dtype(np.float32)}
    xs = rng.normal(size=(4, 1, D)).astype(np.float32)
    apply = jit(layer.apply)
    _, near = apply(low, xs, state)
    after, far = apply(low, xs, state.replace(count=jnp.full((1,), 1000, jnp.int32)))
    assert far.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(after.entries)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(far, near, atol=2e-2)  # bfloat16 tells 1000 from 1004, no less


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DotProduct(6, heads=4), "multiple of 8 .*got 6"),
        (lambda: DotProduct(6, heads=4, positions="none"), r"multiple of 4 \(heads\), got 6"),
        (lambda: DotProduct(6, heads=2), "even width"),
        (lambda: DotProduct(8, heads=2, inner_features=6), "inner_features: .*of 4 .*got 6"),
        (lambda: DotProduct(8, heads=0), "heads: expected at least 1, got 0"),
        (lambda: DotProduct(8, positions="rotari"), "Did you mean 'rotary'"),
        (lambda: DotProduct(8, window=0), "window: expected at least 1, got 0"),
        (lambda: Additive(0), "features: expected at least 1, got 0"),
    ],
)
def test_impossible_attentions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": np.zeros((5, 2, D + 1))}, rf"\[T, B, {D}\].* got shape \(5, 2, {D + 1}\)"),
        ({"xs": np.zeros((5, 2))}, r"\(5, 2\)"),
        ({"xs": np.zeros(5)}, r"\(5,\)"),
        ({"mask": np.ones((2, 5), bool)}, r"mask: .*\(5, 2\).*got bool of shape \(2, 5\)"),
        ({"mask": np.ones((5, 2))}, "mask: .*got float64"),
        ({"resets": np.ones((5, 1), bool)}, r"resets: .*\(5, 1\)"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    params = drawn(ADDITIVE)
    arguments = {"xs": np.zeros((5, 2, D))} | change
    with pytest.raises(ValueError, match=message):
        ADDITIVE.apply(params, **arguments)
