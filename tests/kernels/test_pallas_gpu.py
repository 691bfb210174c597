"""The same programs in one kernel for a GPU, interpreted, beside `jax.lax.scan`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

import longlag as ll
from longlag.kernels import native, pallas_gpu
from longlag.kernels.looping import loop
from longlag.kernels.pallas_gpu_kernel import is_in_vectors, substitute
from longlag.kernels.program import Piece, Unsupported, Value
from longlag.kernels.tables import NAMES
from tests.kernels.test_cells import (
    BATCH,
    DENSE,
    STEPS,
    RowNorm,
    arguments,
    loss_of,
    never_falls_back,
)
from tests.kernels.test_fuzz import check as check_random_program
from tests.kernels.test_pallas import CHEAP, EVERYTHING, UNSEEN, assert_same, check_cell, draw

__all__ = ["never_falls_back"]

# One with products, one with row reductions and selections: most of the time goes into compiling.
ORDINARY = [ll.GRU(4), RowNorm(8)]
SPECIAL = [0.0, -0.0, 1e-30, -1e-9, 0.3, 0.5, -0.5, 1.5, 2.5, -2.5, 3e7, np.inf, -np.inf, np.nan]


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Runs programs in an interpreted kernel, and keeps what each call is given."""
    seen = []

    def run(*args, **options):
        seen.append((args, options))
        return pallas_gpu.run(*args, **options, interpret=True)

    monkeypatch.setattr(native, "run", run)
    return seen


@pytest.mark.parametrize("cell", ORDINARY, ids=repr)
def test_cells_with_every_option_equal_the_scan(cell, never_falls_back, calls):
    check_cell(cell, EVERYTHING)
    assert [options["reverse"] for _, options in calls] == [True, False]


@pytest.mark.deep
@pytest.mark.parametrize("cell", DENSE + UNSEEN, ids=repr)
@pytest.mark.parametrize("options", [{}, {"mask": True}, EVERYTHING], ids=["plain", "mask", "all"])
def test_every_cell_equals_the_scan(cell, options, never_falls_back):
    check_cell(cell, options)


@pytest.mark.parametrize("seed", range(3))
def test_random_programs_equal_a_scan(seed):
    check_random_program(seed)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(3, 100))
def test_many_random_programs_equal_a_scan(seed):
    check_random_program(seed)


def turning(kernel, state, x, before):
    """A step whose ranges begin between vectors, and move from place to place in the carry."""
    del before
    h, history = state
    width = h.shape[-1]
    largest = h.reshape(-1, 4, width // 4).max(-1)  # of four groups
    turned = jnp.concatenate([h[:, 7:], jnp.sin(h)[:, :7]], -1) * jnp.exp(-x[:, 3:])
    moved = jnp.concatenate([turned[:, 9:], turned[:, :9]], -1)
    column = jnp.exp(-h[:, 3:4]) * jax.nn.sigmoid(h @ kernel[:, :1])
    new = jnp.tanh(moved @ kernel + x[:, 3:] * largest[:, 1:2] + column * moved + history)
    history = jnp.concatenate([history[:, 5:], h[:, :5]], -1)
    return (new, history), (new[:, 9:], largest), (new.sum(0), h.T @ new, x[:, :1])


def turning_arguments(width, steps):
    random = np.random.default_rng(0)
    shapes = (width, width), (2, width), (2, width), (steps, 2, width + 3)
    kernel, *state, xs = (random.normal(size=s).astype(np.float32) / s[0] ** 0.5 for s in shapes)
    return kernel, tuple(state), xs


def turn(*args):
    return loop(turning, lambda *_: None, *args)


def test_ranges_begin_anywhere():
    def plainly(kernel, state, xs):
        def step(both, x):
            state, outputs, sums = turning(kernel, both[0], x, None)
            return (state, jax.tree.map(jnp.add, both[1], sums)), outputs

        _, _, zeros = jax.tree.map(jnp.zeros_like, turning(kernel, state, xs[0], None))
        (state, sums), outputs = lax.scan(step, (state, zeros), xs)
        return state, outputs, sums

    args = turning_arguments(260, 3)
    assert_same(jax.jit(turn)(*args), jax.jit(plainly)(*args))


def test_a_range_is_in_vectors_if_it_begins_with_one():
    wide, column = Value(260), Value(1)
    assert is_in_vectors(Piece(wide, 128, 132)) and is_in_vectors(Piece(column, 0, 1))
    assert is_in_vectors(Piece(column, 0, 260, narrow=True))
    for piece in (Piece(wide, 9, 200), Piece(wide, 128, 1), Piece(wide, 128, 132, narrow=True)):
        assert not is_in_vectors(piece)


def test_a_simulated_gpu_reads_nothing_that_was_not_written(calls):
    """What was not written is NaN there, and a read beyond an array an error."""
    jax.jit(turn).lower(*turning_arguments(16, 2))
    [((schedule, known, *groups, results), options)] = calls
    groups = jax.tree.map(functools.partial(draw, np.random.default_rng(0)), groups)
    run = functools.partial(pallas_gpu.run, schedule, known, types=results, **options)
    one, other = (
        jax.jit(functools.partial(run, interpret=interpret))(*groups)
        for interpret in (InterpretGPUParams(uninitialized_memory="nan"), True)
    )
    assert_same(one, other)


def test_linear_recurrences_equal_the_scan(calls):
    keys = iter(jax.random.split(jax.random.key(4), 9))

    def draw(*shape):
        return tuple(jax.random.normal(next(keys), shape) for _ in range(2))

    arguments = draw(STEPS, BATCH, 4), draw(STEPS, BATCH, 4), draw(BATCH, 4), draw(BATCH, 4)
    resets = jax.random.bernoulli(next(keys), 0.3, (STEPS, BATCH))

    def loss(a, b, h0, h_reset, *, method):
        options = {"resets": resets, "h_reset": h_reset, "method": method}
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


@pytest.mark.parametrize(
    ("cell", "dtype", "kernels"),
    [
        (ll.LSTM(200), jnp.float32, 2),
        (ll.LayerNormLSTM(8), jnp.bfloat16, 2),
        (ll.FeedForward(8), jnp.float32, 0),  # No step waits for another.
    ],
    ids=["LSTM", "LayerNormLSTM", "FeedForward"],
)
def test_programs_for_a_gpu_have_kernels_if_asked_for(cell, dtype, kernels, never_falls_back):
    types = jax.eval_shape(lambda: arguments(cell, dtype))
    for method, count in (("fused", kernels), ("auto", 0)):
        lowered = jax.jit(loss_of(cell, method)).trace(*types).lower(lowering_platforms=("cuda",))
        assert lowered.as_text().count("@mosaic_gpu") == count


@pytest.mark.deep
@pytest.mark.parametrize("cell", DENSE + UNSEEN, ids=repr)
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "all"])
def test_every_cell_lowers_for_a_gpu(cell, options, never_falls_back):
    flags = {name: jnp.ones((BATCH, STEPS), bool) for name in ("mask", "resets")}
    options = {name: flags.get(name, value) for name, value in options.items()}
    types = jax.eval_shape(lambda: arguments(cell))
    loss = loss_of(cell, "fused", **options)
    jax.jit(loss).trace(*types).lower(lowering_platforms=("cuda",))


@pytest.mark.parametrize(("platform", "name"), [("cuda", "@mosaic_gpu"), ("tpu", "tpu_custom")])
def test_a_batch_that_xla_shares_out_over_devices_has_no_kernel(platform, name):
    mesh = AbstractMesh((2,), ("data",))
    everywhere, by_row = (NamedSharding(mesh, P(*axes)) for axes in ((), ("data",)))
    xs = jax.ShapeDtypeStruct((4, STEPS, 3), jnp.float32, sharding=by_row)
    cell = ll.Elman(3)
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        jax.eval_shape(lambda: cell.init(jax.random.key(0), 3)),
    )

    def loss(params, xs):
        return ll.unroll(cell, params, xs, method="fused")[1].sum()

    of_each = jax.shard_map(
        loss, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False
    )
    for function, kernels in ((loss, 0), (of_each, 1)):
        lowered = jax.jit(function).trace(params, xs).lower(lowering_platforms=(platform,))
        assert lowered.as_text().count(name) == kernels


def test_the_kernel_lowers_with_the_other_semantics_too(never_falls_back, monkeypatch):
    """Which is the default of jax 0.12."""
    monkeypatch.setattr(pallas_gpu, "SEMANTICS", plgpu.LoweringSemantics.Warpgroup)
    loss, types = loss_of(ll.Elman(3), "fused"), jax.eval_shape(lambda: arguments(ll.Elman(3)))
    lowered = jax.jit(loss).trace(*types).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("@mosaic_gpu") == 2


OPERATIONS = (
    *(jnp.negative, jnp.exp, jnp.tanh, jax.nn.sigmoid, jnp.log, jnp.log1p, jnp.expm1, jnp.sqrt),
    *(lax.rsqrt, jnp.abs, jnp.sign, jnp.square, jnp.sin, jnp.cos, jnp.tan, lax.erf, jnp.floor),
    *(jnp.ceil, lambda x: x.astype(jnp.bfloat16).astype(jnp.float32)),
    *(lambda x: jnp.arctan2(x, x - 1), lambda x: jnp.minimum(1 / x, jnp.maximum(x, 0.5))),
    *(lambda x: jnp.where(~jnp.isfinite(x), 1.0, x), lambda x: jnp.where(x == 0.5, 1.0, x)),
    *(lambda x: jnp.where((x < 0) | (x >= 1), x, 1.0), lambda x: jnp.where(x != 0.5, 1.0, x)),
    *(lambda x: jnp.where((x <= 0) & (x > -1), x, 1.0), lambda x: x * x.sum(-1, keepdims=True)),
    *(lambda x: x - x.max(-1, keepdims=True), lambda x: x - x.min(-1, keepdims=True)),
)


def apply_all(_, carry, x, before):
    del before
    return carry + x, tuple(each(carry) for each in OPERATIONS), None


def test_every_operation_is_right_and_lowers_for_a_gpu(calls):
    carry, xs = jnp.linspace(0.1, 1.9, 260).reshape(2, 130), jnp.full((2, 2, 130), -1.0)
    ours = jax.jit(lambda c, x: loop(apply_all, lambda *_: None, None, c, x))(carry, xs)
    both = [apply_all(None, at, 0.0, None)[1] for at in (carry, carry - 1)]
    for got, *want in zip(ours[1], *both, strict=True):
        np.testing.assert_allclose(got, np.stack(want), 1e-4, 1e-5)
    (schedule, known, *groups, results), options = calls[0]
    names = {operation.name for operation in schedule.program.operations}
    missing = {"affine", "copy", "pow", "cbrt", "product", "outer", "columns", "stream"}
    assert names == {*NAMES} - missing
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), groups)
    run = functools.partial(pallas_gpu.run, schedule, known, types=results, **options)
    lowered = jax.jit(run).trace(*shapes).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("@mosaic_gpu") == 1


@pytest.mark.parametrize("name", ["sqrt", "tan", "floor", "ceil", "log1p", "is_finite"])
def test_operations_made_of_others(name):
    x = jnp.asarray(SPECIAL, jnp.float32)
    made = substitute(name, x, interpret=False)
    want = getattr(lax, name)(x).astype(jnp.float32)
    np.testing.assert_allclose(made, want, 5e-7)


def test_what_a_gpu_cannot_do_is_unsupported(calls, monkeypatch):
    for function in (jnp.cbrt, jnp.exp):
        jax.jit(
            lambda *args, f=function: loop(
                lambda _, c, x, before: (f(c) + x, None, None), lambda *_: None, None, *args
            )
        ).lower(jnp.ones((2, 130)), jnp.ones((3, 2, 130)))
    (one, options), (other, _) = calls
    with pytest.raises(Unsupported, match="cbrt on a GPU"):
        jax.eval_shape(lambda: pallas_gpu.run(*one, **options))
    monkeypatch.setattr(pallas_gpu, "ROOM", 1_000)
    with pytest.raises(Unsupported, match="bytes of a row"):
        jax.eval_shape(lambda: pallas_gpu.run(*other, **options))
