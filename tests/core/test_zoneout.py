"""Zoneout: against a loop with the same noise, and its mean without."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag as ll
from longlag.cells import LRU, MLSTM
from longlag.nn import Recurrent, VariationalDropout
from longlag.testing.running import jit

B, T, D, H = 3, 6, 2, 4
RATE = 0.4
CELLS = [ll.LSTM(H), ll.GRU(H), ll.MinGRU(H), LRU(H, state=3)]


def drawn(cell, rng):
    params = jax.tree.map(np.asarray, cell.init(jax.random.key(1), D))
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    return params, rng.normal(size=(B, T, D))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_without_a_key_the_carry_moves_by_the_mean(cell, rng, x64):
    params, xs = drawn(cell, rng)
    mask = np.ones((B, T), bool)
    mask[0, 2] = mask[1, 4:] = False
    resets = np.zeros((B, T), bool)
    resets[2, 3] = True
    carry, ys = jit(lambda p, x: ll.unroll(cell, p, x, mask=mask, resets=resets, zoneout=RATE))(
        params, xs
    )
    for row in range(B):
        state, y = cell.initial_carry(params), None
        for t in range(T):
            state = cell.initial_carry(params) if resets[row, t] else state
            if mask[row, t]:
                new, y = cell.step(params, state, cell.project(params, xs[row, t]))
                state = jax.tree.map(lambda o, n: RATE * o + (1 - RATE) * n, state, new)
                shown = y if isinstance(cell, LRU) else jax.tree.leaves(state)[0]
                if not isinstance(cell, LRU):
                    np.testing.assert_allclose(ys[row, t], shown, 1e-10, 1e-10)
        for got, want in zip(jax.tree.leaves(carry), jax.tree.leaves(state)):
            np.testing.assert_allclose(got[row], want, 1e-10, 1e-10)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_with_a_key_a_number_moves_as_a_whole_or_stays(cell, rng, x64):
    params, xs = drawn(cell, rng)
    run = jit(lambda p, x, k: ll.unroll(cell, p, x, carries="all", zoneout=RATE, key=k)[0])
    every = run(params, xs, jax.random.key(0))
    first = cell.initial_carry(params, (B,))
    before = jax.tree.map(lambda f, c: jnp.concatenate([f[:, None], c[:, :-1]], 1), first, every)
    moved, _ = jax.vmap(
        lambda carry, x: cell.step(params, carry, cell.project(params, x)), (1, 1), 1
    )(before, xs)
    shares = []
    for old, new, now in zip(*map(jax.tree.leaves, (before, moved, every))):
        stayed = np.isclose(now, old, 1e-10, 1e-12)
        assert (stayed | np.isclose(now, new, 1e-10, 1e-12)).all()
        shares.append(stayed[:, 1:].mean())
    assert 0.2 < np.mean(shares) < 0.6
    # The gradient takes the same noise, and another key other noise.
    other = run(params, xs, jax.random.key(1))
    assert not all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (every, other))))


def test_gradients_are_autodiffs(rng, x64):
    cell = ll.LSTM(H)
    params, xs = drawn(cell, rng)

    def loss(params, backward):
        _, ys = ll.unroll(cell, params, xs, zoneout=RATE, key=jax.random.key(2), backward=backward)
        return (ys**2).sum()

    mine, plain = (jit(jax.grad(lambda p, b=b: loss(p, b)))(params) for b in ("auto", "autodiff"))
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-9, 1e-10), mine, plain)


def test_what_has_no_zoneout_says_so():
    xs = jnp.zeros((B, T, D))
    for cell, rate, message in (
        (ll.LSTM(H), 1.0, "zoneout: expected 0 <= zoneout < 1, got 1.0"),
        (MLSTM(H), 0.1, "zoneout: expected 0 for MLSTM, whose memory is a matrix; got 0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            ll.unroll(cell, cell.init(jax.random.key(0), D), xs, zoneout=rate)


def test_a_recurrent_layer_passes_it_on(rng):
    layer = Recurrent(ll.GRU(H), zoneout=RATE)
    params, xs = layer.init(jax.random.key(0), D), rng.normal(size=(T, B, D))
    _, ys = layer.apply(params, xs, key=jax.random.key(1))
    _, expected = ll.unroll(
        layer.cell, params, xs, key=jax.random.key(1), zoneout=RATE, time_major=True
    )
    np.testing.assert_array_equal(ys, expected)


# --- variational dropout ------------------------------------------------------------------------


def test_variational_dropout_keeps_its_zeros_through_a_sequence_and_its_chunks():
    layer = VariationalDropout(20, 0.5)
    xs, resets = jnp.ones((9, 40, 20)), np.zeros((9, 40), bool)
    resets[4, ::2] = True
    apply = jit(lambda s, x, r, k: layer.apply({}, x, s, resets=r, key=k))
    ys = np.asarray(apply(None, xs, resets, jax.random.key(0))[1])
    assert {*np.unique(ys)} == {0, 2} and abs(ys[0].mean() - 1) < 0.15
    assert (ys[:4] == ys[0]).all() and (ys[4:] == ys[4]).all()
    assert (ys[4, 1::2] == ys[3, 1::2]).all()  # no reset, no new zeros
    assert (ys[4, ::2] != ys[3, ::2]).mean() > 0.4
    assert (ys[0, 0] != ys[0, 1]).any()
    state = layer.init_state({}, (40,), 0)
    state, first = apply(state, xs[:6], resets[:6], jax.random.key(1))
    state, second = apply(state, xs[6:], resets[6:], jax.random.key(2))
    assert (np.asarray(second) == np.asarray(first)[5]).all()
    assert layer.apply({}, xs)[1] is xs
    with pytest.raises(ValueError, match="expected the width of its inputs, 4; got 20"):
        layer.init(jax.random.key(0), 4)
