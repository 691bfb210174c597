"""Half precision: each product and each sum of many is taken in at least float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from longlag.attention import Multiplicative
from tests.helpers.programs import PROGRAMS, Program, trace

HALF = (jnp.bfloat16, jnp.float16)
PRODUCTS = ("dot_general", "conv_general_dilated")
SUMS = ("reduce_sum", "cumsum", "cumlogsumexp", "reduce_window_sum", "scatter-add")
# Parameters and inputs: one of the two, and both, each in both dtypes somewhere.
DTYPES = {
    "parameters": (jnp.bfloat16, jnp.float32),
    "inputs": (jnp.float32, jnp.float16),
    "both": (jnp.float16, jnp.float16),
}


def equations(jaxpr: Any) -> Iterator[Any]:
    """Of a jaxpr and of all that lie in its equations: scans, conds, custom gradients, calls."""
    for equation in jaxpr.eqns:
        yield equation
        for leaf in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr))
        ):
            if isinstance(leaf, (ClosedJaxpr, Jaxpr)):
                yield from equations(leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf)


def added_up(scan: Any) -> list[str]:
    """What a scan adds to at each step in half precision: the gradient of a constant of it."""
    body = scan.params["jaxpr"]
    body = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    # By shapes, since jax 0.12 names no counts: what is stacked has an axis more outside.
    count = sum(o.aval.shape == i.aval.shape for o, i in zip(scan.outvars, body.outvars))
    stacked = sum(o.aval.shape != i.aval.shape for o, i in zip(scan.invars, body.invars))
    first = len(body.invars) - stacked - count
    carried = dict(zip(body.outvars[:count], body.invars[first : first + count]))
    return [
        f"add in a scan: {equation.outvars[0].aval}"
        for equation in body.eqns
        if equation.primitive.name in ("add", "add_any")
        and equation.outvars[0].aval.dtype in HALF
        and any(carried.get(equation.outvars[0]) is var for var in equation.invars)
    ]


def in_half(jaxpr: Any) -> list[str]:
    """The products and the sums of several numbers whose result is in half precision."""
    bad = []
    for equation in equations(jaxpr):
        if not equation.outvars:
            continue
        name, out = equation.primitive.name, equation.outvars[0].aval
        if name == "scan":
            bad += added_up(equation)
        if getattr(out, "dtype", None) not in HALF:
            continue
        several = name != "reduce_sum" or equation.invars[0].aval.size > out.size
        if name in PRODUCTS or (name in SUMS and several):
            bad.append(f"{name} {[str(v.aval) for v in equation.invars]}")
    return bad


def of_each_kind(names):
    """Variants of one cell are for `make test-deep`."""
    kinds = [name.partition("-")[2] if name[0].isdigit() else name for name in names]
    return [
        pytest.param(name, marks=[pytest.mark.deep] * (kind in kinds[:i]))
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]


@pytest.mark.parametrize("name", of_each_kind(list(PROGRAMS)))
def test_products_and_sums_are_in_float32(name):
    """In turn parameters, inputs and both are in half precision; all of them in the deep test."""
    turn = list(PROGRAMS).index(name)
    for i, (what, program) in enumerate(PROGRAMS[name].items()):
        if what in ("step", "jacobians"):  # their products are those of the other programs
            continue
        check(f"{name}, {what}", program, list(DTYPES.values())[(turn + i) % 3])


@pytest.mark.deep
@pytest.mark.parametrize("of", DTYPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_products_and_sums_are_in_float32_whatever_is_in_half(name, of):
    for what, program in PROGRAMS[name].items():
        check(f"{name}, {what}", program, DTYPES[of])


def check(what: str, program: Program, dtypes: Any) -> None:
    """Also that nothing is promoted silently, which is cheap to see here."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jaxpr, _ = trace(program, *dtypes)
    assert not in_half(jaxpr.jaxpr), f"{what}: {in_half(jaxpr.jaxpr)}"


def test_what_is_refused_is_found_wherever_it_is():
    def product(x, y):
        return x @ y

    def inside(x, y):
        def body(carry, _):
            return carry + jax.lax.cond(True, product, product, x, y).sum(), None

        return jax.lax.scan(jax.checkpoint(body), jnp.zeros((), x.dtype), length=3)[0]

    x = jnp.ones((4, 4), jnp.bfloat16)
    found = in_half(jax.make_jaxpr(jax.grad(inside))(x, x).jaxpr)
    assert any("dot_general" in line for line in found)
    assert any("add in a scan" in line for line in found)


@pytest.mark.parametrize("dtype", HALF)
def test_dot_scores_of_half_precision_are_those_of_float32(dtype):
    """The products of 64 forties are beyond float16."""
    layer = Multiplicative(64, score="dot")
    xs = jnp.full((2, 1, 64), 40.0, dtype)
    np.testing.assert_array_equal(layer.apply({}, xs)[1], jnp.full((2, 1, 64), 40.0))
    xs = 0.3 * jax.random.normal(jax.random.key(0), (6, 1, 64), dtype)
    expected = layer.weights({}, xs.astype(jnp.float32))
    np.testing.assert_allclose(layer.weights({}, xs), expected, rtol=1e-5)
