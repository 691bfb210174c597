"""Zoneout (Krueger et al. 2017, arXiv 1606.01305): numbers of the carry that stay as they were.

It is a cell around a cell, so that the contract and its scans know nothing of it. `project` draws
which numbers stay, for all steps at once, and they reach the step beside the input. Without a key,
as for a test, the carry takes the mean of staying and moving.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from longlag.core.cell import Cell
from longlag.core.flagged_steps import check_step
from longlag.core.linear_cell import LinearCell, where_live
from longlag.core.matrix_cell import MatrixCell
from longlag.core.ops import Params
from longlag.core.placement import shard_like

__all__ = ["LinearZoneout", "Zoneout", "with_zoneout"]


def with_zoneout(cell: Cell, rate: float) -> Cell:
    """The cell that runs as `cell` does, with zoneout.

    Args:
        cell: a cell of any kind but the matrix cells.
        rate: the chance with which a number of the carry stays at a step, from 0 to below 1.

    Raises:
        ValueError: a matrix cell.
    """
    if isinstance(cell, MatrixCell):
        raise ValueError(
            f"zoneout: expected 0 for {type(cell).__name__}, whose memory is a matrix; got {rate}"
        )
    if isinstance(cell, LinearCell):
        return LinearZoneout(cell.features, cell=cell, rate=rate)
    return Zoneout(cell, rate)


class _CellWrapper:
    """What a cell around a cell leaves as it is."""

    cell: Any

    def init(self, key: jax.Array, in_features: int) -> Params:
        """As the cell."""
        return self.cell.init(key, in_features)

    def initial_carry(self, params: Params, batch_shape: Sequence[int] = ()) -> Any:
        """As the cell."""
        return self.cell.initial_carry(params, batch_shape)

    def in_features(self, params: Params) -> int | None:
        """As the cell."""
        return self.cell.in_features(params)

    def decays(self, params: Params) -> Any:
        """As the cell."""
        return self.cell.decays(params)


class Zoneout(_CellWrapper, Cell):
    """Any cell that takes its steps one after another, with zoneout.

    It keeps the two parts of a dense cell's step apart, so that a backward may store the first.

    Attributes:
        cell: the cell.
        rate: the chance with which a number of the carry stays.
    """

    cell: Cell
    rate: float

    def project(
        self, params: Params, xs: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[Any, list[jax.Array | None] | None]:
        """What the cell makes of inputs `[T, B, ...]`, and which numbers stay, see `draw_held`."""
        if key is None:
            return self.cell.project(params, xs), None
        key, zoneout_key = jax.random.split(key)
        carry = carry_shapes(self.cell, params, xs.shape[1])
        held = draw_held(zoneout_key, self.rate, carry, xs.shape[0])
        return self.cell.project(params, xs, key=key), held

    def step(self, params: Params, carry: Any, u: Any, /) -> tuple[Any, jax.Array]:
        """A step of the cell, of which some numbers are not taken."""
        return self._finish(params, carry, u, self._begin(params, carry, u))

    def _begin(self, params: Params, carry: Any, u: Any) -> Any:
        return self.cell._begin(params, carry, u[0])

    def _finish(self, params: Params, carry: Any, u: Any, z: Any) -> tuple[Any, jax.Array]:
        u, held = u
        returned = self.cell._finish(params, carry, u, z)
        new, y = check_step(self.cell, returned, carry)
        return _zone_out(self.rate, carry, new, y, held)

    def _auto_backward(self) -> Literal["recompute", "store"]:
        return self.cell._auto_backward()


class LinearZoneout(_CellWrapper, LinearCell):
    """A linear cell with zoneout, parallel in time: a step that leaves `h` has a = 1 and b = 0.

    Attributes:
        cell: the cell.
        rate: the chance with which a number of the state stays.
    """

    gates: ClassVar[tuple[str, ...]] = ()

    cell: LinearCell
    rate: float

    @property
    def contracting(self) -> bool:  # type: ignore[override]
        """As the cell: the mean of its decay and of one is no larger than one of them."""
        return self.cell.contracting

    def project(
        self, params: Params, xs: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[Any, Any, Any]:
        """Decay and input of inputs `[T, B, ...]`, some as 1 and 0, and what `readout` needs."""
        if key is None:
            a, b, aux = self.cell._check_parts(self.cell.project(params, xs))
            return *_average(self.rate, a, b), aux
        key, zoneout_key = jax.random.split(key)
        a, b, aux = self.cell._check_parts(self.cell.project(params, xs, key=key))
        # Both parts of a complex number stay, or neither does.
        state = jax.tree.leaves(carry_shapes(self.cell, params, xs.shape[1]))[:1]
        (held,) = draw_held(zoneout_key, self.rate, state, xs.shape[0])
        assert held is not None
        b = jax.tree.map(lambda part: jnp.where(held, 0, part), b)
        return where_live(~held, a, 1), b, aux

    def readout(self, params: Params, h: Any, aux: Any) -> jax.Array:
        """As the cell."""
        return self.cell.readout(params, h, aux)


def carry_shapes(cell: Cell, params: Params, rows: int) -> Any:
    """Shapes and dtypes of the carry of a batch."""
    return jax.eval_shape(functools.partial(cell.initial_carry, batch_shape=(rows,)), params)


def draw_held(key: jax.Array, rate: float, carry: Any, steps: int) -> list[jax.Array | None]:
    """Which numbers of the carry stay at which step: `[T, ...]` bool, None for what is no float."""
    leaves = jax.tree.leaves(carry)
    return [
        jax.random.bernoulli(k, rate, (steps, *leaf.shape))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else None
        for k, leaf in zip(jax.random.split(key, len(leaves)), leaves)
    ]


def _average(rate: float, a: Any, b: Any) -> tuple[Any, Any]:
    """Decay and input of the mean of staying and moving."""
    real, *imag = a if isinstance(a, tuple) else (a,)
    mean = (rate + (1 - rate) * real, *((1 - rate) * part for part in imag))
    return (mean if imag else mean[0]), jax.tree.map(lambda part: (1 - rate) * part, b)


def _zone_out(rate: float, old: Any, new: Any, y: Any, held: list[Any] | None) -> tuple[Any, Any]:
    """Keeps some numbers of the old carry, or without noise the mean of keeping and not.

    An output that is a part of the carry, like the h of an LSTM, is so after this too.
    """
    olds, (news, structure) = jax.tree.leaves(old), jax.tree.flatten(new)
    mixed = []
    for i, (o, n) in enumerate(zip(olds, news)):
        if not jnp.issubdtype(n.dtype, jnp.floating):
            mixed.append(n)
        elif held is None:
            mixed.append(rate * o + (1 - rate) * n)
        else:
            mixed.append(jnp.where(shard_like(held[i], o), o, n))
    ys = [next((m for n, m in zip(news, mixed) if n is leaf), leaf) for leaf in jax.tree.leaves(y)]
    return jax.tree.unflatten(structure, mixed), jax.tree.unflatten(jax.tree.structure(y), ys)
