"""The chunked form of a matrix recurrence against one step after another in NumPy."""

from __future__ import annotations

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.core.scans import matrix_methods as module
from longlag.core.scans.matrix import matrix_scan
from longlag.testing.running import jit

T, B, N, K, V = 11, 3, 2, 3, 2
KINDS = {
    "sum": {},
    "decay": {"log_decay": 1},
    "decay per key": {"log_decay": K},
    "delta": {"rate": True},
    "gated delta": {"rate": True, "log_decay": 1},
    "gated delta per key": {"rate": True, "log_decay": K},
}


def drawn(kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Everything that is differentiated."""
    found = {
        "q": rng.normal(size=(T, B, N, K)),
        "k": rng.normal(size=(T, B, N, K)) / K**0.5,
        "v": rng.normal(size=(T, B, N, V)),
        "S0": rng.normal(size=(B, N, K, V)),
        "S_reset": rng.normal(size=(N, K, V)),
    }
    if "log_decay" in KINDS[kind]:
        shape = (T, B, N, KINDS[kind]["log_decay"])
        found["log_decay"] = -rng.exponential(size=shape)
    if "rate" in KINDS[kind]:
        found["rate"] = rng.uniform(0, 2, size=(T, B, N))
    return found


def resets() -> np.ndarray:
    """Rows without any, with several in one chunk, and at both ends."""
    flags = np.zeros((T, B), bool)
    flags[[1, 2, 6], 1] = True
    flags[[0, 4, T - 1], 2] = True
    return flags


def loop(q, k, v, S0, S_reset, resets, log_decay=None, rate=None, reverse=False):
    """Every state and every read, by the words of the module."""
    states, reads = np.zeros((T, B, N, K, V)), np.zeros((T, B, N, V))
    for b in range(B):
        for n in range(N):
            S = S0[b, n]
            for t in range(T)[:: -1 if reverse else 1]:
                if resets[t, b]:
                    S = S_reset[n]
                if log_decay is not None:
                    decay = np.broadcast_to(np.exp(log_decay[t, b, n]), (K,))
                    S = np.diag(decay) @ S
                u = v[t, b, n]
                if rate is not None:
                    u = rate[t, b, n] * (u - S.T @ k[t, b, n])
                S = S + np.outer(k[t, b, n], u)
                states[t, b, n], reads[t, b, n] = S, S.T @ q[t, b, n]
    return states, reads


@functools.cache
def program(kind: str, method: str, reverse: bool):
    """Last state, reads, and the gradient of a weighted sum of both."""

    @jit
    def run(inputs, resets, weights):
        def apply(inputs):
            return matrix_scan(**inputs, resets=resets, method=method, reverse=reverse)

        found, pull = jax.vjp(apply, inputs)
        return found, pull(weights)

    return run


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_steps_equal_the_loop_and_each_other(kind, reverse, x64, rng):
    inputs, flags = drawn(kind, rng), resets()
    weights = rng.normal(size=(B, N, K, V)), rng.normal(size=(T, B, N, V))
    with mock.patch.multiple(module, CHUNK=4, CHUNK_PER_KEY=4):  # two whole ones and one of three
        chunked = program(kind, "chunked", reverse)(inputs, flags, weights)
    steps = program(kind, "scan", reverse)(inputs, flags, weights)
    states, reads = loop(**inputs, resets=flags, reverse=reverse)
    for (last, ys), _ in (chunked, steps):
        np.testing.assert_allclose(last, states[0 if reverse else -1], 1e-11, 1e-11)
        np.testing.assert_allclose(ys, reads, 1e-11, 1e-11)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-9, 1e-10), chunked[1], steps[1])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(chunked[1]))


def test_every_state_is_the_loops(x64, rng):
    inputs, flags = drawn("gated delta", rng), resets()
    states, ys = jit(lambda i: matrix_scan(**i, resets=flags, every_state=True))(inputs)
    expected, reads = loop(**inputs, resets=flags)
    np.testing.assert_allclose(states, expected, 1e-11, 1e-11)
    np.testing.assert_allclose(ys, reads, 1e-11, 1e-11)


def test_what_comes_after_a_strong_decay_keeps_its_digits(rng):
    """In float32: a sum from the chunk's start would have rounded the small decays away."""
    inputs = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in drawn("decay", rng).items()}
    del inputs["S_reset"]
    decay = np.full((T, B, N, 1), -1e-3, np.float32)
    decay[3] = -3e4
    _, ys = jit(lambda i: matrix_scan(**i, method="chunked"))(inputs | {"log_decay": decay})
    _, expected = jit(lambda i: matrix_scan(**i, method="scan"))(inputs | {"log_decay": decay})
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-5)


def test_no_steps_leave_the_state(rng):
    S0 = rng.normal(size=(B, N, K, V)).astype(np.float32)
    nothing = jnp.zeros((0, B, N, K))
    S, ys = matrix_scan(nothing, nothing, jnp.zeros((0, B, N, V)), S0)
    np.testing.assert_array_equal(S, S0)
    assert ys.shape == (0, B, N, V)


def test_what_cannot_be_is_refused():
    x, S = jnp.zeros((2, 1, 1)), jnp.zeros((1, 1, 1))
    with pytest.raises(ValueError, match=r"unknown method: .*Did you mean 'chunked'"):
        matrix_scan(x, x, x, S, method="chunk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected method 'scan' or 'auto' for every state"):
        matrix_scan(x, x, x, S, method="chunked", every_state=True)
