"""The linear recurrence and its adjoint, each as one native call on a CPU.

A state `[*state]` is seen as rows `[R, W]`, since its numbers do not meet each other. Rows are what
threads share, and one row is what vectors run along.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.any_length import is_known
from longlag.core.scans.linear_methods import RUN, _varies
from longlag.core.scans.numbers import (
    Number,
    _affine,
    _conj,
    _plus,
    _product,
    _reduce,
    _times,
    _zeros,
)
from longlag.core.selection import select
from longlag.kernels.looping import loop, or_else
from longlag.kernels.program import Unsupported

__all__ = ["pull", "run"]

# A state without a batch is cut into so many rows at most, of at least so many columns.
MOST_ROWS, LEAST_COLUMNS = 8, 32


def run(
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    arithmetic: Any = None,
) -> Number:
    """All states, `[T, *state]`, as the methods of `linear_methods.RUN`.

    "scan" does it where there is no native loop, and where a decay that changes with time is
    broadcast over the state.
    """
    arguments = a, b, h0, h_reset, resets, reverse
    by_scan = functools.partial(RUN["scan"], *arguments, arithmetic)
    return or_else(functools.partial(_run, *arguments), by_scan, anywhere=True)


def _run(
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
) -> Number:
    shape = b[0].shape
    rows = _rows(shape[1:])
    varies = _varies(a, shape[0])
    always = None if varies else _row(_spread(a, shape[1:]), rows)
    given = (
        _given(a, shape, rows) if varies else None,
        _every(b, rows),
        _flags(resets, shape, rows),
    )
    reset = None if resets is None else _row(h_reset, rows)

    def body(consts: Any, h: Number, given: Any, _: None) -> tuple[Number, Number, None]:
        (always, h_reset), (a, b, reset) = consts, given
        if reset is not None:
            h = select(reset, h_reset, h)
        h = _affine(always if a is None else a, h, b)
        return h, h, None

    def run_by_scan(consts: Any, h0: Number, given: Any, *_: Any) -> tuple[Number, Number, None]:
        (always, h_reset), (a, b, resets) = consts, given
        h = RUN["scan"](_decay(a, always), b, h0, h_reset, resets, reverse, None)
        return tuple(part[0 if reverse else -1] for part in h), h, None

    _, h, _ = loop(
        body, run_by_scan, (always, reset), _row(h0, rows), given, reverse=reverse, anywhere=True
    )
    return tuple(part.reshape(shape) for part in h)


def pull(
    dh: Number,
    a: Number,
    h: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    contracting: bool,
    by_scan: Callable[..., Any],
) -> tuple[Number, Number, Number, Number | None]:
    """The gradients of `a`, `b`, `h0` and, with resets, `h_reset`, in one loop back.

    `by_scan` makes them of the first six arguments where there is none.
    """
    states = dh, a, h, h0, h_reset, resets
    fused = functools.partial(_pull, *states, reverse, contracting, by_scan)
    return or_else(fused, functools.partial(by_scan, *states), anywhere=True)


def _pull(
    dh: Number,
    a: Number,
    h: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    contracting: bool,
    by_scan: Callable[..., Any],
) -> tuple[Number, Number, Number, Number | None]:
    shape = dh[0].shape
    state = shape[1:]
    rows = _rows(state)
    varies = _varies(a, shape[0])
    always = None if varies else _row(_spread(a, state), rows)
    given = (
        _given(a, shape, rows) if varies else None,
        _every(dh, rows),
        _flags(resets, shape, rows),
    )
    reset = None if resets is None else _row(h_reset, rows)

    def body(consts: Any, product: Number, given: Any, h_prev: Number) -> tuple[Any, Any, Any]:
        """From what reaches the state after a step to what reaches the state before it."""
        (always, h_reset), (a, dh, reset) = consts, given
        a = always if a is None else a
        lam = _plus(product, dh)
        if reset is not None:
            h_prev = select(reset, h_reset, h_prev)
        # Of a real decay beside a complex state, the real part.
        da = _product(lam, _conj(h_prev), contracting)[: len(a)]
        product, to_reset = _times(_conj(a), lam), None
        if reset is not None:
            to_reset = select(reset, product, _zeros(product))
            product = select(reset, _zeros(product), product)
        return product, (lam, da if varies else None), (None if varies else da, to_reset)

    def pull_by_scan(consts: Any, _: Number, given: Any, h: Number, h0: Number) -> Any:
        (always, h_reset), (a, dh, resets) = consts, given
        da, lam, dh0, dh_reset = by_scan(dh, _decay(a, always), h, h0, h_reset, resets)
        total = None if a is not None else tuple(part[0] for part in da)
        return dh0, (lam, da if a is not None else None), (total, dh_reset)

    dh0, (lam, da), (total, dh_reset) = loop(
        body,
        pull_by_scan,
        (always, reset),
        _row(_zeros(h0), rows),
        given,
        _every(h, rows),
        _row(h0, rows),
        reverse=not reverse,
        anywhere=True,
    )

    def as_state(number: Number, *leading: int) -> Number:
        return tuple(part.reshape(*leading, *state) for part in number)

    da = as_state(da, shape[0]) if varies else _reduce(as_state(total, 1), a)
    dh_reset = None if resets is None else as_state(dh_reset)
    return da, as_state(lam, shape[0]), as_state(dh0), dh_reset


def _rows(state: tuple[int, ...]) -> tuple[int, int]:
    """The shape `[R, W]` in which a state is seen."""
    if not all(map(is_known, state)) or math.prod(state) == 0:
        raise Unsupported(f"a state of shape {state}")
    if len(state) > 1:
        return state[0], math.prod(state[1:])
    width = math.prod(state)
    for rows in range(MOST_ROWS, 0, -1):
        if width % rows == 0 and width // rows >= LEAST_COLUMNS:
            return rows, width // rows
    return 1, width


def _row(number: Number | None, rows: tuple[int, int]) -> Any:
    """Parts `[*state]` as `[R, W]`."""
    return number and tuple(part.reshape(rows) for part in number)


def _every(number: Number, rows: tuple[int, int]) -> Number:
    """Parts `[T, *state]` as `[T, R, W]`."""
    return tuple(part.reshape(part.shape[0], *rows) for part in number)


def _given(a: Number, shape: tuple[int, ...], rows: tuple[int, int]) -> Number:
    if a[0].shape != shape:
        raise Unsupported(f"a decay of shape {a[0].shape} that is spread over {shape}")
    return tuple(part.reshape(shape[0], *rows) for part in a)


def _spread(a: Number, state: tuple[int, ...]) -> Number:
    """A decay `[1, *]` that does not change with time, as `[*state]`."""
    return tuple(jnp.broadcast_to(part[0], state) for part in a)


def _decay(a: Number | None, always: Any) -> Number:
    """The decay `[T, R, W]`, or `[1, R, W]` if it does not change with time."""
    return tuple(part[None] for part in always) if a is None else a


def _flags(resets: jax.Array | None, shape: tuple[int, ...], rows: tuple[int, int]) -> Any:
    """Resets `[T, *leading]` as `[T, R]` or `[T, R, W]`.

    Those of rows are spread over a few columns, since all rows can then be run as one.
    """
    if resets is None:
        return None
    rank = len(shape)
    if resets.ndim == 2 < rank and rows[1] >= LEAST_COLUMNS:
        return resets
    full = resets.reshape(resets.shape + (1,) * (rank - resets.ndim))
    return jnp.broadcast_to(full, shape).reshape((shape[0], *rows))
