"""Random elementwise steps beside `jax.lax.scan`: strips of columns that go through all steps.

There are resets of whole rows, constants of every form, arrays of which a step sees what stands one
step further on, sums over steps, and rows that are longer than a strip. Numbers may be NaN and
infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.kernels import columnwise, looping, native
from longlag.kernels.looping import loop
from longlag.kernels.schedule import Schedule

SHAPES = ((1, 1), (1, 7), (3, 16), (5, 33), (2, 130), (1, 9001), (3, 5000), (64, 40))
LENGTHS = (0, 1, 2, 5, 9)
Function = Callable[..., jax.Array]
UNARY: tuple[Function, ...] = (
    jnp.tanh,
    jnp.negative,
    jnp.abs,
    jnp.square,
    lambda x: jnp.exp(-jnp.square(x)),
    jnp.sign,
)
BINARY: tuple[Function, ...] = (
    jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, lambda x, y: jnp.where(x > y, 0.5 * x, y),
    lambda x, y: jnp.where(y == 0, 0, x * y),
)  # fmt: skip


def draw_body(random: np.random.Generator):
    """A step `(constants, carry, given, before) -> (carry, outputs, sums)`."""
    plan = [
        (int(i), int(j), int(k))
        for i, j, k in random.integers(0, 1_000_000, size=(random.integers(2, 7), 3))
    ]

    def body(constants, carry, given, before):
        (row, full, number), (h, g), (x, u, reset) = constants, carry, given
        h = jnp.where(reset[:, None], row, h)
        values = [h, g, x, u * number, before, full]
        for i, j, k in plan:
            one, other = values[i % len(values)], values[j % len(values)]
            functions = UNARY if k % 2 else BINARY
            function = functions[k // 2 % len(functions)]
            values.append(function(one) if k % 2 else function(one, other))
        new = 0.5 * h + jnp.tanh(values[-1])
        return (new, jnp.tanh(g + before)), (values[-2], new), new * before

    return body


def by_scan(body, constants, carry, given, before, entry, reverse):
    beyond = [entry[None], before[:-1]] if reverse else [before[1:], entry[None]]
    beyond = jnp.concatenate(beyond)[: before.shape[0]]

    def step(state, inputs):
        carry, total = state
        carry, outputs, added = body(constants, carry, *inputs)
        return (carry, total + added), outputs

    begin = carry, jnp.zeros_like(carry[0])
    (last, total), outputs = jax.lax.scan(step, begin, (given, beyond), reverse=reverse)
    return last, outputs, total


def _never(*args):
    raise AssertionError("expected the native loop")


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares all that a drawn step returns, and asks for strips."""
    assert native.is_available()
    random = np.random.default_rng(seed)
    monkeypatch.setattr(columnwise, "STREAM_FROM", 0 if random.integers(2) else 1 << 40)
    made = []

    def keep(*args: Any, **more: Any) -> Schedule:
        made.append(Schedule(*args, **more))
        return made[-1]

    monkeypatch.setattr(looping, "Schedule", keep)
    batch, width = SHAPES[seed % len(SHAPES)]
    steps, reverse = int(random.choice(LENGTHS)), bool(random.integers(2))
    dtype = np.float64 if random.integers(3) == 0 else np.float32

    def draw(*shape: int) -> jax.Array:
        numbers = random.normal(size=shape).astype(dtype)
        numbers[random.random(shape) < 0.1] = 0
        if random.integers(4) == 0 and numbers.size:
            numbers.reshape(-1)[random.integers(numbers.size, size=2)] = [np.nan, np.inf]
        return jnp.asarray(numbers)

    with jax.enable_x64(dtype == np.float64):
        body = draw_body(random)
        constants = draw(width), draw(batch, width), draw()
        carry = draw(batch, width), draw(batch, width)
        resets = jnp.asarray(random.random((steps, batch)) < 0.3)
        given = draw(steps, batch, width), draw(steps, batch, width), resets
        args = constants, carry, given, draw(steps, batch, width), draw(batch, width)
        ours = jax.jit(lambda *args: loop(body, _never, *args, reverse=reverse))(*args)
        theirs = jax.jit(lambda *args: by_scan(body, *args, reverse=reverse))(*args)
        assert [one.columnwise for one in made] == [True]
        bound = 1e-5 if dtype == np.float32 else 1e-12
        for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            np.testing.assert_allclose(got, want, bound, bound, err_msg=f"seed {seed}")


@pytest.mark.parametrize("seed", range(2, 7))
def test_random_elementwise_steps_equal_a_scan(seed, monkeypatch):
    check(seed, monkeypatch)


@pytest.mark.deep
@pytest.mark.parametrize("seed", [0, 1, *range(7, 108)])
def test_many_random_elementwise_steps_equal_a_scan(seed, monkeypatch):
    check(seed, monkeypatch)


CROSSING = {
    "halves of the state": lambda h, x: jnp.concatenate([h[:, 4:] * x[:, :4], h[:, :4]], 1),
    "the first column": lambda h, x: x + h[:, :1],
}


@pytest.mark.parametrize("name", CROSSING)
def test_a_step_whose_columns_meet_is_not_cut_in_strips(name, monkeypatch):
    made = []

    def keep(*args: Any, **more: Any) -> Schedule:
        made.append(Schedule(*args, **more))
        return made[-1]

    monkeypatch.setattr(looping, "Schedule", keep)

    def body(_, h, x, __):
        h = CROSSING[name](h, x)
        return h, h, None

    h, x = jnp.ones((2, 8)), jnp.arange(80.0).reshape(5, 2, 8) / 80
    ours = jax.jit(lambda h, x: loop(body, _never, None, h, x)[1])(h, x)
    assert [one.columnwise for one in made] == [False]
    theirs = jax.lax.scan(lambda h, x: body(None, h, x, None)[:2], h, x)[1]
    np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)
