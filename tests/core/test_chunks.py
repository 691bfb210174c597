"""Long sequences in chunks of time give what the whole sequence gives, and keep far less."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from longlag import LSTM, MinGRU, unroll
from longlag.core.chunks import chunk_length, over_chunks, sum_over_time
from longlag.models import build
from longlag.testing.running import assert_close, random_like
from tests.core.test_step_scan import draw, loss
from tests.core.test_unroll import Noisy
from tests.testing.test_sketches import OddCell

B, T, V = 3, 11, 5
MODEL = build(
    inputs="tokens",
    in_features=V,
    out_features=V,
    cell=MinGRU(8),
    attention="full",
    width=8,
    heads=2,
)


@pytest.fixture(autouse=True)
def double_precision(x64):
    """Chunks and the whole agree within 1e-10."""


def sequences():
    tokens, targets = jax.random.randint(jax.random.key(1), (2, B, T), 0, V)
    mask, resets = jax.random.bernoulli(jax.random.key(2), 0.8, (2, B, T))
    return tokens, targets, mask, ~resets


def parameters():
    """Away from the zeros of a fresh head, through which no gradient would come."""
    params = MODEL.init(jax.random.key(0))
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    return jax.tree.map(lambda x, noise: x + 0.3 * noise, params, random_like(params))


def chunk_loss(params, state, chunk):
    tokens, targets, mask, resets = chunk
    state, logits = MODEL.apply(params, tokens, state, mask=mask, resets=resets)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return state, {"loss": (each * mask).sum(), "asked": mask.sum()}


@functools.partial(jax.jit, static_argnums=(2, 3))
def in_chunks(params, inputs, chunk, truncate=False):
    def run(params):
        state = MODEL.init_state(params, B, T)
        _, sums = sum_over_time(
            lambda state, now, _: chunk_loss(params, state, now),
            state,
            inputs,
            chunk=chunk,
            truncate=truncate,
        )
        return sums["loss"], sums

    return jax.value_and_grad(run, has_aux=True)(params)


@functools.partial(jax.jit, static_argnums=(2,))
def by_a_plain_loop(params, inputs, borders):
    """Piece by piece in Python; the gradient is stopped at the borders."""

    def run(params):
        state, total = MODEL.init_state(params, B, T), 0.0
        for start, stop in zip((0, *borders), (*borders, T)):
            now = jax.tree.map(lambda leaf: leaf[:, start:stop], inputs)  # noqa: B023
            state, sums = chunk_loss(params, jax.lax.stop_gradient(state), now)
            total += sums["loss"]
        return total

    return jax.value_and_grad(run)(params)


@pytest.mark.parametrize("chunk", [4, "sqrt"])
def test_chunks_of_time_are_the_whole(chunk: Any):
    params, inputs = parameters(), sequences()
    (value, sums), grads = in_chunks(params, inputs, chunk)
    assert_close((value, grads), by_a_plain_loop(params, inputs, ()), f"{chunk}", 1e-10)
    assert sums["asked"] == inputs[2].sum()


def test_truncation_stops_the_gradient_at_the_borders():
    params, inputs = parameters(), sequences()
    (value, _), grads = in_chunks(params, inputs, 4, True)
    assert_close((value, grads), by_a_plain_loop(params, inputs, (4, 8)), "truncated", 1e-10)
    whole = in_chunks(params, inputs, 4)[1]
    difference = jax.tree.map(lambda x, y: np.abs(x - y).max(), grads, whole)
    assert max(jax.tree.leaves(difference)) > 1e-3


def test_every_chunk_has_its_number():
    _, found = sum_over_time(
        lambda state, now, index: (state, jnp.zeros(3).at[index].add(now.sum())),
        (),
        jnp.ones((1, 7)),
        chunk=3,
    )
    assert found.tolist() == [3, 3, 1]


def test_bad_input():
    def step(state, now, index):
        return state, 0.0

    with pytest.raises(ValueError, match=r"of one length T, got T = \[3, 4\]"):
        sum_over_time(step, (), (jnp.ones((2, 3)), jnp.ones((2, 4))))
    with pytest.raises(ValueError, match="chunk: expected 'sqrt' or at least 1 step, got 0"):
        sum_over_time(step, (), jnp.ones((2, 3)), chunk=0)
    cell = LSTM(3, learned_carry=True)
    params, xs, _ = draw(cell, 2)
    for wrong in (0, -2, 1.5, True, "log"):
        with pytest.raises(ValueError, match=r"remat: expected .*'sqrt'"):
            unroll(cell, params, xs, remat=wrong)  # type: ignore[arg-type]


# --- a single layer -----------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 2))
def gradients(cell, flags, options, params, xs):
    run = functools.partial(loss, cell, flags, dict(options))
    return jax.value_and_grad(run, argnums=(0, 1))(params, xs)


@pytest.mark.parametrize("cell", [LSTM(3, learned_carry=True), MinGRU(3)], ids=repr)
@pytest.mark.parametrize(
    ("steps", "remat", "options"),
    [
        (8, 3, {}),
        (9, "sqrt", {"reverse": True, "carries": "all"}),
        (4, 100, {"reverse": True}),
        (0, "sqrt", {}),
    ],
)
def test_parts_of_a_sequence_are_the_whole(cell, steps: int, remat: Any, options: dict[str, Any]):
    params, xs, flags = draw(cell, steps)
    plain = gradients(cell, flags, tuple(options.items()), params, xs)
    got = gradients(cell, flags, tuple((options | {"remat": remat}).items()), params, xs)
    assert_close(got, plain, f"{cell} {steps} {remat} {options}", 1e-10)


def test_a_carry_of_every_kind_of_leaf_passes_from_part_to_part():
    cell = OddCell(3)
    params = cell.init(jax.random.key(0), 2)
    run = functools.partial(unroll, cell, params, jnp.ones((2, 5, 2)), carries="all")
    assert_close(run(remat=2), run(), "odd leaves", 1e-6)


def test_noise_is_drawn_for_every_part():
    cell, key = Noisy(3), jax.random.key(5)
    params = cell.init(jax.random.key(0), 2)
    xs = jnp.zeros((1, 4, 2))
    ys = unroll(cell, params, xs, key=key, remat=2)[1]["y"]
    again = unroll(cell, params, xs[:, :2], key=jax.random.fold_in(key, 0))
    np.testing.assert_allclose(ys[:, :2], again[1]["y"], rtol=1e-6)
    then = unroll(cell, params, xs[:, 2:], again[0], key=jax.random.fold_in(key, 1))
    np.testing.assert_allclose(ys[:, 2:], then[1]["y"], rtol=1e-6)


def megabytes(loss, *shapes) -> float:
    """Memory of the gradient beside inputs and outputs, in 10^6 bytes."""
    compiled = jax.jit(jax.grad(loss)).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), tree)


@pytest.mark.parametrize("cell", [LSTM(64), MinGRU(64)], ids=repr)
def test_memory_grows_with_the_square_root(cell):
    """Issue 3: at most 25 MB through 100,000 steps, where autodiff takes 5,800."""
    params = shapes_of(cell.init(jax.random.key(0), 16))

    def of_length(steps):
        def loss(params, xs):
            carry, _ = unroll(cell, params, xs, remat="sqrt", time_major=True)
            return (carry.h**2).sum()  # the last output

        return megabytes(loss, params, jax.ShapeDtypeStruct((steps, 16, 16), jnp.float32))

    long = of_length(100_000)
    assert 1 < long < 25
    assert long < 4 * of_length(10_000)


def test_logits_are_never_there_for_all_steps():
    rows, steps, classes = 4, 10_000, 256
    model = build(inputs="tokens", in_features=classes, out_features=classes, cell=LSTM(16))
    params = shapes_of(model.init(jax.random.key(0)))

    def loss(params, tokens):
        def step(state, chunk, _):
            state, logits = model.apply(params, chunk[0], state)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, chunk[1])
            return state, each.sum()

        return sum_over_time(step, model.init_state(params, rows, 1), (tokens, tokens))[1]

    tokens = jax.ShapeDtypeStruct((rows, steps), jnp.int32)
    assert 1 < megabytes(loss, params, tokens) < rows * steps * classes * 4 / 1e6 / 4


# --- how time is cut ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "aim", "length"),
    [
        (512, 16, 16),
        (1024, 64, 64),
        (1000, 32, 25),  # a divisor near 32
        (40, 32, 40),  # up to one and a half times the aim
        (53, 32, 32),  # one whole chunk and a shorter one
        (0, 16, 1),
        (10007, 32, 32),
    ],
)
def test_length_of_chunks(steps: int, aim: int, length: int):
    assert chunk_length(steps, aim) == length


@pytest.mark.parametrize("total", [0, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_chunk_comes_once_and_in_order(total: int, reverse: bool):
    """A running sum over steps and chunks, whole chunks and the one that is left over."""

    def chunk(state, xs, number):
        ys = jnp.cumsum(xs[::-1])[::-1] if reverse else jnp.cumsum(xs)
        return state + xs.sum(), state + ys, 10 * number + len(xs)

    xs, numbers = jnp.arange(1.0, total + 1), jnp.arange(max(-(-total // 3), 1))
    last, ys, each = over_chunks(chunk, jnp.zeros(()), xs, numbers, 3, reverse)
    expected = np.cumsum(xs[::-1])[::-1] if reverse else np.cumsum(xs)
    np.testing.assert_array_equal(ys, expected)
    assert last == sum(range(total + 1))
    lengths = [len(part) for part in np.split(np.arange(total), range(3, total, 3))]
    assert each.tolist() == [10 * number + length for number, length in enumerate(lengths)]
