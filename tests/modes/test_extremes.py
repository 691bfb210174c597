"""Where float32 ends: gates shut or open, decays of zero and one, inputs as large as raw data."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag as ll
from longlag.cells import LRU, MLSTM, SLSTM
from longlag.core.scans.linear import METHODS
from longlag.core.scans.matrix import matrix_scan
from longlag.testing import check_extremes
from longlag.testing.extreme_values import extremes
from longlag.testing.running import in_chunks, jit
from tests.cells.test_cells import PAPERS
from tests.helpers.members import CELLS

# A phase of exp(50) radians.
FIXED = ("theta",)
# A learned first state of an sLSTM and an mLSTM has a scale; one that is not learned has none yet.
UNLEARNED = [
    dataclasses.replace(c, learned_carry=False) for c in CELLS if type(c) in (SLSTM, MLSTM)
]


def one_of_each(cells):
    """Whose options make other programs of the same equations are for `make test-deep`."""
    kinds = [type(cell) for cell in cells]
    return [[pytest.mark.deep] * (kind in kinds[:i]) for i, kind in enumerate(kinds)]


def of_gates_in_logarithms(papers):
    """A dense cell without a logarithm has nothing that float64 and 80 bits could differ in."""
    plain = [isinstance(cell, ll.DenseCell) and not isinstance(cell, SLSTM) for cell, _ in papers]
    each = one_of_each([cell for cell, _ in papers])
    return [[pytest.mark.deep] * (is_plain or bool(deep)) for is_plain, deep in zip(plain, each)]


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, marks=marks) for cell, marks in zip(CELLS, one_of_each(CELLS), strict=True)]
    + UNLEARNED,
    ids=repr,
)
def test_extreme_values_are_those_of_float64(cell):
    check_extremes(cell, fixed=FIXED)


@pytest.mark.parametrize(
    ("cell", "equations"),
    [
        pytest.param(*pair, marks=marks, id=repr(pair[0]))
        for pair, marks in zip(PAPERS, of_gates_in_logarithms(PAPERS), strict=True)
    ],
)
def test_extreme_values_in_float64_are_the_papers(cell, equations, x64):
    """The equations as they stand in numbers of 80 bits, with exponents from -4932 to 4932."""
    names, params, xs = extremes(cell, 2, FIXED)
    params, xs = jax.tree.map(lambda leaf: leaf.astype(np.float64), (params, xs))
    ys = in_float64(cell, params, xs)
    first = jax.tree.leaves(cell.initial_carry(jax.tree.map(lambda leaf: leaf[0], params)))
    compared = 0
    for n, name in enumerate(names):
        one, x = jax.tree.map(lambda leaf, n=n: leaf[n].astype(np.longdouble), (params, xs))
        with np.errstate(all="ignore"):
            expected, _ = equations(one, x, *(np.array(leaf, np.longdouble) for leaf in first))
            at = np.abs(expected) < 1e37
        compared += at.mean() / len(names)
        off = np.abs(np.asarray(ys)[n] - expected) - 1e-8 * np.abs(expected)
        assert (off[at] <= 1e-15 * (1 + np.abs(x).max())).all(), (name, ys[n], expected)
    assert compared > 0.75


@functools.partial(jit, static_argnums=0)
def in_float64(cell, params, xs):
    return jax.vmap(lambda params, xs: ll.unroll(cell, params, xs[None])[1][0])(params, xs)


# --- the scans ----------------------------------------------------------------------------------

# Decays, inputs and the first state: every state is a number of float32, and no product of decays.
GROWING = {
    "before anything": ([1e30, 1e30, 0.5, 2.0], [0.0, 0.0, 3.0, 1.0], 0.0),
    "then shrinking": ([1e30, 1e30, 1e-35, 1.0], [1e-30, 0.0, 0.0, 0.0], 0.0),
    "shrinking": ([1e-25, 1e-25, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], 1e20),
    "of what cancels": ([2.0, 1e30, 1e30, 1.0], [-2.0, 0.0, 0.0, 0.0], 1.0),
    "to nothing": ([1e30, 1e30, 0.0, -1e20], [0.0, 0.0, -1.0, 2.0], 0.0),
}


def linear_loop(a, b, h0, dh, reverse):
    """States and gradients in numbers of 80 bits."""
    a, b, h0, dh = (np.asarray(x, np.longdouble) for x in (a, b, h0, dh))
    order = range(len(a))[:: -1 if reverse else 1]
    hs, before, h = np.zeros_like(b), np.zeros_like(b), h0
    for t in order:
        before[t] = h
        hs[t] = h = a[t] * h + b[t]
    da, db, lam = np.zeros_like(a), np.zeros_like(b), 0 * h0
    for t in order[::-1]:
        lam = lam + dh[t]
        da[t], db[t], lam = lam * before[t], lam, a[t] * lam
    return hs, da, db, lam


@pytest.mark.parametrize("method", METHODS[1:])
def test_decays_above_one_overflow_only_where_the_states_do(method):
    a, b, h0 = (np.array(x, np.float32) for x in zip(*GROWING.values(), strict=True))
    dh = np.array([1.0, -0.5, 2.0, 1.0], np.float32)

    @jit
    def run(a, b, h0):
        results = []
        for reverse in (False, True):
            scan = functools.partial(ll.linear_scan, method=method, reverse=reverse)
            hs, pull = jax.vjp(scan, a.T, b.T, h0)
            results.append((hs, *pull(jnp.broadcast_to(dh[:, None], hs.shape))))
            pair = (a.T, 0 * a.T), (b.T, -b.T), (h0, -h0)
            results.append(scan(*pair))
        return results

    forward, both, backward, both_back = run(a, b, h0)
    for reverse, got, pair in ((False, forward, both), (True, backward, both_back)):
        for n, name in enumerate(GROWING):
            expected = linear_loop(a[n], b[n], h0[n], dh, reverse)
            for g, e in zip(got, expected, strict=True):
                # Not what follows an overflow of its own, or has a factor that overflowed.
                at = (np.abs(e) < 3e38) & ((np.abs(expected[:3:2]).max() < 3e38) | (e == 0))
                np.testing.assert_allclose(np.asarray(g)[..., n][at], e[at], 1e-6, err_msg=name)
            if np.abs(expected[0]).max() < 3e38:
                np.testing.assert_allclose(pair[0][:, n], expected[0], 1e-6, err_msg=name)
                np.testing.assert_allclose(pair[1][:, n], -expected[0], 1e-6, err_msg=name)


@jit
def long_scans(a, b, resets):
    run = functools.partial(ll.linear_scan, a, b, jnp.zeros(2), resets=resets)
    return [run(method=method) for method in METHODS[1:]]


def test_a_product_over_chunks_of_decays_above_one_is_no_nan():
    a, b = np.full((70, 2), 50.0, np.float32), np.zeros((70, 2), np.float32)
    b[-1], b[40, 1] = 1, 1
    resets = np.zeros((70, 2), bool)
    resets[50] = True
    for hs in long_scans(a, b, resets):
        np.testing.assert_array_equal(hs[-1], [1, 1])
        np.testing.assert_allclose(hs[49], [0, 50.0**9], 1e-5)


@pytest.mark.parametrize("rate", [False, True])
@pytest.mark.parametrize("keys", [1, 3])
def test_a_decay_of_zero_forgets_in_chunks_as_it_does_step_by_step(keys, rate, rng):
    T, K, V = 7, 3, 2
    arrays = {
        "q": rng.normal(size=(T, 2, K)),
        "k": rng.normal(size=(T, 2, K)) / K,
        "v": rng.normal(size=(T, 2, V)),
        "S0": rng.normal(size=(2, K, V)),
        "log_decay": rng.choice([0.0, -0.1, -1e4, -np.inf], size=(T, 2, keys)),
    }
    if rate:
        arrays["rate"] = rng.uniform(size=(T, 2))
    arrays = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays)

    @jit
    def run(arrays):
        results = []
        steps = functools.partial(matrix_scan, method="scan")
        for scan in (steps, functools.partial(matrix_scan, method="chunked")):
            out, pull = jax.vjp(lambda arrays, scan=scan: scan(**arrays), arrays)
            results.append((out, pull(jax.tree.map(jnp.cos, out))))
        return results

    with in_chunks():
        steps, chunked = run(arrays)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(steps))
    jax.tree.map(lambda s, c: np.testing.assert_allclose(c, s, 1e-5, 1e-5), steps, chunked)


# --- gates in logarithms ------------------------------------------------------------------------


class Shut(ll.MatrixCell):
    """An exponential cell whose gates come as they are: exactly shut, exactly forgetting."""

    gates = ("q", "k", "v", "i", "f")
    exponential = True

    def project(self, params, xs, *, key=None):
        q, k, v, _, _ = self.per_head(params, xs)
        i, f = jnp.split(jnp.where(xs < 0, -jnp.inf, xs), 2, axis=-1)
        return ll.Association(q, k, v, log_decay=f[..., None], log_input=i)

    def readout(self, params, reads, aux):
        return (reads.y * jnp.exp(reads.log_scale)[..., None]).reshape(*reads.y.shape[:-2], -1)


def test_gates_of_exactly_zero_in_an_exponential_memory():
    cell = Shut(2, heads=1)
    params = cell.init(jax.random.key(0), 2)
    params["input"] = {"kernel": jnp.zeros((2, 8)), "bias": jnp.ones(8)}
    xs = jnp.array([[[-1.0, -1.0], [-1.0, 0.0], [0.0, 0.0], [1.0, -1.0], [-1.0, 0.0]]])
    expected = np.array([0.0, 0.0, 2.0, 2 * np.e, 2 * np.e])
    for method in ("scan", "chunked"):
        _, ys = ll.unroll(cell, params, xs, method=method)
        np.testing.assert_allclose(ys[0], np.stack([expected] * 2, 1), 1e-6)


@pytest.mark.parametrize("learned", [False, True])
def test_a_first_input_gate_of_an_slstm_may_be_as_small_as_it_likes(learned):
    cell = SLSTM(1, heads=1, learned_carry=learned)
    params = cell.init(jax.random.key(0), 1)
    params["input"] = {"kernel": jnp.eye(1, 4), "bias": jnp.array([0.0, 5.0, 1.0, 0.0])}
    params["recurrent"] = {"kernel": jnp.zeros((1, 1, 4))}
    xs = jnp.array([0.0, -10.0, -44.0, -87.0, -88.0, -104.0, -1e4, 1e4])[:, None, None]

    def outputs(params, xs):
        return ll.unroll(cell, params, xs)[1]

    ys, pull = jax.vjp(outputs, params, xs)
    np.testing.assert_allclose(ys, np.full_like(ys, 0.5 * np.tanh(1.0)), 1e-6)
    of_params, of_xs = pull(jnp.ones_like(ys))
    np.testing.assert_allclose(of_xs, np.zeros_like(ys), atol=1e-7)
    bias = [0, 0, 8 * 0.5 * (1 - np.tanh(1.0) ** 2), 8 * 0.25 * np.tanh(1.0)]
    np.testing.assert_allclose(of_params["input"]["bias"], bias, 1e-5, 1e-6)


def test_a_first_input_gate_of_an_mlstm_is_in_its_output_and_its_slope():
    """exp(i) k v q / max(n q, 1), where exp(i) alone is less than any number of float32."""
    cell = MLSTM(1, heads=1, output_gate=False)
    params = cell.init(jax.random.key(0), 1)
    params["input"] = {
        "kernel": jnp.array([[0.0, 0.0, 0.0, 1.0, 0.0]]),
        "bias": jnp.array([1e4, 1e4, 1e4, 0.0, 5.0]),
    }
    i = np.array([-20.0, -44.0, -60.0, -88.0, -95.0])
    xs = jnp.asarray(i[:, None, None], jnp.float32)
    ys, pull = jax.vjp(lambda xs: ll.unroll(cell, params, xs)[1], xs)
    expected = 1e4 * np.minimum(1e8 * np.exp(i), 1)
    np.testing.assert_allclose(ys[:, 0, 0], expected, 1e-5)
    # The slope is y itself, but zero where n q is more than one.
    slopes = np.where(1e8 * np.exp(i) > 1, 0, expected)
    np.testing.assert_allclose(pull(jnp.ones_like(ys))[0][:, 0, 0], slopes, 1e-5)


def test_a_decay_of_an_lru_that_is_zero_has_a_gradient_of_zero():
    """exp(104) is infinite in float32, and zero times it would be NaN."""
    cell = LRU(2)
    params = cell.init(jax.random.key(0), 2) | {"nu": jnp.full(2, 104.0)}
    sizes, pull = jax.vjp(lambda params: cell.project(params, jnp.ones((1, 2)))[0], params)
    assert not np.any(sizes)
    (gradient,) = pull(jax.tree.map(jnp.ones_like, sizes))
    np.testing.assert_array_equal(gradient["nu"], [0, 0])
