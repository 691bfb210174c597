"""Diagnostics of a trained network: gradients, Jacobians, time constants, attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.ops import Params, affine
from longlag.core.promotion import widen
from longlag.core.unrolling import unroll
from longlag.models.sequence import SequenceModel
from longlag.nn.block import Block
from longlag.nn.containers import Repeated, Stack
from longlag.nn.recurrent import Recurrent

__all__ = [
    "attention_by_lag",
    "gradient_by_lag",
    "jacobians",
    "recurrences",
    "spectral_radius",
    "time_constants",
]


def gradient_by_lag(
    model: SequenceModel,
    params: Params,
    inputs: jax.Array,
    *,
    mask: jax.Array | None = None,
    targets: jax.Array | None = None,
    at: jax.Array | None = None,
) -> jax.Array:
    """Measures the gradient of the answer at one step with respect to each input before it.

    The norm of the gradient of a loss at step t with respect to the embedded input at step s, over
    lag t - s: where it is small, the network does not learn from that far back (Hochreiter 1991;
    Bengio, Simard and Frasconi 1994).

    Args:
        model: the model.
        params: its parameters.
        inputs: tokens `[B, T]` or features `[B, T, D]`.
        mask: `[B, T]` bool or None.
        targets: `[B, T]` classes or `[B, T, K]` values; the loss is cross-entropy or the square.
            None: the sum of all answers.
        at: `[B]` the step t of each row; None: the last one.

    Returns:
        `[T]`, by lag from 0: the mean over the rows that reach so far back. No row reaches further
        back than the latest `at`; it is zero there.
    """
    embedded, mask_t, _ = model.embed(params, inputs, mask)
    steps, rows = embedded.shape[:2]
    when = jnp.full(rows, steps - 1) if at is None else at
    row = jnp.arange(rows)

    def loss(embedded: jax.Array) -> jax.Array:  # [T, B, E] to a number
        _, ys = model.stack.apply(params["layers"], embedded, mask=mask_t)
        answers = affine(params["head"], ys[when, row])
        if targets is None:
            return answers.sum()
        wanted = targets[row, when]
        if jnp.issubdtype(wanted.dtype, jnp.integer):
            scores = jax.nn.log_softmax(answers)
            return -jnp.take_along_axis(scores, wanted[:, None], axis=1).sum()
        return ((answers - wanted) ** 2).sum()

    norms = jnp.linalg.norm(jax.grad(loss)(embedded), axis=-1)  # [T, B]
    back = when[None] - jnp.arange(steps)[:, None]  # the step that lies so many steps back
    norms_at_lag = jnp.take_along_axis(norms, jnp.maximum(back, 0), axis=0)
    there = back >= 0
    total = jnp.sum(jnp.where(there, norms_at_lag, 0), axis=1)
    return total / jnp.maximum(there.sum(axis=1), 1).astype(total.dtype)


def jacobians(cell: Cell, params: Params, xs: jax.Array) -> jax.Array:
    """The Jacobian of every step's new state by the old one, along one trajectory.

    Args:
        cell: the cell.
        params: its parameters.
        xs: inputs of one sequence, `[T, D]`.

    Returns:
        `[T, S, S]`, S the number of floating numbers in the carry, in the order of its leaves.
    """
    first = cell.initial_carry(params, (1,))
    carries, _ = unroll(cell, params, xs[None], carries="all")
    before = jax.tree.map(
        lambda f, c: jnp.concatenate([f, c[0, :-1].astype(f.dtype)]), first, carries
    )
    zs = cell.project(params, xs)
    leaves, structure = jax.tree.flatten(before)
    floating = [bool(jnp.issubdtype(leaf.dtype, jnp.floating)) for leaf in leaves]

    # The carry has no batch here: `leaves` are those of one step, `z` what `project` gave for it.
    def flatten(leaves: Sequence[jax.Array]) -> jax.Array:  # to [S]
        return jnp.concatenate([x.ravel() for x, f in zip(leaves, floating) if f])

    def jacobian(leaves: Sequence[jax.Array], z: Any) -> jax.Array:  # to [S, S]
        def new_state(state: jax.Array) -> jax.Array:  # [S] to [S]
            parts, begin = [], 0
            for leaf, f in zip(leaves, floating):
                parts.append(state[begin : begin + leaf.size].reshape(leaf.shape) if f else leaf)
                begin += leaf.size if f else 0
            carry, _ = cell.step(params, jax.tree.unflatten(structure, parts), z)
            return flatten(jax.tree.leaves(carry))

        return jax.jacfwd(new_state)(flatten(leaves))

    # What `project` gives without a time axis of its own, like a constant decay, is every step's.
    axes = jax.tree.map(lambda z: 0 if z.ndim and z.shape[0] == len(xs) else None, zs)
    return jax.vmap(jacobian, in_axes=(0, axes))(leaves, zs)


def spectral_radius(matrices: jax.Array) -> np.ndarray:
    """The largest absolute eigenvalue of each matrix, `[T, S, S]` to `[T]`.

    Above one a step can blow a disturbance up; far below one, all is forgotten at once.
    """
    return np.abs(np.linalg.eigvals(np.asarray(matrices))).max(axis=-1)


def time_constants(matrices: jax.Array) -> np.ndarray:
    """Steps in which each number of the state, by itself, falls to 1/e.

    The retention of a number is its own entry on the diagonal of the Jacobian, by the geometric
    mean
    over the trajectory: of an LSTM's memory cell, its forget gate; of a GRU, its update gate.

    Args:
        matrices: from `jacobians`, `[T, S, S]`.

    Returns:
        `[S]`, -1 / log |retention|; infinite where it is one or more, NaN where it is NaN.
    """
    diagonal = np.abs(np.diagonal(np.asarray(matrices), axis1=1, axis2=2))
    logs = np.log(np.maximum(diagonal, 1e-30)).mean(axis=0)
    return np.where(logs >= 0, np.inf, -1 / np.minimum(logs, -1e-12))


def attention_by_lag(
    weights: jax.Array, mask: jax.Array | None = None, at: jax.Array | None = None
) -> jax.Array:
    """Measures the weight of an attention on each lag.

    Args:
        weights: `[B, T, T]` from a layer's probe, rows are readers.
        mask: `[B, T]` bool, readers that count, or None.
        at: `[B]`, the one reader of each row that counts; None: all of them.

    Returns:
        `[T]`, by lag from 0, the mean over readers; it sums to one where all of them read.
    """
    rows, steps, _ = weights.shape
    readers = jnp.ones((rows, steps), bool) if mask is None else mask
    if at is not None:
        readers = readers & (
            jnp.arange(steps, dtype=jnp.int32)[None] == jnp.asarray(at, jnp.int32)[:, None]
        )
    weights = jnp.where(readers[..., None], widen(weights), 0)
    lag = jnp.arange(steps)[:, None] - jnp.arange(steps)[None]
    sums = (
        jnp.zeros(steps, weights.dtype)
        .at[jnp.maximum(lag, 0)]
        .add(jnp.where(lag >= 0, weights.sum(0), 0))
    )
    return sums / jnp.maximum(readers.sum(), 1).astype(sums.dtype)


def recurrences(model: SequenceModel, params: Params) -> Iterator[tuple[str, Cell, Params]]:
    """Every recurrence of a model, by its path in `model.probe`, with its parameters.

    What it is given for a sequence is `model.probe(...)[path + "inputs"]`, `[T, B, D]`.
    """

    def walk(layer: Any, params: Params, path: str) -> Iterator[tuple[str, Cell, Params]]:
        if isinstance(layer, Recurrent):
            yield path, layer.cell, params
        elif isinstance(layer, Stack):
            for i, inner in enumerate(layer.layers):
                yield from walk(inner, params[str(i)], f"{path}{i}/")
        elif isinstance(layer, Repeated):
            for i in range(layer.count):
                of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], params)
                yield from walk(layer.inner, of_layer, f"{path}{i}/")
        elif isinstance(layer, Block):
            for name, part in layer.parts.items():
                yield from walk(part, params[name], f"{path}{name}/")
        elif hasattr(layer, "inner"):
            yield from walk(layer.inner, params["inner"], f"{path}inner/")

    yield from walk(model.stack, params["layers"], "")
