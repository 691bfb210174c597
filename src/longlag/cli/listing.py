"""List the tasks, and the cells and attentions with their parameters and bytes of state.

    longlag list

Each name is a value of `longlag compare --task`, `--cell` or `--attention`.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Group
from rich.table import Table

from longlag.attention import Additive, Attention, DotProduct, Multiplicative
from longlag.cli.arguments import call
from longlag.core.cell import Cell
from longlag.core.dense_cell import DenseCell
from longlag.core.linear_cell import LinearCell
from longlag.core.matrix_cell import MatrixCell
from longlag.runs.registry import cell_names, task_names
from longlag.system.console import console

__all__ = ["COLUMNS", "WIDTH", "catalogue", "kind", "main", "tables"]

COLUMNS = ("name", "kind", "parameters", "state", "reference")
# D and H of every row, and the length at which a cache is counted.
WIDTH, LENGTH = 64, 1000

DEFAULT_ATTENTIONS: dict[str, Callable[[], Attention]] = {
    "additive": lambda: Additive(WIDTH),
    "multiplicative": lambda: Multiplicative(WIDTH),
    "window": lambda: DotProduct(WIDTH, window=16),
    "full": lambda: DotProduct(WIDTH),
}


def main(argv: Sequence[str]) -> int:
    """Runs `longlag list` and returns the exit code."""
    return call(_print_tables, argv, "longlag list", __doc__ or "")


def _print_tables() -> int:
    console.print(tables())
    return 0


def tables() -> Group:
    """The tables that `longlag list` prints: tasks, then cells and attentions with their sizes."""
    tasks = Table(title="tasks", title_justify="left")
    tasks.add_column("task", no_wrap=True)
    tasks.add_column("what it is")
    for name, cls in task_names().items():
        tasks.add_row(name, (cls.__doc__ or "").strip().splitlines()[0])
    title = f"cells and attentions, from {WIDTH} to {WIDTH} features"
    sizes = Table(title=title, title_justify="left")
    for column in COLUMNS:
        sizes.add_column(column, no_wrap=column != "reference")
    for _, rows in itertools.groupby(catalogue(), key=lambda row: row[1]):
        for row in rows:
            sizes.add_row(*row)
        sizes.add_section()
    return Group(tasks, sizes)


def catalogue() -> list[tuple[str, ...]]:
    """Rows of `COLUMNS` for every cell, by kind, then for every attention.

    Parameters and bytes of state of one sequence are those of a cell or attention from 64 to 64
    features with its defaults; attention is counted after 1,000 steps.
    """
    rows = []
    for name, cls in cell_names().items():
        cell: Any = cls(WIDTH)  # type: ignore[call-arg]
        params = jax.eval_shape(lambda c=cell: c.init(jax.random.key(0), WIDTH))
        state = jax.eval_shape(cell.initial_carry, params)
        rows.append((name, kind(cls), *_sizes(params, state), _reference(cls)))
    order = ("dense", "linear", "matrix", "other")
    rows.sort(key=lambda row: order.index(row[1]))
    for name, build in DEFAULT_ATTENTIONS.items():
        layer = build()
        params = jax.eval_shape(lambda a=layer: a.init(jax.random.key(0), WIDTH))
        state = jax.eval_shape(lambda p, a=layer: a.init_state(p, (1,), LENGTH), params)
        rows.append((name, "attention", *_sizes(params, state), _reference(type(layer))))
    return [*rows, ("none", "attention", "0", "0 B", "the recurrence alone")]


def kind(cls: type[Cell]) -> str:
    """The kind of a cell: "dense", "linear", "matrix" or "other"."""
    kinds = {DenseCell: "dense", LinearCell: "linear", MatrixCell: "matrix"}
    return next((name for base, name in kinds.items() if issubclass(cls, base)), "other")


def _sizes(params: Any, state: Any) -> tuple[str, str]:
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    size = sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(state))
    return f"{count:,}", f"{size:,} B"


def _reference(cls: type) -> str:
    """The first work that a docstring refers to."""
    text = inspect.getdoc(cls) or ""
    match = re.search(r"^Reference: (.+?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    first = " ".join(match[1].split()).partition("; ")[0] if match else ""
    number = re.match(r".*?arXiv \d{4}\.\d{4,5}", first)
    return number[0] if number else first.rstrip(".")
