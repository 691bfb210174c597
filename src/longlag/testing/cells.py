"""The contract of a cell, as one function: `check_cell(MyCell(8))` passes or says what is broken.

Everything is measured against `longlag.testing.python_loop` and the gradient that jax takes of it.

Compiling takes the time, so programs are shared: masks and resets are arrays, and "neither" is a
mask of trues and resets of falses.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.linear_cell import LinearCell
from longlag.core.matrix_cell import MatrixCell
from longlag.core.ops import Params
from longlag.core.reference import scan_reference
from longlag.core.unrolling import unroll
from longlag.core.weight_decay import decay_mask
from longlag.testing.python_loop import Flags, first_carry, loop, one_step
from longlag.testing.running import (
    CUTS,
    FLAGS,
    MASK,
    Case,
    Weights,
    as_shape,
    assert_close,
    differentiate,
    draw,
    in_chunks,
    jit,
    parameter_shapes,
    partition,
    run_modes,
    run_unroll,
    same,
)


def check_cell(cell: Cell, in_features: int = 2) -> None:
    """Raises unless the cell keeps the contract, with any inputs `[B, T, in_features]`."""
    check_types(cell, in_features)
    check_compiles_once(cell, in_features)
    with jax.enable_x64(True), in_chunks():
        case = draw(cell, in_features, MASK.shape)
        for name, flags in FLAGS.items():
            check_loop(case, flags, CUTS, f"{cell}, {name}")
        check_reference(case)
        check_masked(case)
        check_nan(case)
        check_dependence(case)
        check_learned_carry(case)
        check_zero_input(case)
        check_modes(case)


# --- the clauses --------------------------------------------------------------------------------


def check_types(cell: Cell, in_features: int) -> None:
    """The carry is a fixed point of `step`, floats of at least float32, whatever the parameters.

    `decays` is a tree of bools like these.
    """
    shapes = parameter_shapes(cell, in_features)
    assert isinstance(shapes, dict), f"init: expected a dict of parameters, got {type(shapes)}"
    decay_mask(cell, shapes)
    for dtype, batch in itertools.product((jnp.float32, jnp.bfloat16), ((), (4,), (4, 3))):
        what = f"{cell}, parameters {jnp.dtype(dtype).name}, batch {batch}"
        params = jax.tree.map(lambda leaf, dtype=dtype: as_shape(leaf.shape, dtype), shapes)
        initial_carry = functools.partial(cell.initial_carry, batch_shape=batch)
        first = jax.eval_shape(initial_carry, params)
        check_leaves(first, batch, f"{what}: initial_carry")
        x = as_shape((*batch, in_features))
        new, y = jax.eval_shape(functools.partial(one_step, cell), params, first, x)
        check_leaves(y, batch, f"{what}: output of step")
        assert same(new, first), f"{what}: expected from step the carry {first}, got {new}"
        if len(batch) == 1:
            xs = as_shape((*batch, 3, in_features), dtype)
            last, _ = jax.eval_shape(functools.partial(unroll, cell), params, xs, first)
            assert same(last, first), f"{what}: expected from unroll the carry {first}, got {last}"


def check_leaves(tree: Any, batch: tuple[int, ...], what: str) -> None:
    """Leaves begin with the axes of the batch, and floats are float32."""
    for leaf in jax.tree.leaves(tree):
        assert leaf.shape[: len(batch)] == batch, f"{what}: expected {batch} first, got {leaf}"
    for leaf in partition(tree)[0]:
        assert leaf.dtype == jnp.float32, f"{what}: expected float32, got {leaf}"


def check_compiles_once(cell: Cell, in_features: int) -> None:
    """Two equal cells that were built apart are one program."""
    twin = dataclasses.replace(cell)
    assert twin == cell and hash(twin) == hash(cell), f"{cell}: a copy is not equal"
    traced: list[Cell] = []

    def run(cell: Cell, params: Params, xs: jax.Array) -> tuple[Any, Any]:
        traced.append(cell)
        return unroll(cell, params, xs)

    program = jax.jit(run, static_argnums=0)
    params = parameter_shapes(cell, in_features)
    for equal_cell in (cell, twin):
        program.eval_shape(equal_cell, params, as_shape((4, 3, in_features)))
    assert len(traced) == 1, f"{cell}: two equal cells were traced {len(traced)} times"


def check_loop(
    case: Case,
    flags: Flags,
    cuts: Mapping[str, tuple[int, ...]],
    what: str,
    rtol: float = 1e-10,
) -> None:
    """Outputs, carries and gradients equal the loop's, in one piece and in many."""
    expected = differentiate(functools.partial(loop, case.cell, flags), case)
    for name, lengths in cuts.items():
        assert_close(run_unroll(case, flags, lengths), expected, f"{what}, {name}", rtol)


def check_reference(case: Case) -> None:
    """`scan_reference` gives what `unroll` gives, which `check_loop` compares with the loop."""
    flags = FLAGS["both"]
    actual = jit(functools.partial(scan_reference, case.cell))(
        case.params, case.xs, case.carry, **flags._asdict()
    )
    carries, ys, *_ = run_unroll(case, flags)
    last = jax.tree.map(lambda leaf: leaf[:, -1], carries)
    assert_close(actual, (last, ys), f"{case.cell}: scan_reference")


def check_masked(case: Case) -> None:
    """Masked outputs are exactly zero; a row masked everywhere keeps its carry, or begins anew."""
    carries, ys, *_ = run_unroll(case, FLAGS["both"])
    for leaf in jax.tree.leaves(ys):
        assert not np.asarray(leaf)[~MASK].any(), f"{case.cell}: an output at a masked step"
    for row, kept in (
        (1, jax.tree.map(lambda leaf: leaf[1], case.carry)),
        (2, first_carry(case.cell, case.params)),
    ):
        last = jax.tree.map(lambda leaf, row=row: leaf[row, -1], carries)
        assert_close(last, kept, f"{case.cell}: the carry of row {row}, all masked", rtol=0)


def check_nan(case: Case) -> None:
    """A NaN in masked inputs, or in a carry that no live step sees, reaches nothing."""
    floats, join = partition(case.carry)
    unseen = case._replace(
        xs=jnp.where(MASK[..., None], case.xs, jnp.nan),
        carry=join([jnp.full_like(leaf, jnp.nan) for leaf in floats]),
    )
    clean, beside_nan = run_unroll(case, FLAGS["both"]), run_unroll(unseen, FLAGS["both"])
    # Row 1 is masked everywhere and never reset, so that it rightly gives back the NaN.
    last, expected = (
        jax.tree.map(lambda leaf: leaf[::2, -1], result.carries) for result in (beside_nan, clean)
    )
    assert_close(last, expected, f"{case.cell}, NaN: last carries", rtol=0)
    what = f"{case.cell}, NaN: outputs and gradients"
    assert_close(tuple(beside_nan)[1:], tuple(clean)[1:], what, rtol=0)


def check_dependence(case: Case) -> None:
    """No output depends on later inputs, or on another row."""
    row, step = 0, 3
    one = np.zeros(MASK.shape)
    one[row, step] = 1
    gradients = run_unroll(case, FLAGS["neither"], weights=Weights(one, carries=0))
    assert not np.asarray(gradients.xs)[row, step + 1 :].any(), f"{case.cell}: sees later inputs"
    for leaf in [gradients.xs, *gradients.carry]:
        assert not np.asarray(leaf)[row + 1 :].any(), f"{case.cell}: sees another row"


def check_learned_carry(case: Case) -> None:
    """A learned first state gets its gradient from a reset in mid-chunk too."""
    if not getattr(case.cell, "learned_carry", False):
        return
    for leaf in jax.tree.leaves(run_unroll(case, FLAGS["resets"]).params["carry"]):
        assert leaf.size == 0 or np.any(leaf), f"{case.cell}: no gradient for the first state"


def check_zero_input(case: Case) -> None:
    """Values and gradients are finite where all begins: fresh parameters, no state, no input."""
    carry = case.cell.initial_carry(case.fresh, MASK.shape[:1])
    zero = case._replace(params=case.fresh, xs=jnp.zeros_like(case.xs), carry=carry)
    for path, leaf in jax.tree_util.tree_leaves_with_path(run_unroll(zero, FLAGS["neither"])):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            where = f"{case.cell} at zero input: {jax.tree_util.keystr(path)}"
            assert np.isfinite(leaf).all(), f"{where} is not finite"


def check_modes(case: Case) -> None:
    """Other ways to run give what the plain one gives; all in one program, alone where it fails."""
    modes = ["reverse", "time_major", "seeds", "checkpoint around", "checkpoint inside"]
    if isinstance(case.cell, LinearCell):
        modes.append("associative")
    else:
        modes.append("chunked" if isinstance(case.cell, MatrixCell) else "store")
    expected = run_modes(case, [])
    try:
        assert_close(run_modes(case, modes), expected, f"{case.cell}, {', '.join(modes)}")
    except AssertionError:
        for mode in modes:
            assert_close(run_modes(case, [mode]), expected, f"{case.cell}, {mode}")
        raise
