"""`unroll`: any cell over a whole sequence, with masks, resets and streaming."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from longlag.core.array_types import Mask, Outputs, PRNGKey, Resets, Sequences
from longlag.core.backends import BACKENDS, find
from longlag.core.cell import CarryT, Cell
from longlag.core.checks import as_key, check_like, check_sequence
from longlag.core.chunks import Chunk, check_chunk, rematerialise, steps_of
from longlag.core.linear_cell import LinearCell
from longlag.core.matrix_cell import MatrixCell
from longlag.core.ops import Params
from longlag.core.options import ScanOptions
from longlag.core.over_devices import at_end, key_of_device, time_axis
from longlag.core.placement import unify_types
from longlag.core.promotion import through_float32
from longlag.core.scans.linear import METHODS
from longlag.core.scans.linear import Method as OwnMethod
from longlag.core.scans.step import BACKWARDS, Backward
from longlag.core.spec import choose, take
from longlag.core.zoneout import with_zoneout

__all__ = ["Method", "unroll"]

Method = OwnMethod | Literal["cudnn"]

# xs `[T, B, ...]`, mask and resets `[T, B]`, or of a part of the time.
Steps = tuple[jax.Array, jax.Array | None, jax.Array | None]


def unroll(
    cell: Cell[CarryT],
    params: Params,
    xs: Sequences,
    carry: CarryT | None = None,
    *,
    mask: Mask | None = None,
    resets: Resets | None = None,
    key: PRNGKey | None = None,
    reverse: bool = False,
    method: Method = "auto",
    backward: Backward = "auto",
    remat: Chunk | None = None,
    carries: Literal["last", "all"] = "last",
    zoneout: float = 0.0,
    time_major: bool = False,
) -> tuple[CarryT, Outputs]:
    """Runs a cell over a sequence.

    One semantics for every cell: at each step the reset comes first, whatever the mask, and makes
    the state before the step the initial carry. Then, where the mask is false, the state stays as
    it is and the output is zero. Masked inputs are set to zero before `project`, and results are
    selected, never multiplied, so that a NaN in a masked input, or in a carry that is reset at
    once, reaches neither values nor gradients.

    `longlag.scan_reference` says the same in forty lines of code. A sequence may be cut into chunks
    anywhere: pass the returned carry to the next call. Over several devices it is cut by
    `longlag.time_over_devices`.

    Args:
        cell: the cell.
        params: its parameters, from `cell.init`.
        xs: inputs `[B, T, ...]`, as a rule `[B, T, D]`.
        carry: the state to begin with; None means `cell.initial_carry`.
        mask: `[B, T]` bool, false anywhere at padding; None means all true.
        resets: `[B, T]` bool, true where a new sequence begins; None means none.
        key: source of noise for a cell that has any, from `jax.random.key` (or `PRNGKey`).
        reverse: from the last step to the first.
        method: "scan" (one step after another), "associative" (linear cells only) or "chunked"
            (linear and matrix cells: parallel in time, as in `linear_scan` and `matrix_scan`),
            "fused" (all but matrix cells: where the step has a normal form, see `explain`, the loop
            is one native call on a CPU and one Pallas kernel on a GPU or a TPU, which was compiled
            for an H100 and a TPU v5e and never run on one; elsewhere as with "scan"),
            "cudnn" (an LSTM on CUDA; what it refuses is in `longlag.contrib.cudnn`), another name
            in `longlag.core.backends`, or "auto": by kind of cell and platform, never a backend.
        backward: how gradients are taken. "recompute" keeps the carries and takes everything else
            again, a chunk of steps at once; "store" keeps what the `mix` of a dense cell returned
            too, which saves time where products are large; "auto": by kind and width of the cell.
            "autodiff" keeps every intermediate. All serve both modes (`jax.grad`, `jax.jvp`,
            `jax.linearize`, `jax.hessian`), to any order, and "autodiff" is the fastest in forward
            mode. Linear and matrix cells have one derivative for both modes.
        remat: "sqrt" or a number of steps: the gradient keeps the carry before every so many steps
            alone, and runs each such part of the sequence once more. With "sqrt", near √T steps,
            memory grows with √T. With a `key`, noise is drawn for each part apart, so that other
            parts give other noise. None: the sequence is one part.
        carries: "last" returns the carry after the last step, "all" the carries after every step
            (leaves `[B, T, ...]`).
        zoneout: the chance with which each number of the carry stays as it was at a step (Krueger
            et al. 2017, arXiv 1606.01305). With a `key` it does or does not; without one, as for a
            test, the carry takes the mean. An output that is a part of the carry, like the h of an
            LSTM, is that part after zoneout. Not for a matrix cell, nor for a backend.
        time_major: `xs`, `mask`, `resets`, outputs and all carries are `[T, B, ...]`.

    Returns:
        The carry, and the outputs `[B, T, ...]`.

    Raises:
        ValueError: before anything is compiled, with what was expected and what came, for a wrong
            rank, feature size, mask, structure of the carry, or option. Lists and NumPy arrays are
            taken. Numbers are no mask, and a complex number is a pair of real arrays.
    """
    if not isinstance(cell, Cell):
        value = f"the class {cell.__name__}" if isinstance(cell, type) else repr(cell)
        raise ValueError(f"cell: expected a cell, such as GRU(8); got {value}")
    choose(method, (*METHODS, *BACKENDS), "method")
    choose(backward, BACKWARDS, "backward")
    choose(carries, ("last", "all"), "carries")
    zoneout = take("zoneout", zoneout, float)
    reverse, time_major = take("reverse", reverse, bool), take("time_major", time_major, bool)
    if not 0 <= zoneout < 1:
        raise ValueError(f"zoneout: expected 0 <= zoneout < 1, got {zoneout}")
    remat = take("remat", remat, Chunk | None)
    if remat is not None:
        check_chunk("remat", remat)
    xs, mask, resets = check_sequence("xs", xs, mask, resets, time_major)
    key = key_of_device(as_key("key", key))
    if time_axis(xs) is not None:
        _refuse_steps_in_turn(cell, method, remat)
    if method in BACKENDS:
        if zoneout:
            raise ValueError(
                f"zoneout: expected 0 for method {method!r}, which takes the steps of "
                f"{type(cell).__name__} as they are; got {zoneout}"
            )
        scan = functools.partial(find(method, cell), cell)
    else:
        scan = (with_zoneout(cell, zoneout) if zoneout else cell).scan
    options = ScanOptions(reverse, cast(OwnMethod, method), backward, carries == "all")
    features = cell.in_features(params)
    if features is not None and (xs.ndim != 3 or xs.shape[-1] != features):
        axes = "[T, B, D]" if time_major else "[B, T, D]"
        raise ValueError(
            f"xs: expected {axes} with D = {features}, the input features of {cell}; "
            f"got shape {xs.shape}"
        )
    if not time_major:
        xs, mask, resets = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, mask, resets))

    with _explain_misfit(cell, params, xs.shape[-1]):
        batch = xs.shape[1]
        first = cell.initial_carry(params, (batch,))
        if carry is None:
            carry = first
        else:
            check_like("carry", carry, first, f"{cell}, batch {batch}")
        arrays = (params, first, carry, xs, mask, resets, key)
        # The axis of the batch in each. -1: it has none.
        arrays = unify_types(arrays, (-1, 0, 0, 1, 1, 1, -1))
        params, first, carry, xs, mask, resets, key = arrays

        # Parts are a scan: the gradients of parameters are summed over them, in float32.
        params_of_part = through_float32(params)

        def run(carry: Any, steps: Steps, key: jax.Array | None) -> tuple[Any, Any]:
            xs, mask, resets = steps
            return scan(
                params_of_part() if remat is not None else params,
                carry,
                xs,
                options,
                first=first,
                mask=mask,
                resets=resets,
                key=key,
            )

        steps = (xs, mask, resets)
        if remat is None or xs.shape[0] == 0:
            out, ys = run(carry, steps, key)
        else:
            out, ys = _run_in_parts(
                run, carry, steps, key, steps_of(remat, xs.shape[0]), reverse, carries
            )
    if carries == "last":
        out = at_end(time_axis(), out, reverse)
    if not time_major:
        ys = jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)
        if carries == "all":
            out = jax.tree.map(lambda c: jnp.swapaxes(c, 0, 1), out)
    return out, ys


def _refuse_steps_in_turn(cell: Cell[Any], method: str, remat: Chunk | None) -> None:
    """Raises `ValueError` for what needs the step before, where that is on another device."""
    if not isinstance(cell, LinearCell | MatrixCell):
        raise ValueError(
            f"{cell}: expected a linear or a matrix cell with time over devices, since each step "
            "of this cell needs the step before, whose device it would wait for; cut the time of "
            "one device in chunks instead (`remat=` of unroll, `time_chunk=` of a training)"
        )
    if method in BACKENDS:
        raise ValueError(
            f"method: expected one of {METHODS} with time over devices; got {method!r}"
        )
    if remat is not None:
        raise ValueError(
            "remat: expected None with time over devices, since the parts of a device are not "
            f"those of the sequence; got {remat!r}. More devices along the axis save memory too"
        )


@contextlib.contextmanager
def _explain_misfit(cell: Cell[Any], params: Params, features: int) -> Iterator[None]:
    """Where parameters of another cell or width have stopped it, says which ones belong to it."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        # Only now, and not before every run: a cell may take parameters that `init` does not draw.
        try:
            like = jax.eval_shape(lambda: cell.init(jax.random.key(0), features))
        except Exception:
            raise error from None
        check_like("params", params, like, f"those of {cell}, D = {features}")
        raise


def _run_in_parts(
    run: Callable[[Any, Steps, jax.Array | None], tuple[Any, Any]],
    carry: Any,
    steps: Steps,
    key: jax.Array | None,
    length: int,
    reverse: bool,
    carries: Literal["last", "all"],
) -> tuple[Any, Any]:
    """Runs a sequence part by part, each under `jax.checkpoint`."""

    def run_part(carry: Any, steps: Steps, index: jax.Array) -> tuple[Any, tuple[Any, Any]]:
        out, ys = run(carry, steps, None if key is None else jax.random.fold_in(key, index))
        if carries == "last":
            return out, (ys, None)
        at = 0 if reverse else -1
        return jax.tree.map(lambda leaf: leaf[at], out), (ys, out)

    last, (ys, every) = rematerialise(run_part, carry, steps, length, reverse)
    return (last if carries == "last" else every), ys
