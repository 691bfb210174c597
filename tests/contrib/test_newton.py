"""`newton` gives what `unroll` gives, gradients too, and says how it went."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, LSTM, Cell, Elman, MinGRU, unroll
from longlag.cells import FeedForward
from longlag.contrib.newton_method import newton
from longlag.contrib.newton_solver import _block_scan, _residual
from longlag.testing.running import MASK, RESETS, Case, assert_close, draw, random_like

CELLS = {
    "elman": Elman(3),
    "gru": GRU(3, learned_carry=True),
    "lstm": LSTM(2, learned_carry=True),
    "min gru": MinGRU(3, learned_carry=True),
}
EXACT = functools.partial(newton, tolerance=1e-14)


def results(run: Any, case: Case, with_carry: bool, **options: Any) -> Any:
    """Carries, outputs, how it went, and the gradients of random weights on all of them."""

    def outputs(params, xs, carry):
        carries, ys, *info = run(case.cell, params, xs, carry, carries="all", **options)
        return (carries, ys), info

    carry = case.carry if with_carry else None
    found, pull, info = jax.vjp(outputs, case.params, case.xs, carry, has_aux=True)
    return found, pull(random_like(found)), info


@functools.partial(jax.jit, static_argnums=0)
def both(cell: Cell, params, xs, carry, mask, resets):
    """Every mode of `newton` beside the same mode of `unroll`, in one program."""
    case = Case(cell, None, params, xs, carry)
    flags = {"mask": mask, "resets": resets}
    found = {}
    for name, with_carry, options in (
        ("streamed", True, flags),
        ("reverse", False, {**flags, "reverse": True}),
    ):
        expected = results(unroll, case, with_carry, **options)[:2]
        for jacobian in ("dense", "diagonal"):
            run = functools.partial(EXACT, jacobian=jacobian)
            *got, (info,) = results(run, case, with_carry, **options)
            found[f"{name}, {jacobian}"] = tuple(got), expected, info
    return found


@pytest.mark.parametrize("name", CELLS)
def test_it_gives_what_unroll_gives(name: str, x64: None):
    case = draw(CELLS[name], 2, MASK.shape)
    found = both(case.cell, case.params, case.xs, case.carry, MASK, RESETS)
    for what, (got, expected, info) in found.items():
        assert info.converged and not info.fell_back, what
        assert info.residual <= 1e-14 and info.iterations <= MASK.shape[1], what
        assert_close(got, expected, f"{name}, {what}", rtol=1e-9)
        if name == "min gru" and "diagonal" in what:
            assert info.iterations == 1, what
    if name != "elman":
        params = found["reverse, dense"][0][1][0]
        assert all(np.any(leaf) for leaf in jax.tree.leaves(params["carry"]))


def test_nan_where_nothing_looks_reaches_nothing(x64: None):
    """In masked inputs, and in a carry that is reset at once, or after masked steps that keep it.

    A state that is kept as NaN never counts as solved, so that the last has to fall back.
    """
    case = draw(CELLS["gru"], 2, MASK.shape)
    mask, resets = MASK.copy(), RESETS.copy()
    for at in (0, 1):
        resets[:, at] = True
        clean = both(case.cell, case.params, case.xs, case.carry, mask, resets)
        nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), case.carry)
        xs = jnp.where(mask[..., None], case.xs, jnp.nan)
        got = both(case.cell, case.params, xs, nan, mask, resets)
        for what in ("streamed, dense", "streamed, diagonal"):
            assert got[what][2].fell_back == bool(at)
            # Carries and outputs from the reset on, and all gradients.
            seen = [
                jax.tree.map(lambda x, at=at: x[:, at:], each[what][0][0]) for each in (got, clean)
            ]
            assert_close(*seen, f"{what}, {at}", rtol=1e-12)
            assert_close(got[what][0][1], clean[what][0][1], f"gradients, {what}, {at}", rtol=1e-9)
        mask[:, 0], resets[:, 0] = False, False


def test_nan_never_counts_as_solved():
    """In the midst of a row; `max` on XLA:CPU makes -inf of it, which is below any tolerance."""
    states = jnp.zeros((1000, 2, 16)).at[500:, 0].set(jnp.nan)
    worst, mean = jax.jit(_residual)(states, states)
    np.testing.assert_array_equal(worst, [np.inf, 0])
    np.testing.assert_array_equal(mean, [0.5, 0])


def chaotic(steps: int = 40) -> Case:
    """A cell whose recurrent weights are so large that it forgets nothing and amplifies all."""
    case = draw(Elman(3), 2, (2, steps))
    kernel = case.params["recurrent"]["kernel"]
    return case._replace(params={**case.params, "recurrent": {"kernel": 9 * kernel}})


@functools.partial(jax.jit, static_argnames=("most", "jacobian"))
def amplified(params, xs, most: int, jacobian: str):
    case = Case(Elman(3), None, params, xs, Elman(3).initial_carry(params, xs.shape[:1]))
    run = functools.partial(EXACT, jacobian=jacobian, max_iterations=most)
    return results(run, case, True), results(unroll, case, True)


@pytest.mark.parametrize("jacobian", ["dense", "diagonal"])
def test_a_chaotic_cell_falls_back_and_says_so(jacobian: str, x64: None):
    case = chaotic()
    (*got, (info,)), expected = amplified(case.params, case.xs, 5, jacobian)
    assert info.fell_back and not info.converged and info.iterations == 5
    assert info.residual > 1e-3
    # The two differ by rounding, which the cell amplifies at every step; gradients still more.
    assert_close(got[0], expected[0], "values", rtol=1e-9)
    assert_close(got[1], expected[1], "gradients", rtol=1e-6)


@pytest.mark.parametrize("jacobian", ["dense", "diagonal"])
def test_as_many_iterations_as_steps_are_always_enough(jacobian: str, x64: None):
    """Whatever overflows at first: the start of the sequence is right, and what is right grows."""
    case = chaotic()
    (*_, (info,)), _ = amplified(case.params, case.xs, 42, jacobian)
    assert info.converged and 5 < info.iterations <= 42


def test_bounded_moves_where_free_ones_diverge():
    """A long sequence that forgets, from a guess where the cell does not: 1000 steps, 45 at most.

    Without the bound the corrections overflow, and 100 iterations do not suffice.
    """
    cell = Elman(8)
    params = cell.init(jax.random.key(0), 4)
    params["recurrent"]["kernel"] *= 3
    params["input"]["kernel"] *= 4
    xs = jax.random.normal(jax.random.key(1), (2, 1000, 4))
    (carry, ys, info), (last, expected) = jax.jit(
        lambda: (newton(cell, params, xs), unroll(cell, params, xs))
    )()
    assert info.converged and 2 < info.iterations <= 45
    np.testing.assert_allclose(ys, expected, atol=1e-4)
    np.testing.assert_allclose(carry.h, last.h, atol=1e-4)


def test_seeds_side_by_side_each_with_its_own_account(x64: None):
    """One seed that converges beside one that does not; the values of both are right."""
    easy = chaotic()
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), easy.params, easy.params)
    params["recurrent"]["kernel"] = params["recurrent"]["kernel"].at[0].mul(1e-2)

    def run(params):
        return EXACT(easy.cell, params, easy.xs, max_iterations=8), unroll(
            easy.cell, params, easy.xs
        )

    (carry, ys, info), expected = jax.jit(jax.vmap(run))(params)
    assert info.converged.tolist() == [True, False] == (~info.fell_back).tolist()
    assert info.iterations[0] < info.iterations[1] == 8
    assert_close((carry, ys), expected, "seeds", rtol=1e-9)


def test_the_gradient_has_a_gradient(x64: None):
    case = draw(Elman(2), 2, (1, 4))

    def hessian(run):
        def value(params):
            return jnp.sum(run(case.cell, params, case.xs)[1] ** 3)

        return jax.jacrev(jax.grad(value))(case.params)

    dense, diagonal = (functools.partial(EXACT, jacobian=name) for name in ("dense", "diagonal"))
    found = jax.jit(lambda: [hessian(run) for run in (unroll, dense, diagonal)])()
    for got in found[1:]:
        assert_close(got, found[0], "the second derivatives", rtol=1e-9)


def test_the_tree_is_the_loop(rng: np.random.Generator, x64: None):
    """The scan for accelerators, which no other test here takes."""
    a, b = jnp.asarray(rng.normal(size=(7, 2, 3, 3))), jnp.asarray(rng.normal(size=(7, 2, 3)))
    h = np.zeros((2, 3))
    for t in range(7):
        h = np.einsum("bij,bj->bi", a[t], h) + b[t]
    for reverse, aa, bb in ((False, a, b), (True, a[::-1], b[::-1])):
        for method in ("scan", "associative"):
            found = _block_scan(aa, bb, reverse=reverse, method=method)
            np.testing.assert_allclose(found[0 if reverse else -1], h, rtol=1e-12)


def test_layout_dtypes_and_the_last_carry():
    """Time first, a carry in half precision, nothing in the carry, and no steps at all."""
    cell = GRU(2)
    fresh = operator.methodcaller("init", jax.random.key(0), 3)
    params = fresh(cell)
    xs = jax.random.normal(jax.random.key(1), (4, 2, 3))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), cell.initial_carry(params, (2,)))
    ahead = FeedForward(2)
    cases = (cell, params, half, 4), (cell, params, None, 0), (ahead, fresh(ahead), None, 4)
    for cell_, params_, carry, length in cases:
        expected = unroll(cell_, params_, xs[:length], carry, time_major=True)
        last, ys, info = newton(cell_, params_, xs[:length], carry, time_major=True)
        assert info.converged
        assert_close((last, ys), expected, f"{cell_}, {length} steps", rtol=2e-3)
    by_rows = newton(cell, params, jnp.swapaxes(xs, 0, 1))
    assert_close(
        by_rows[1], jnp.swapaxes(unroll(cell, params, xs, time_major=True)[1], 0, 1), "rows", 1e-4
    )


class Counter(Elman):
    """An Elman cell that counts steps."""

    def initial_carry(self, params, batch_shape=()):
        return super().initial_carry(params, batch_shape), jnp.zeros(batch_shape, jnp.int32)

    def step(self, params, carry, z):
        new, y = super().step(params, carry[0], z)
        return (new, carry[1] + 1), y


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"jacobian": "full"}, "unknown jacobian: expected one of auto, dense, diagonal"),
        ({"max_iterations": -1}, "expected numbers from zero on, got None and -1"),
        ({"tolerance": float("nan")}, "tolerance: expected a number or None, got float nan"),
        ({"cell": Counter(3)}, "expected a carry of floating numbers, got int32"),
        ({"xs": jnp.zeros((2, 4, 5))}, "with D = 2, the input features"),
        ({"mask": jnp.ones((2, 3), bool)}, "mask: expected bool of shape"),
        ({"carry": (1, 2)}, "carry: expected the structure"),
        ({"carries": "every"}, "unknown carries"),
    ],
)
def test_bad_input(changes: dict[str, Any], expected: str):
    cell = Elman(3)
    arguments = {
        "cell": cell,
        "params": cell.init(jax.random.key(0), 2),
        "xs": jnp.zeros((2, 4, 2)),
    }
    with pytest.raises(ValueError, match=expected):
        newton(**arguments | changes)
