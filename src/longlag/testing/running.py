"""Cases of a cell, the ways to run them, and comparisons."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.core.scans import matrix_methods, step
from longlag.core.unrolling import unroll
from longlag.testing.python_loop import Flags

# These programs run once or twice, for microseconds: compiling is all that they cost.
jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)
# Four rows: one with holes, two that are masked everywhere, one with padding at its end. Resets
# fall on the first step, masked and live; in the middle, masked and live; twice in a row; never.
MASK = np.array([[0, 1, 1, 0, 1, 1], [0] * 6, [0] * 6, [1, 1, 1, 1, 0, 0]], bool)
RESETS = np.array([[1, 0, 0, 1, 0, 1], [0] * 6, [0, 0, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]], bool)
LIVE, CONTINUED = np.ones_like(MASK), np.zeros_like(RESETS)
FLAGS = {
    "neither": Flags(LIVE, CONTINUED),
    "mask": Flags(MASK, CONTINUED),
    "resets": Flags(LIVE, RESETS),
    "both": Flags(MASK, RESETS),
}
# How a sequence is cut; `make test-deep` has other lengths and other pieces.
CUTS = {"whole": (6,), "step by step": (1,) * 6}
WHOLE = CUTS["whole"]
SEEDS = 3


class Case(NamedTuple):
    """A cell with what it runs on: parameters as drawn and perturbed, inputs, a carry in use."""

    cell: Cell
    fresh: Any
    params: Any
    xs: jax.Array
    carry: Any


class Result(NamedTuple):
    """What a run gives: all carries, outputs, and gradients in params, inputs and first carry."""

    carries: Any
    ys: Any
    params: Any
    xs: jax.Array
    carry: list[jax.Array]


Run = Callable[[Any, jax.Array, Any], tuple[Any, Any]]


@contextlib.contextmanager
def in_chunks() -> Iterator[None]:
    """So short sequences as if they were long: two chunks and one that is shorter."""
    with (
        mock.patch.multiple(step, AIM_AT_LEAST=3, AIM_AT_MOST=3),
        mock.patch.multiple(matrix_methods, CHUNK=3, CHUNK_PER_KEY=3),
    ):
        yield


# --- running and comparing ----------------------------------------------------------------------


class Weights(NamedTuple):
    """What is pulled back, each times random numbers of its own."""

    ys: np.ndarray = np.ones(MASK.shape)  # [B, T]
    carries: float = 1.0
    last: float = 0.0  # the last carries once more


@functools.partial(jit, static_argnums=(0, 1))
def program(
    cell: Cell,
    lengths: tuple[int, ...],
    params: Params,
    xs: jax.Array,
    carry: Any,
    flags: Flags,
    weights: Weights,
) -> Result:
    """A run in pieces and its gradient, in one program for all clauses."""
    floats, join = partition(carry)

    def run_piece(
        params: Params, carry: Any, part: tuple[jax.Array, Flags]
    ) -> tuple[Any, tuple[Any, Any]]:
        xs, flags = part
        options = flags._asdict()
        carries, ys = unroll(cell, params, xs, carry, **options, method="scan", carries="all")
        return jax.tree.map(lambda leaf: leaf[:, -1], carries), (carries, ys)

    def run_pieces(params: Params, carry: Any, xs: jax.Array) -> tuple[Any, Any]:
        parts, end = [], 0
        for length in lengths:
            now = np.s_[:, end : end + length]
            end += length
            part = jax.tree.map(lambda leaf, now=now: leaf[now], (xs, flags))
            carry, part = run_piece(params, carry, part)
            parts.append(part)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *parts)

    def run_equal_pieces(params: Params, carry: Any, xs: jax.Array) -> tuple[Any, Any]:
        def cut(leaf: jax.Array) -> jax.Array:  # [B, T, ...] to [pieces, B, T / pieces, ...]
            return jnp.swapaxes(leaf.reshape(len(leaf), len(lengths), -1, *leaf.shape[2:]), 0, 1)

        inputs = jax.tree.map(cut, (xs, flags))
        _, out = jax.lax.scan(functools.partial(run_piece, params), carry, inputs)
        return jax.tree.map(lambda leaf: jnp.concatenate(jnp.unstack(leaf), 1), out)

    def outputs(params: Params, xs: jax.Array, floats: list[jax.Array]) -> tuple[Any, Any]:
        run = run_equal_pieces if len({*lengths}) == 1 else run_pieces
        carries, ys = run(params, join(floats), xs)
        return (partition(carries)[0], ys), carries

    (parts, ys), pull, carries = jax.vjp(outputs, params, xs, floats, has_aux=True)
    of_parts, of_ys = random_like((parts, ys))
    of_last, _ = random_like(([leaf[:, -1] for leaf in parts], ys))
    of_parts = [
        (weights.carries * leaf).at[:, -1].add(weights.last * last)
        for leaf, last in zip(of_parts, of_last)
    ]
    by_step = jnp.asarray(weights.ys)  # [B, T]
    of_ys = jax.tree.map(lambda y: y * by_step.reshape(by_step.shape + (1,) * (y.ndim - 2)), of_ys)
    return Result(carries, ys, *pull((of_parts, of_ys)))


def run_unroll(
    case: Case,
    flags: Flags,
    lengths: tuple[int, ...] = WHOLE,
    weights: Weights | None = None,
) -> Result:
    """`unroll` in pieces, each of which begins with the carry that the last one left."""
    weights = Weights(np.ones(flags.mask.shape)) if weights is None else weights
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, case.xs.dtype), weights)
    return program(case.cell, lengths, case.params, case.xs, case.carry, flags, weights)


def differentiate(run: Run, case: Case) -> Result:
    """Runs, and pulls random weights on outputs and carries back, the same as `program`."""
    floats, join = partition(case.carry)

    def outputs(params: Params, xs: jax.Array, floats: list[jax.Array]) -> tuple[Any, Any]:
        carries, ys = run(params, xs, join(floats))
        return (partition(carries)[0], ys), carries

    (parts, ys), pull, carries = jax.vjp(outputs, case.params, case.xs, floats, has_aux=True)
    return Result(carries, ys, *pull(random_like((parts, ys))))


def partition(tree: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """The floating leaves, and how to put such leaves back among the others."""
    leaves, structure = jax.tree.flatten(tree)
    where = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def join(floats: list[jax.Array]) -> Any:
        joined = list(leaves)
        for i, leaf in zip(where, floats):
            joined[i] = leaf
        return jax.tree.unflatten(structure, joined)

    return [leaves[i] for i in where], join


def parameter_shapes(cell: Cell, in_features: int) -> Any:
    """Of `init`, without drawing."""
    return jax.eval_shape(lambda key: cell.init(key, in_features), jax.random.key(0))


def random_like(tree: Any, seed: int = 0) -> Any:
    """Normal numbers, those of a leaf by its place in the tree, whatever the others are."""
    leaves, structure = jax.tree.flatten(tree)
    noise = [np.random.default_rng((seed, i)).normal(size=x.shape) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, [d.astype(x.dtype) for d, x in zip(noise, leaves)])


def draw(cell: Cell, in_features: int, shape: tuple[int, int], dtype: Any = jnp.float64) -> Case:
    """Parameters away from their zeros, random inputs, and the carry that three steps have left."""
    fresh = jit(lambda: cell.init(jax.random.key(1), in_features))()
    fresh = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), fresh)
    params = jax.tree.map(lambda leaf, noise: leaf + 0.1 * noise, fresh, random_like(fresh, 2))
    xs = random_like(np.zeros((*shape, in_features), dtype), 3)
    return advance_carry(Case(cell, fresh, params, xs, cell.initial_carry(params, shape[:1])))


def advance_carry(case: Case) -> Case:
    """The same with the carry that its steps leave: natural to the cell, other in every row."""
    flags = Flags(np.ones(case.xs.shape[:2], bool), np.zeros(case.xs.shape[:2], bool))
    earlier = case._replace(xs=random_like(case.xs, 4))
    carries = run_unroll(earlier, flags, (1,) * case.xs.shape[1]).carries
    return case._replace(carry=jax.tree.map(lambda leaf: leaf[:, -1], carries))


def assert_close(actual: Any, expected: Any, what: str, rtol: float = 1e-10) -> None:
    """Two trees agree: floats within `rtol` of the largest entry of a leaf, all else exactly."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected), what

    def compare(path: tuple[Any, ...], a: Any, e: Any) -> None:
        message = f"{what}: {jax.tree_util.keystr(path)}"
        assert a.dtype == e.dtype, f"{message}: expected {e.dtype}, got {a.dtype}"
        if jnp.issubdtype(e.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        if not rtol or not jnp.issubdtype(e.dtype, jnp.floating):
            np.testing.assert_array_equal(a, e, message)
        else:
            atol = rtol * max(1e-3, np.abs(e).max(initial=0))
            np.testing.assert_allclose(a, e, rtol=rtol, atol=atol, err_msg=message)

    jax.tree_util.tree_map_with_path(compare, actual, expected)


def same(tree: Any, other: Any) -> bool:
    """Whether structure, shapes and dtypes agree."""
    return jax.tree.flatten(tree) == jax.tree.flatten(other)


def as_shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """What stands for an array in `jax.eval_shape`."""
    return jax.ShapeDtypeStruct(shape, dtype)


def run_modes(case: Case, modes: Sequence[str]) -> Any:
    """Last carries, outputs and gradients for three seeds, which share some of their parameters.

    Args:
        case: what to run.
        modes: any of "reverse", "time_major", "seeds" (side by side by `jax.vmap`, not one after
            another), "checkpoint around" (`unroll`), "checkpoint inside" (the cell's own step),
            "associative", "chunked", "store" (the backward). None of them: as every other clause
            runs.
    """
    flags = FLAGS["both"]
    leaves, structure = jax.tree.flatten(case.params)
    axes = [None if i % 2 else 0 for i in range(len(leaves))]
    noise = [random_like(np.stack([leaf] * SEEDS), 5 + i) for i, leaf in enumerate(leaves)]
    leaves = [leaf if axis is None else new for leaf, new, axis in zip(leaves, noise, axes)]
    flip = functools.partial(jnp.flip, axis=1) if "reverse" in modes else lambda leaf: leaf
    swap = (lambda leaf: jnp.swapaxes(leaf, 0, 1)) if "time_major" in modes else lambda leaf: leaf

    def run(params: Params, xs: jax.Array, carry: Any) -> tuple[Any, Any]:
        mask, resets = (swap(flip(flag)) for flag in flags)
        last, ys = unroll(
            with_checkpointed_step(case.cell) if "checkpoint inside" in modes else case.cell,
            params,
            swap(flip(xs)),
            carry,
            mask=mask,
            resets=resets,
            reverse="reverse" in modes,
            method=cast(Any, next((m for m in ("associative", "chunked") if m in modes), "auto")),
            backward="store" if "store" in modes else "auto",
            time_major="time_major" in modes,
        )
        return last, jax.tree.map(lambda y: flip(swap(y)), ys)

    if "checkpoint around" in modes:
        run = jax.checkpoint(run)

    def run_seed(leaves: list[Any]) -> Result:
        seed = case._replace(params=jax.tree.unflatten(structure, leaves))
        if modes:
            return differentiate(run, seed)
        result = run_unroll(seed, flags, weights=Weights(carries=0, last=1))
        last = jax.tree.map(lambda leaf: leaf[:, -1], result.carries)
        return result._replace(carries=last)

    if "seeds" in modes:
        return jit(jax.vmap(run_seed, in_axes=(axes,)))(leaves)
    results = [
        run_seed([leaf if axis is None else leaf[seed] for leaf, axis in zip(leaves, axes)])
        for seed in range(SEEDS)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def with_checkpointed_step(cell: Cell) -> Cell:
    """The same cell, with `jax.checkpoint` inside."""
    kind = type(cell)

    def step(self: Any, params: Params, carry: Any, z: Any) -> tuple[Any, Any]:
        return jax.checkpoint(functools.partial(kind.step, self))(params, carry, z)

    checkpointed = type(f"Checkpointed{kind.__name__}", (kind,), {"step": step})
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
    return checkpointed(**fields)
