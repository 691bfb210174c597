"""Backends: kernels of others that run whole sequences of one type of cell, by name.

A backend is a function with the signature of `Cell.scan`, the cell first, for one type of cell: see
`Scan`. `unroll(cell, ..., method=NAME)` looks it up in `BACKENDS` by its name
and the type of the cell. None is ever chosen by "auto": a backend may round otherwise than the
cell's own steps do, and refuses what it cannot do.

The table knows no kernel. A kernel enters itself when it is imported, as `longlag.contrib.cudnn`
does, and one that is kept elsewhere:

    BACKENDS[NAME] = {GRU: gru}

Such a function

- returns what `cell.scan(..., method="scan")` returns, with gradients in parameters, carry and
  inputs, and has a test that says so;
- raises `ValueError` while it is traced, before anything is compiled, for each mask, reset, option,
  dtype or device that it does not know;
- imports what a plain machine lacks only when it is called.

The type is looked up as it is. A subclass may have another `update`, so it has no backend until it
is entered itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax

from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.core.options import ScanOptions

__all__ = ["BACKENDS", "Scan", "find"]


class Scan(Protocol):
    """What a backend is; arguments and results are those of `Cell.scan`."""

    def __call__(
        self,
        cell: Any,
        params: Params,
        carry: Any,
        xs: jax.Array,
        options: ScanOptions,
        *,
        first: Any,
        mask: jax.Array | None,
        resets: jax.Array | None,
        key: jax.Array | None,
    ) -> tuple[Any, jax.Array]:
        """The last carry or every one, and the outputs `[T, B, ...]`."""
        ...


BACKENDS: dict[str, dict[type[Cell], Scan]] = {}


def find(name: str, cell: Cell) -> Scan:
    """Finds the backend of a name for a cell.

    Raises:
        ValueError: it has none for cells of this type.
    """
    scans = BACKENDS[name]
    if type(cell) not in scans:
        known = " or ".join(kind.__name__ for kind in scans)
        raise ValueError(
            f"method: {name!r} runs a cell of type {known}; got a {type(cell).__name__}, for which "
            "'auto' does it"
        )
    return scans[type(cell)]
