"""Extreme values: a cell in float32 against its own step in float64.

Every case is a row of one program. So a cell costs two compilations, however many cases there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.linear_cell import LinearCell
from longlag.core.matrix_cell import MatrixCell
from longlag.core.ops import Params
from longlag.core.unrolling import unroll
from longlag.testing.running import in_chunks, jit, random_like

LEVELS = (50.0, 88.0, 104.0, 1e4)
SCALES = (1.0, 30.0, 255.0, 32768.0)
STEPS = 5
RTOL = 1e-5
ULP = float(np.finfo(np.float32).eps)
# Inputs that are as near as float32 has them: what the equation itself makes of their rounding is
# allowed, since no program can know better.
NEIGHBOURS, SPREADS = 4, 8
# Numbers of float32 with room for a sum, and gradients whose factors are such numbers too.
LARGEST, LARGEST_GRADIENT = 1e37, 1e18
# A factor below the smallest normal number is zero in float32, whatever it is multiplied by.
TINY = float(np.finfo(np.float32).tiny) * 1e12


def check_extremes(cell: Cell, in_features: int = 2, *, fixed: Collection[str] = ()) -> None:
    """Raises unless extreme inputs and parameters give the values and gradients of float64.

    The inputs have scales from 1 to 32,768. The vectors among the parameters, which are biases as a
    rule, are moved by ±50, ±88, ±104 and ±1e4, so that gates are shut, open, or both at random and
    decays are exactly zero and one. Single steps have an input of ±1e4: the first, so that gates
    may be shut before anything was written, or one in the middle, so that all may be forgotten. In
    one case everything is zero, queries and keys too. Every method, and one step at a time, gives
    the same.

    Args:
        cell: the cell.
        in_features: D.
        fixed: names of vectors that stay: a phase of exp(50) radians has no digit in float32.

    Raises:
        AssertionError: a value or a gradient is not finite, or differs by more than 1e-5 of itself
            and what the rounding of the inputs to float32 explains, where it is finite in float64
            and a number of float32. A dense cell may differ by an ulp of one, since `1 - z` has no
            more digits, and a gradient by ulps of what arrives at a saturated gate or of the
            largest gradient.
    """
    names, params, xs = extremes(cell, in_features, fixed)
    with in_chunks():
        results = jax.tree.map(np.asarray, run_in_float32(cell, params, xs))
    with jax.enable_x64(True):
        expected, spread = run_in_float64(cell, params, xs)
    inputs = 1 + largest_magnitude(xs)
    memory = isinstance(cell, (LinearCell, MatrixCell))
    kept = TINY if memory else SPREADS * ULP
    # A slope that is wrong by an ulp is multiplied by the input and by what the gate lets through:
    # in a memory the product of a value, a key and a query.
    passed = inputs * np.maximum(inputs, largest_magnitude(params)) ** (3 if memory else 1)
    slope = SPREADS * ULP * np.maximum(passed, largest_magnitude(expected[1]))
    # Where an output is no number of float32, its gradients need not be.
    slope = np.where(largest_magnitude(expected[0]) < LARGEST, slope, np.inf)
    for way, (ys, gradients) in results.items():
        what = f"{cell}, {way}: outputs"
        compare(ys, expected[0], spread[0], kept * inputs, LARGEST, names, what)
        if gradients is not None:
            what = f"{cell}, {way}: gradients"
            compare(gradients, expected[1], spread[1], slope, LARGEST_GRADIENT, names, what)


def extremes(
    cell: Cell, in_features: int, fixed: Collection[str]
) -> tuple[list[str], Any, np.ndarray]:
    """Names of the cases, parameters with a leading axis of cases, and inputs `[N, T, D]`."""
    fresh = jit(lambda: cell.init(jax.random.key(1), in_features))()
    fresh = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), fresh)
    noisy = jax.tree.map(lambda leaf, noise: leaf + 0.1 * noise, fresh, random_like(fresh, 2))
    # A learned first state begins at nothing, and a gate may be shut before it.
    fresh = noisy | {name: fresh[name] for name in ("carry",) if name in fresh}
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(STEPS, in_features))
    cases: list[tuple[str, Any, np.ndarray]] = [
        (f"inputs of scale {scale:g}", fresh, scale * inputs) for scale in SCALES
    ]
    for step, value in ((0, 1e4), (0, -1e4), (2, 1e4), (2, -1e4)):
        spiked = inputs.copy()
        spiked[step] = value
        cases.append((f"an input of {value:g} at step {step}", fresh, spiked))
    for level in LEVELS:
        for signs in ((1,), (-1,), (-1, 0, 1), (-1, 0, 1)):
            moved = move_vectors(fresh, level, signs, {*fixed, "carry"}, rng)
            cases.append((f"vectors moved by {level:g} times {signs}", moved, inputs))
    zero = {k: jax.tree.map(np.zeros_like, v) if k == "input" else v for k, v in fresh.items()}
    cases.append(("no input", zero, 0 * inputs))
    names, params, xs = zip(*cases, strict=True)
    return list(names), jax.tree.map(lambda *x: np.stack(x), *params), np.stack(xs).astype("f4")


def move_vectors(
    params: Params, level: float, signs: tuple[int, ...], fixed: set[str], rng: np.random.Generator
) -> Params:
    """The vectors among the parameters moved up or down; a learned first state stays."""

    def move(path: tuple[Any, ...], leaf: np.ndarray) -> np.ndarray:
        if leaf.ndim != 1 or path[0].key in fixed:
            return leaf
        return leaf + np.float32(level) * rng.choice(signs, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(move, params)


def outputs_and_gradients(
    run: Callable[[Params, jax.Array], Any], params: Params, xs: jax.Array
) -> tuple[Any, Any]:
    """Outputs and the gradient of their weighted sum in parameters and inputs."""
    ys, pull = jax.vjp(run, params, xs)
    return ys, pull(jax.tree.map(jnp.asarray, random_like(ys)))


@functools.partial(jit, static_argnums=0)
def run_in_float32(cell: Cell, params: Params, xs: jax.Array) -> dict[str, tuple[Any, Any]]:
    """Outputs and gradients by every method, and outputs of one step at a time."""

    def run_whole(method: Any, params: Params, xs: jax.Array) -> Any:  # xs [T, D]
        return unroll(cell, params, xs[None], method=method)[1]

    def run_by_steps(params: Params, xs: jax.Array) -> Any:
        def body(carry: Any, x: jax.Array) -> tuple[Any, Any]:  # x [D]
            return unroll(cell, params, x[None, None], carry)

        ys = jax.lax.scan(body, cell.initial_carry(params, (1,)), xs)[1]
        return jax.tree.map(lambda y: jnp.swapaxes(y[:, :, 0], 0, 1), ys)

    methods = ["scan"]
    methods += ["chunked"] * isinstance(cell, (LinearCell, MatrixCell))
    methods += ["associative"] * isinstance(cell, LinearCell)
    results: dict[str, tuple[Any, Any]] = {}
    for method in methods:
        run = functools.partial(outputs_and_gradients, functools.partial(run_whole, method))
        results[method] = jax.vmap(run)(params, xs)
    return results | {"step by step": (jax.vmap(run_by_steps)(params, xs), None)}


def run_in_float64(cell: Cell, params: Params, xs: np.ndarray) -> tuple[Any, Any]:
    """Outputs and gradients of the step in float64, and how far neighbours of the inputs are."""
    rng = np.random.default_rng(4)

    def neighbours(leaf: Any) -> np.ndarray:  # [...] to [1 + NEIGHBOURS, ...]
        leaf = np.asarray(leaf, np.float64)
        signs = rng.choice([-1, 1], (NEIGHBOURS, *leaf.shape))
        return np.concatenate([leaf[None], leaf * (1 + ULP * signs)])

    everything = jax.tree.map(neighbours, (params, xs))
    one_input = jax.ShapeDtypeStruct((1, xs.shape[-1]), np.float64)
    one_case = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], np.float64), params)
    stored = jax.eval_shape(
        lambda params, x: (cell.project(params, x), cell.initial_carry(params, (1,))),
        one_case,
        one_input,
    )
    ones = jax.tree.map(lambda leaf: neighbours(np.ones((*xs.shape[:2], *leaf.shape))), stored)
    expected = jax.tree.map(np.asarray, run_steps_in_float64(cell, *everything, ones))
    with np.errstate(invalid="ignore", over="ignore"):
        spread = jax.tree.map(lambda leaf: np.abs(leaf[1:] - leaf[0]).max(axis=0), expected)
    return jax.tree.map(lambda leaf: leaf[0], expected), spread


@functools.partial(jit, static_argnums=0)
def run_steps_in_float64(cell: Cell, params: Params, xs: jax.Array, ones: Any) -> tuple[Any, Any]:
    """Of every case and its neighbours, by jax's own gradient of a plain loop.

    What float32 rounds at each step, the projected input and the carry, is multiplied by numbers
    that are one, or an ulp more or less.
    """

    def run_case(params: Params, xs: jax.Array, ones: Any) -> tuple[Any, Any]:
        def run(params: Params, xs: jax.Array) -> Any:  # xs [T, D]
            def body(carry: Any, inputs: tuple[jax.Array, Any]) -> tuple[Any, Any]:
                x, ones = inputs
                z, carry = jax.tree.map(perturb, (cell.project(params, x[None]), carry), ones)
                return cell.step(params, carry, z)

            ys = jax.lax.scan(body, cell.initial_carry(params, (1,)), (xs, ones))[1]
            return jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)

        return outputs_and_gradients(run, params, xs)

    return jax.vmap(jax.vmap(run_case))(params, xs, ones)


def perturb(leaf: jax.Array, ones: jax.Array) -> jax.Array:
    """A floating leaf and its neighbour."""
    return leaf * ones if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def largest_magnitude(tree: Any) -> np.ndarray:
    """The largest magnitude in each case, `[N]`."""
    leaves = [np.abs(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves, axis=1).max(axis=1)


def compare(
    actual: Any,
    expected: Any,
    spread: Any,
    atol: np.ndarray,
    most: float,
    names: list[str],
    what: str,
) -> None:
    """Leaves `[N, ...]` agree, case by case."""

    def compare_leaf(path: tuple[Any, ...], a: np.ndarray, e: np.ndarray, s: np.ndarray) -> None:
        slack = atol.reshape(-1, *(1,) * (e.ndim - 1))
        with np.errstate(invalid="ignore", over="ignore"):
            counts = (np.abs(e) + s < most) & np.isfinite(slack)
            off = np.abs(a - e) - RTOL * np.abs(e) - SPREADS * s - slack
        wrong = counts & ~(off <= 0)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            cases = [names[i] for i in sorted({*np.argwhere(wrong)[:, 0]})]
            raise AssertionError(
                f"{what}{jax.tree_util.keystr(path)}, {names[at[0]]}: expected {e[at]:g} "
                f"(give or take {s[at]:g}), got {a[at]:g}; wrong in {wrong.sum()} numbers of the "
                f"cases: {', '.join(cases)}"
            )

    jax.tree_util.tree_map_with_path(compare_leaf, actual, expected, spread)
