"""Cells through the loop: those of the library, and some that it has never seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import sigmoid

import longlag as ll
from longlag.core.dense_cell import DenseCell
from longlag.core.explaining import explain
from longlag.core.ops import dot
from longlag.core.scans import step, step_back
from longlag.kernels import native
from longlag.kernels.looping import loop
from tests.helpers.members import CELLS

BATCH, STEPS, IN, OUT = 5, 7, 3, 8


class MinimalGated(DenseCell):
    """A minimal gated unit."""

    gates = ("f", "n")

    def mix(self, params, carry, u):
        f = sigmoid(u[0] + dot(carry.h, self.recurrent_kernel(params, "f")))
        return f, u[1] + dot(f * carry.h, self.recurrent_kernel(params, "n"))

    def update(self, params, carry, z):
        f, n = z
        h = (1 - f) * carry.h + f * jnp.tanh(n)
        return ll.Carry(h), h


class TwoInARow(DenseCell):
    """Two products one after the other."""

    gates = ("a", "b")

    def mix(self, params, carry, u):
        inner = jnp.tanh(u[0] + dot(carry.h, self.recurrent_kernel(params, "a")))
        return (u[1] + dot(inner, self.recurrent_kernel(params, "b")),)

    def update(self, params, carry, z):
        h = jnp.tanh(z[0]) + 0.5 * carry.h
        return ll.Carry(h), h


class RowNorm(DenseCell):
    """A state of norm one."""

    gates = ("n",)

    def update(self, params, carry, z):
        new = carry.h + jnp.tanh(z[0])
        h = new * jax.lax.rsqrt(jnp.square(new).sum(-1, keepdims=True) + 1e-3)
        return ll.Carry(h), h


class Sorted(DenseCell):
    """What has no normal form."""

    gates = ("n",)

    def update(self, params, carry, z):
        h = jnp.tanh(jnp.sort(z[0], axis=-1))
        return ll.Carry(h), h


def loss_of(cell, method, **options):
    def loss(params, xs):
        carry, ys = ll.unroll(cell, params, xs, method=method, **options)
        leaves = [leaf for leaf in jax.tree.leaves((carry, ys)) if leaf.dtype != bool]
        return sum(
            (jnp.sin(leaf) * jnp.arange(leaf.size).reshape(leaf.shape)).sum() for leaf in leaves
        )

    return jax.value_and_grad(loss, argnums=(0, 1))


@pytest.fixture
def never_falls_back(monkeypatch):
    """A step without a normal form is an error."""

    def strictly(body, plain, *args, **options):
        return loop(body, plain, *args, **options)

    assert native.is_available()
    for module in (step, step_back):
        monkeypatch.setattr(module, "loop_or_else", strictly)


def arguments(cell, dtype=jnp.float32):
    params = jax.tree.map(lambda x: x.astype(dtype), cell.init(jax.random.key(0), IN))
    return params, jax.random.normal(jax.random.key(1), (BATCH, STEPS, IN), jnp.float32)


@pytest.mark.parametrize("cell", [MinimalGated(OUT), TwoInARow(OUT), RowNorm(OUT)], ids=repr)
def test_a_cell_that_was_never_seen_equals_a_loop_in_float64(cell, never_falls_back):
    assert explain(cell).count("one native call") == 2
    params, xs = arguments(cell)
    value, grads = jax.jit(loss_of(cell, "fused"))(params, xs)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (params, xs))

        def loop_in_python(params, xs):
            carry, total = cell.initial_carry(params, (BATCH,)), []
            for t in range(STEPS):
                carry, y = cell.step(params, carry, cell.project(params, xs[:, t]))
                total.append(y)
            leaves = [*jax.tree.leaves(carry), jnp.stack(total, 1)]
            return sum(
                (jnp.sin(leaf) * jnp.arange(leaf.size).reshape(leaf.shape)).sum() for leaf in leaves
            )

        want, want_grads = jax.value_and_grad(loop_in_python, argnums=(0, 1))(*wide)
    np.testing.assert_allclose(value, want, 1e-5)
    for got, exact in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        np.testing.assert_allclose(got, exact, 1e-4, 1e-5 * float(np.abs(exact).max()))


def test_a_cell_without_a_normal_form_falls_back_and_says_why():
    cell = Sorted(OUT)
    said = explain(cell)
    assert said.count("jax.lax.scan") == 2 and "sort of float32[2, 8]" in said
    params, xs = arguments(cell)
    one, other = (jax.jit(loss_of(cell, method))(params, xs) for method in ("fused", "scan"))
    for got, want in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(got, want)


DENSE: list[DenseCell] = [cell for cell in CELLS if isinstance(cell, DenseCell)]


@pytest.mark.parametrize("cell", DENSE, ids=repr)
@pytest.mark.parametrize(
    "options",
    [{}, {"mask": True}, {"mask": True, "resets": True, "reverse": True, "carries": "all"}],
    ids=["plain", "mask", "all"],
)
def test_dense_cells_equal_the_scan(cell, options, never_falls_back):
    params, xs = arguments(cell)
    options = dict(options)
    for name, chance in (("mask", 0.7), ("resets", 0.3)):
        if name in options:
            options[name] = jax.random.bernoulli(jax.random.key(len(name)), chance, (BATCH, STEPS))
    one, other = (
        jax.jit(loss_of(cell, method, **options))(params, xs) for method in ("fused", "scan")
    )
    for got, want in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 2e-5 * float(np.abs(want).max()))


@pytest.mark.parametrize("cell", [ll.LSTM(OUT), ll.GRU(OUT), RowNorm(OUT)], ids=repr)
def test_parameters_in_half_and_double_precision(cell, never_falls_back):
    params, xs = arguments(cell, jnp.bfloat16)
    one, other = (jax.jit(loss_of(cell, method))(params, xs) for method in ("fused", "scan"))
    for got, want in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert got.dtype == want.dtype
        # Gradients in bfloat16 have 8 bits, and are rounded in another order.
        bound = 2e-2 if got.dtype == jnp.bfloat16 else 1e-3
        got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
        np.testing.assert_allclose(got, want, bound, bound * float(np.abs(want).max()))
    with jax.enable_x64(True):
        params, xs = arguments(cell, jnp.float64)
        xs = xs.astype(jnp.float64)
        one, other = (jax.jit(loss_of(cell, method))(params, xs) for method in ("fused", "scan"))
        for got, want in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert got.dtype == want.dtype == jnp.float64
            np.testing.assert_allclose(got, want, 1e-12, 1e-13 * float(np.abs(want).max()))


def test_seeds_side_by_side_are_what_each_is_alone(never_falls_back):
    cell = ll.GRU(OUT)
    _, xs = arguments(cell)
    params = jax.vmap(lambda key: cell.init(key, IN))(jax.random.split(jax.random.key(3), 3))
    both = jax.jit(jax.vmap(loss_of(cell, "fused"), (0, None)))(params, xs)
    for seed in range(3):
        of_seed = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params)
        alone = jax.jit(loss_of(cell, "fused"))(of_seed, xs)
        for got, want in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(got[seed], want)


def test_a_batch_of_one_and_zoneout_go_through_the_loop(never_falls_back):
    cell = ll.LSTM(OUT, learned_carry=True)
    params, xs = arguments(cell)
    for options in ({}, {"zoneout": 0.3}, {"zoneout": 0.3, "key": jax.random.key(5)}):
        one, other = (
            jax.jit(loss_of(cell, method, **options))(params, xs[:1])
            for method in ("fused", "scan")
        )
        for got, want in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(got, want, 1e-4, 2e-5 * float(np.abs(want).max()))


def test_every_cell_is_explained(monkeypatch):
    for cell in {type(cell): cell for cell in CELLS}.values():
        lines = explain(cell).split("\n")
        known = ("one native call", "jax.lax.scan, since", "no loop of single steps")
        assert len(lines) in (1, 2) and all(any(k in line for k in known) for line in lines), cell
    with pytest.raises(ValueError, match="expected a cell, such as LSTM"):
        explain(ll.LSTM)  # type: ignore[arg-type]
    monkeypatch.setattr(native, "_missing", lambda: "a reason")
    assert explain(ll.GRU(OUT)).endswith("here: jax.lax.scan: a reason")
