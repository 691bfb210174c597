"""The same programs in one Pallas kernel, interpreted, beside `jax.lax.scan`.

Tiles and chunks are smaller than batch and time, and divide neither.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

import longlag as ll
from longlag.kernels import native, pallas
from longlag.kernels.program import Unsupported
from tests.kernels.test_cells import (
    BATCH,
    DENSE,
    OUT,
    STEPS,
    MinimalGated,
    RowNorm,
    TwoInARow,
    arguments,
    loss_of,
    never_falls_back,
)
from tests.kernels.test_fuzz import check as check_random_program

__all__ = ["never_falls_back"]

UNSEEN = [MinimalGated(OUT), TwoInARow(OUT), RowNorm(OUT)]
# Most of the time goes into compiling.
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
EVERYTHING = {"mask": True, "resets": True, "reverse": True, "carries": "all"}
FIRST = {ll.LSTM, ll.GRU, ll.LayerNormLSTM, ll.SLSTM, ll.StackRNN}
ORDINARY = [cell for cell in DENSE if type(cell) in FIRST] + UNSEEN
ROWS, CHUNK = 2, 3


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Runs programs in an interpreted kernel, and keeps what each call is given."""
    seen = []

    def run(*args, **options):
        seen.append((args, options))
        return pallas.run(*args, **options, rows=ROWS, chunk=CHUNK, interpret=True)

    monkeypatch.setattr(native, "run", run)
    return seen


def assert_same(one, other):
    for got, want in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 2e-5 * float(np.abs(want).max()))


def check_cell(cell, options):
    params, xs = arguments(cell)
    options = dict(options)
    for name, chance in (("mask", 0.7), ("resets", 0.3)):
        if name in options:
            options[name] = jax.random.bernoulli(jax.random.key(len(name)), chance, (BATCH, STEPS))
    one, other = (
        jax.jit(loss_of(cell, method, **options), compiler_options=CHEAP)(params, xs)
        for method in ("fused", "scan")
    )
    assert_same(one, other)


@pytest.mark.parametrize("cell", ORDINARY, ids=repr)
def test_cells_with_every_option_equal_the_scan(cell, never_falls_back, calls):
    check_cell(cell, EVERYTHING)
    assert [options["reverse"] for _, options in calls] == [True, False]


def draw(random, x):
    if x.dtype == bool:
        return random.integers(2, size=x.shape).astype(bool)
    return random.normal(size=x.shape).astype(x.dtype)


def test_a_simulated_tpu_reads_nothing_that_was_not_written(never_falls_back, calls):
    """What was not written, or lies beyond an array, is NaN there."""
    simulated = pltpu.InterpretParams(uninitialized_memory="nan")
    cell = ll.LSTM(3, learned_carry=True)
    types = jax.eval_shape(lambda: arguments(cell))
    jax.jit(loss_of(cell, "fused", mask=jnp.ones((BATCH, STEPS), bool))).lower(*types)
    random = np.random.default_rng(0)
    for (schedule, known, *groups, results), options in calls:
        groups = jax.tree.map(functools.partial(draw, random), groups)
        run = functools.partial(pallas.run, schedule, known, types=results, **options)
        one, other = (
            jax.jit(functools.partial(run, rows=4, chunk=CHUNK, interpret=interpret))(*groups)
            for interpret in (simulated, True)
        )
        assert_same(one, other)


@pytest.mark.deep
@pytest.mark.parametrize("cell", DENSE + UNSEEN, ids=repr)
@pytest.mark.parametrize("options", [{}, {"mask": True}], ids=["plain", "mask"])
def test_cells_equal_the_scan(cell, options, never_falls_back):
    check_cell(cell, options)


@pytest.mark.deep
@pytest.mark.parametrize("cell", [each for each in DENSE if each not in ORDINARY], ids=repr)
def test_other_cells_with_every_option_equal_the_scan(cell, never_falls_back):
    check_cell(cell, EVERYTHING)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_tiles_that_divide(steps, never_falls_back):
    """Nothing is left out of sums then."""
    cell = ll.GRU(4)
    params, _ = arguments(cell)
    xs = jax.random.normal(jax.random.key(2), (2 * ROWS, steps, 3))
    one, other = (
        jax.jit(loss_of(cell, method), compiler_options=CHEAP)(params, xs)
        for method in ("fused", "scan")
    )
    assert_same(one, other)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("parts", [1, 2], ids=["real", "complex"])
def test_linear_recurrences_equal_the_scan(parts, reverse, calls):
    keys = iter(jax.random.split(jax.random.key(4), 9))

    def draw(*shape):
        drawn = tuple(jax.random.normal(next(keys), shape) for _ in range(parts))
        return drawn if parts == 2 else drawn[0]

    arguments = draw(STEPS, BATCH, 4), draw(STEPS, BATCH, 4), draw(BATCH, 4), draw(BATCH, 4)
    resets = jax.random.bernoulli(next(keys), 0.3, (STEPS, BATCH))

    def loss(a, b, h0, h_reset, *, method):
        options = {"resets": resets, "h_reset": h_reset, "method": method, "reverse": reverse}
        return sum(jnp.sin(x).sum() for x in jax.tree.leaves(ll.linear_scan(a, b, h0, **options)))

    one, other = (
        jax.jit(
            jax.value_and_grad(functools.partial(loss, method=method), argnums=(0, 1, 2, 3)),
            compiler_options=CHEAP,
        )(*arguments)
        for method in ("fused", "scan")
    )
    assert len(calls) == 2
    assert_same(one, other)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_equal_a_scan(seed):
    check_random_program(seed)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(8, 100))
def test_many_random_programs_equal_a_scan(seed):
    check_random_program(seed)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("cell", [ll.LSTM(24), ll.GRU(24)], ids=["LSTM", "GRU"])
def test_kernels_lower_for_a_tpu(cell, dtype, never_falls_back, calls):
    """Pallas makes a program of Mosaic without a TPU. Its last compiler is not run here."""
    types = jax.eval_shape(lambda: arguments(cell, dtype))
    jax.jit(loss_of(cell, "fused", mask=jnp.ones((BATCH, STEPS), bool))).lower(*types)
    assert len(calls) == 2
    for (schedule, known, *groups, results), options in calls:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), groups)
        run = functools.partial(pallas.run, schedule, known, types=results, **options)
        lowered = jax.jit(run).trace(*shapes).lower(lowering_platforms=("tpu",))
        assert lowered.as_text().count("tpu_custom_call") == 1


def test_what_a_tpu_cannot_do_is_unsupported(never_falls_back, calls, monkeypatch):
    cell = ll.Elman(24)
    jax.jit(loss_of(cell, "fused")).lower(*jax.eval_shape(lambda: arguments(cell)))
    (args, options), _ = calls
    with (
        jax.default_matmul_precision("high"),
        pytest.raises(Unsupported, match="precision 'high'"),
    ):
        jax.eval_shape(lambda: pallas.run(*args, **options))
    monkeypatch.setattr(pallas, "ROOM", 50_000)
    with pytest.raises(Unsupported, match="bytes of matrices"):
        jax.eval_shape(lambda: pallas.run(*args, **options))
