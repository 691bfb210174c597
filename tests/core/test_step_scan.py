"""The backward of `unroll` equals autodiff of `jax.lax.scan`, at every length and in every mode."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, LSTM, MinGRU, unroll
from longlag.core.scans import step
from longlag.testing.running import assert_close, in_chunks

B, D, H = 2, 2, 3
CELL = LSTM(H, learned_carry=True)


@pytest.fixture(autouse=True)
def double_precision(x64):
    """Two ways of taking a gradient agree within 1e-10 or not at all."""


@pytest.fixture
def short_chunks():
    with in_chunks():
        yield


def draw(cell, steps: int):
    params = jax.tree.map(lambda x: x.astype(jnp.float64) + 0.1, cell.init(jax.random.key(0), D))
    xs = jax.random.normal(jax.random.key(1), (B, steps, D), jnp.float64)
    flags = jax.random.bernoulli(jax.random.key(2), 0.7, (2, B, steps))
    return params, xs, {"mask": flags[0], "resets": ~flags[1]}


def loss(cell, flags, options, params, xs):
    """Every output and every carry counts, each by another weight."""
    carry, ys = unroll(cell, params, xs, **flags, **options)
    leaves = [ys, *jax.tree.leaves(carry)]
    return sum((leaf * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape))).sum() for leaf in leaves)


@functools.partial(jax.jit, static_argnums=(0, 2))
def gradients(cell, flags, options, params, xs):
    return jax.value_and_grad(functools.partial(loss, cell, flags, dict(options)), argnums=(0, 1))(
        params, xs
    )


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("backward", ["recompute", "store"])
@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (0, {}),
        (1, {"carries": "all"}),
        (3, {"reverse": True}),
        (5, {}),  # one whole chunk and a shorter one
        (6, {"carries": "all"}),
        (8, {"reverse": True, "carries": "all"}),
    ],
)
@pytest.mark.parametrize("masked", [True, False])
def test_equals_autodiff(backward: str, steps: int, options: dict[str, Any], masked: bool):
    params, xs, flags = draw(CELL, steps)
    flags = flags if masked else {}
    got, expected = (
        gradients(CELL, flags, tuple((options | {"backward": way}).items()), params, xs)
        for way in (backward, "autodiff")
    )
    assert_close(got, expected, f"{backward} {steps} {options}", 1e-10)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("backward", ["recompute", "store"])
def test_second_derivatives(backward: str):
    """Reverse over reverse, and forward over reverse (`jax.hessian`)."""
    params, xs, flags = draw(CELL, 4)

    def of_xs(way):
        return functools.partial(loss, CELL, flags, {"backward": way}, params)

    def reverse_twice(xs):
        gradient = jax.grad(of_xs(backward))
        return jax.jacrev(gradient)(xs)

    expected = jax.jit(jax.hessian(of_xs("autodiff")))(xs)
    assert np.abs(expected).max() > 0.01
    assert_close(jax.jit(jax.hessian(of_xs(backward)))(xs), expected, "hessian", 1e-10)
    assert_close(jax.jit(reverse_twice)(xs), expected, "reverse twice", 1e-10)


def test_jvp_is_that_of_autodiff():
    params, xs, flags = draw(CELL, 4)
    of_xs = functools.partial(loss, CELL, flags, {"backward": "autodiff"}, params)
    _, slope = jax.jvp(of_xs, (xs,), (jnp.ones_like(xs),))
    _, gradient = gradients(CELL, flags, (), params, xs)[1]
    np.testing.assert_allclose(slope, gradient.sum(), rtol=1e-10)
    own = functools.partial(loss, CELL, flags, {}, params)
    _, same = jax.jvp(own, (xs,), (jnp.ones_like(xs),))
    np.testing.assert_allclose(same, slope, 1e-5)


@pytest.mark.usefixtures("short_chunks")
def test_parameters_in_bfloat16_have_sums_in_float32():
    """A sum over many chunks in bfloat16 would stop growing at 256 times its terms."""
    cell, steps = GRU(1), 3 * 600
    params = jax.tree.map(
        lambda x: jnp.zeros_like(x, jnp.bfloat16), cell.init(jax.random.key(0), 1)
    )
    xs = jnp.ones((1, steps, 1))

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: unroll(cell, p, xs)[1].sum())(params)["input"]["bias"]

    exact = gradient(jax.tree.map(lambda x: x.astype(jnp.float32), params))
    np.testing.assert_allclose(gradient(params).astype(jnp.float32), exact, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("seen", [slice(-1, None), slice(None)], ids=["last", "all"])
def test_keeps_the_carries_alone(seen: slice):
    """An output that is part of the carry is not kept again, whether one or all are seen.

    Memory of the gradient, in arrays `[T, B, H]`: autodiff keeps 13 and more for an LSTM.
    """
    cell, steps, width = LSTM(64), 20_000, 64
    params = cell.init(jax.random.key(0), 4)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), params)
    xs = jax.ShapeDtypeStruct((steps, 16, 4), jnp.float32)

    def loss(params, xs):
        return (unroll(cell, params, xs, time_major=True)[1][seen] ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(shapes, xs).compile()
    units = compiled.memory_analysis().temp_size_in_bytes / (steps * 16 * width * 4)
    assert 2 < units < 3.2


def test_bad_options():
    params, xs, _ = draw(CELL, 2)
    with pytest.raises(ValueError, match=r"backward: .*Did you mean 'recompute'"):
        unroll(CELL, params, xs, backward="recompte")  # type: ignore[arg-type]
    linear = MinGRU(H)
    with pytest.raises(ValueError, match="the same for MinGRU: it stores no products"):
        unroll(linear, draw(linear, 2)[0], xs, backward="store")


def test_the_page_of_its_derivation_runs_and_knows_its_names():
    page = Path("docs/design/backward.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})
    core = Path(step.__file__).parents[1]
    code = "".join(path.read_text(encoding="utf-8") for path in core.rglob("*.py"))
    names = {*re.findall(r"`([a-zA-Z]\w*_[a-zA-Z]\w*)`", page)}
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
