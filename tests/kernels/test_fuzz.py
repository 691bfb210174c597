"""Random programs of the normal form beside `jax.lax.scan`, in the native loop.

A program is drawn from a seed: layers of operations over a carry and inputs, with products, splits,
concatenations, reductions and selections. Numbers may be NaN and infinite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.kernels import native
from longlag.kernels.looping import loop

WIDTHS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100, 128, 130)
BATCHES = (1, 2, 3, 5, 7, 8, 13, 16, 17)
LENGTHS = (0, 1, 2, 3, 6, 11)
UNARY = (
    jnp.tanh, jax.nn.sigmoid, jnp.exp, jnp.negative, jnp.abs, jnp.square, jnp.sin, jnp.expm1,
    jnp.sign, jax.nn.softplus, jax.nn.relu, jnp.floor, lambda x: 1.0 / (2.0 + jnp.square(x)),
    lambda x: jnp.log1p(jnp.abs(x)), lambda x: jnp.sqrt(jnp.abs(x)), lambda x: x**3,
)  # fmt: skip
BINARY = (
    jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, jnp.minimum,
    lambda x, y: x / (1.5 + jnp.square(y)), lambda x, y: jnp.where(x > y, x, y * 0.5),
    lambda x, y: jnp.where(jnp.isfinite(x) & (y <= x), y, 0.25),
)  # fmt: skip


def draw_body(random: np.random.Generator, width: int, inputs: int):
    """A step `(kernels, carry, x) -> (carry, output, sums)` and the shapes of its kernels."""
    shapes: list[tuple[int, int]] = []
    plan = []
    widths = [width, inputs]
    for _ in range(random.integers(3, 9)):
        kind = random.choice(["unary", "binary", "product", "cut", "join", "norm", "row"])
        i = int(random.integers(len(widths)))
        kind = "unary" if kind == "cut" and widths[i] == 1 else kind
        if kind == "product":
            shapes.append((widths[i], int(random.choice(WIDTHS))))
            widths.append(shapes[-1][1])
            plan.append((kind, i, len(shapes) - 1))
        elif kind == "cut":
            at = int(random.integers(1, widths[i]))
            widths.append(at)
            plan.append((kind, i, at))
        elif kind == "join":
            j = int(random.integers(len(widths)))
            widths.append(widths[i] + widths[j])
            plan.append((kind, i, j))
        elif kind == "binary":
            same = [j for j, w in enumerate(widths) if w == widths[i]]
            widths.append(widths[i])
            plan.append((kind, i, int(random.choice(same)), int(random.integers(len(BINARY)))))
        else:
            widths.append(widths[i])
            plan.append((kind, i, int(random.integers(len(UNARY)))))
    shapes += [(widths[-1], width), (width, width)]

    def body(kernels, carry, x, _):
        values = [carry, x]
        for kind, i, *more in plan:
            value = values[i]
            if kind == "product":
                value = value @ kernels[more[0]]
            elif kind == "cut":
                value = jnp.split(value, [more[0]], axis=-1)[0]
            elif kind == "join":
                value = jnp.concatenate([value, values[more[0]]], axis=-1)
            elif kind == "binary":
                value = BINARY[more[1]](value, values[more[0]])
            elif kind == "norm":
                centred = value - value.mean(-1, keepdims=True)
                value = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 0.1)
            elif kind == "row":
                value = value + value.max(-1, keepdims=True) * 0.5
            else:
                value = UNARY[more[0]](value)
            values.append(value)
        new = jnp.tanh(values[-1] @ kernels[-2] + carry @ kernels[-1])
        return new, values[-1], (carry.T @ values[-1], new.sum(0))

    return body, shapes


def by_scan(body, kernels, carry, xs, reverse):
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(lambda: body(kernels, carry, jnp.zeros(xs.shape[1:], xs.dtype), None))[2],
    )

    def step(state, x):
        carry, totals = state
        carry, y, sums = body(kernels, carry, x, None)
        return (carry, jax.tree.map(jnp.add, totals, sums)), y

    (last, totals), ys = jax.lax.scan(step, (carry, zeros), xs, reverse=reverse)
    return last, ys, totals


def check(seed: int) -> None:
    random = np.random.default_rng(seed)
    width, inputs = (int(random.choice(WIDTHS)) for _ in range(2))
    batch, steps = int(random.choice(BATCHES)), int(random.choice(LENGTHS))
    reverse, special = bool(random.integers(2)), random.integers(4) == 0
    body, shapes = draw_body(random, width, inputs)
    dtype = np.float64 if random.integers(3) == 0 else np.float32
    with jax.enable_x64(dtype == np.float64):
        kernels = [jnp.asarray(random.normal(size=s) / s[0] ** 0.5, dtype) for s in shapes]
        carry = jnp.asarray(random.normal(size=(batch, width)), dtype)
        xs = random.normal(size=(steps, batch, inputs)).astype(dtype)
        if special and xs.size:
            places = random.integers(xs.size, size=3)
            xs.reshape(-1)[places] = [np.nan, np.inf, -np.inf]
        args = kernels, carry, jnp.asarray(xs)
        run = jax.jit(lambda k, c, x: loop(body, _never, k, c, x, reverse=reverse))
        ours = run(*args)
        theirs = jax.jit(lambda k, c, x: by_scan(body, k, c, x, reverse))(*args)
        bound = 2e-4 if dtype == np.float32 else 1e-10
        for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            scale = float(np.max(np.abs(np.asarray(want)), initial=1, where=np.isfinite(want)))
            np.testing.assert_allclose(got, want, bound, bound * scale, err_msg=f"seed {seed}")


def _never(*args):
    raise AssertionError("expected the native loop")


@pytest.mark.parametrize("seed", range(24))
def test_random_programs_equal_a_scan(seed):
    assert native.is_available()
    check(seed)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(24, 224))
def test_many_random_programs_equal_a_scan(seed):
    assert native.is_available()
    check(seed)
