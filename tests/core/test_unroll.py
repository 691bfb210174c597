from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, Carry, Cell, DenseCell, MinGRU, scan_reference, unroll
from longlag.testing.running import assert_close

CELLS = [GRU(3), MinGRU(3)]


class Noisy(DenseCell):
    """Adds noise to its input where it is given a key."""

    gates = ("h",)

    def project(self, params, xs, *, key=None):
        if key is not None:
            xs = xs + jax.random.normal(key, xs.shape, xs.dtype)
        return super().project(params, xs)

    def update(self, params, carry, z):
        h = jnp.tanh(z[0])
        return Carry(h), {"y": h, "sum": h.sum(-1)}


class Trace(Cell):
    """Keeps all that it saw in the digits of one number."""

    def init(self, key, in_features):
        return {}

    def initial_carry(self, params, batch_shape=()):
        return jnp.full(batch_shape, 9.0)

    def step(self, params, carry, z):
        carry = 10 * carry + z[..., 0]
        return carry, carry


def test_the_words_of_the_contract_in_digits():
    xs = jnp.arange(1.0, 6).reshape(1, 5, 1)
    run = functools.partial(unroll, Trace(), {}, xs, carries="all")
    mask = np.array([[True, True, False, False, True]])
    resets = np.array([[False, False, False, True, False]])
    np.testing.assert_array_equal(run()[1], [[91, 912, 9123, 91234, 912345]])
    np.testing.assert_array_equal(run(mask=mask)[0], [[91, 912, 912, 912, 9125]])
    np.testing.assert_array_equal(run(mask=mask)[1], [[91, 912, 0, 0, 9125]])
    np.testing.assert_array_equal(run(resets=resets)[1], [[91, 912, 9123, 94, 945]])
    # The reset counts, though its step is masked.
    np.testing.assert_array_equal(run(mask=mask, resets=resets)[0], [[91, 912, 912, 9, 95]])
    np.testing.assert_array_equal(run(reverse=True)[1], [[954321, 95432, 9543, 954, 95]])
    flags = {"mask": mask, "resets": resets, "reverse": True}
    for last, ys in (run(**flags), scan_reference(Trace(), {}, xs, **flags)):
        np.testing.assert_array_equal(ys, [[921, 92, 0, 0, 95]])
        np.testing.assert_array_equal(jnp.ravel(last)[0], 921)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_no_mask_and_no_resets_are_trues_and_falses(cell):
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (2, 4, 2))
    carry = Carry(jnp.full((2, 3), 0.5))
    trues = {"mask": np.ones((2, 4), bool), "resets": np.zeros((2, 4), bool)}

    run = jax.jit(functools.partial(unroll, cell))
    expected = run(params, xs, carry, **trues)
    for flags in ({}, {"mask": trues["mask"]}, {"resets": trues["resets"]}):
        assert_close(run(params, xs, carry, **flags), expected, f"{cell}, {list(flags)}", 1e-6)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize("flags", [False, True])
def test_no_steps_at_all_give_back_the_carry(cell, flags):
    params = cell.init(jax.random.key(0), 2)
    carry = Carry(jnp.full((2, 3), 0.5))
    mask = resets = jnp.ones((2, 0), bool) if flags else None
    last, ys = unroll(cell, params, jnp.ones((2, 0, 2)), carry, mask=mask, resets=resets)
    np.testing.assert_array_equal(last.h, carry.h)
    assert ys.shape == (2, 0, 3)


def test_a_key_brings_noise_and_outputs_may_be_a_tree():
    cell = Noisy(3)
    params = cell.init(jax.random.key(0), 2)
    run = jax.jit(functools.partial(unroll, cell))
    xs, mask = jnp.ones((2, 4, 2)), np.array([[True] * 4, [False] * 4])
    quiet, again = (run(params, xs, mask=mask)[1] for _ in range(2))
    noisy, other = (run(params, xs, mask=mask, key=jax.random.key(i))[1] for i in range(2))
    np.testing.assert_array_equal(quiet["y"], again["y"])
    assert quiet["sum"].shape == (2, 4)
    for ys in (noisy, other):
        assert (ys["y"][0] != quiet["y"][0]).all()
        assert not ys["y"][1].any()
        assert not ys["sum"][1].any()
    assert (noisy["y"][0] != other["y"][0]).all()


@pytest.mark.parametrize("cell", CELLS, ids=repr)
@pytest.mark.parametrize("params_dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("carry_dtype", ["bfloat16", "float32", "float64"])
def test_the_carry_keeps_the_dtype_that_it_comes_with(cell, params_dtype, carry_dtype, x64):
    drawn = jax.eval_shape(lambda: cell.init(jax.random.key(0), 2))
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, params_dtype), drawn)
    carry = Carry(jax.ShapeDtypeStruct((2, 3), carry_dtype))
    for carries in ("last", "all"):
        run = functools.partial(unroll, cell, carries=carries)
        out, ys = jax.eval_shape(run, params, jax.ShapeDtypeStruct((2, 4, 2), params_dtype), carry)
        assert out.h.dtype == carry_dtype
        assert ys.dtype == np.promote_types(carry_dtype, "float32") or ys.dtype == "float64"


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_bfloat16_products_are_summed_in_float32(cell):
    params = cell.init(jax.random.key(0), 64)
    xs = jax.random.normal(jax.random.key(1), (2, 8, 64))
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), low)
    xs = xs.astype(jnp.bfloat16).astype(jnp.float32)
    run = jax.jit(functools.partial(unroll, cell))
    _, expected = run(rounded, xs)
    carry, ys = run(low, xs)
    assert carry.h.dtype == ys.dtype == jnp.float32
    np.testing.assert_allclose(ys, expected, atol=0.02)
