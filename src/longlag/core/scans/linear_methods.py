"""The methods of `linear_scan`: one step after another, by a tree, and chunk by chunk.

`a` keeps axes of size 1 throughout: it is never spread over the state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from longlag.core.any_length import associative_scan, is_known
from longlag.core.over_devices import entering
from longlag.core.placement import zeros_like
from longlag.core.scans.numbers import Arithmetic, Number, _affine, _at, _zeros
from longlag.core.selection import select

# Steps of a chunk of "chunked". Its tree costs about 30 transfers of 1 / CHUNK of the states, one
# transfer of all of them, and its two sweeps CHUNK steps each, however long the sequence is.
CHUNK = 32

# Of a part of a sequence: decay, state after zeros (or input), and whether it has a reset.
Part = tuple[Any, Any, Any]


def _varies(a: Number, steps: int) -> bool:
    return a[0].shape[0] == steps


def _step(h: Number, a: Number, b: Number, h_reset: Any, reset: Any) -> Number:
    if reset is not None:
        h = select(reset, h_reset, h)
    return _affine(a, h, b)


def _run_sequential(
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    _: Arithmetic,
) -> Number:
    """One step after another."""
    if not is_known(b[0].shape[0]):
        return _run_any_length(a, b, h0, h_reset, resets, reverse)
    decay_at = _rows(a, b[0].shape[0])

    def body(h: Number, t: Any) -> tuple[Number, Number]:
        h = _step(h, decay_at(t), _row(b, t), h_reset, _row(resets, t))
        return h, h

    order = _order(b, reverse)
    return _over_steps(body, h0, _fill(b, order[0]), order)[1]


def _run_any_length(
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
) -> Number:
    """One step after another, where the number of steps is not known."""
    varies = _varies(a, b[0].shape[0])

    def body(h: Number, inputs: Any) -> tuple[Number, Number]:
        decay, b, reset = inputs
        h = _step(h, decay if varies else _at(a, 0), b, h_reset, reset)
        return h, h

    return jax.lax.scan(body, h0, (a if varies else None, b, resets), reverse=reverse)[1]


def _over_steps(
    body: Callable[[Any, Any], tuple[Any, Any]], state: Any, outputs: Any, order: range
) -> tuple[Any, Any]:
    """`jax.lax.scan` over steps, whose outputs take the place of what is in some arrays.

    XLA:CPU fills what a scan puts out before the loop writes it: with zeros, which are one array
    for all scans of a program that have this shape, and then a copy for each. An array that is
    filled with a row of the data (`_fill`) is no other scan's.

    Args:
        body: from the state and t to the state and the outputs of step t.
        state: before the first of these steps.
        outputs: a tree of `[T, ...]`, whose rows at these steps are replaced.
        order: the steps, a range.

    Returns:
        The state after the last of the steps, and the outputs.
    """

    def take_step(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, outputs = carry
        t = order.start + order.step * i
        put = functools.partial(
            jax.lax.dynamic_update_index_in_dim, index=t, axis=0, allow_negative_indices=False
        )
        state, new = body(state, t)
        return state, jax.tree.map(put, outputs, new)

    return jax.lax.fori_loop(0, len(order), take_step, (state, outputs))


def _order(x: Number, reverse: bool) -> range:
    """The steps of a sequence `[T, ...]` in the direction of the recurrence."""
    steps = range(x[0].shape[0])
    return steps[::-1] if reverse else steps


def _row(x: Any, t: Any) -> Any:
    """Step t of a tree of `[T, ...]`; t may be traced."""
    at = functools.partial(
        jax.lax.dynamic_index_in_dim, index=t, keepdims=False, allow_negative_indices=False
    )
    return jax.tree.map(at, x)


def _rows(a: Number, steps: int) -> Callable[[Any], Number]:
    """The decay as a function of t; one that does not change with time is read once."""
    constant = _row(a, 0)
    return (lambda t: _row(a, t)) if _varies(a, steps) else lambda t: constant


def _fill(x: Number, t: int) -> Number:
    """Arrays of the shape of `x`, each row of which is step t of it."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[t], x.shape), x)


def _run_associative(
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    arithmetic: Arithmetic,
) -> Number:
    """A tree over all steps."""
    if not _varies(a, b[0].shape[0]):
        a = jax.tree.map(lambda x: jnp.broadcast_to(x, (b[0].shape[0], *x.shape[1:])), a)
    if resets is not None:
        assert h_reset is not None
        b = select(resets, _affine(a, h_reset, b), b)
    return _tree(
        arithmetic.lift(a), arithmetic.lift(b), arithmetic.lift(h0), resets, reverse, arithmetic
    )


def _tree(
    a: Any, b: Any, h0: Any, resets: jax.Array | None, reverse: bool, arithmetic: Arithmetic
) -> Number:
    """The states of the recurrence, where an element with a reset in it forgets all before it.

    `a`, `b` and `h0` are numbers of the kind that `arithmetic` calculates in.
    """
    combine = _joined_by(arithmetic)
    a, b, resets = associative_scan(combine, (a, b, resets), reverse=reverse)
    h = arithmetic.affine(a, jax.tree.map(lambda x: x[None], h0), b)
    return arithmetic.lower(h if resets is None else select(resets, b, h))


def _joined_by(arithmetic: Arithmetic) -> Callable[[Part, Part], Part]:
    """Joins two parts of a sequence in a row: decay, input and resets, leaves `[..., *state]`.

    What a part with a reset forgets is dropped by a selection, so that neither zero times NaN nor
    an overflow can come through. Products of decays across such a part are wrong, and never used.
    """

    def combine(earlier: Part, later: Part) -> Part:
        forgets = later[2]
        b = arithmetic.affine(later[0], earlier[1], later[1])
        if forgets is None:
            return arithmetic.times(later[0], earlier[0]), b, None
        b = select(forgets, later[1], b)
        return arithmetic.times(later[0], earlier[0]), b, forgets | earlier[2]

    return combine


def _run_chunked(
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    arithmetic: Arithmetic,
) -> Number:
    """All chunks side by side, one step of each at a time.

    A first sweep finds what each chunk makes of the state that enters it: the product of its
    decays and its last state after zeros. A tree over the chunks gives the states that enter, and
    a second sweep begins with these. The first sweep writes nothing for each step, so all is five
    transfers and the tree over one of `CHUNK` states. Correcting the states of a single sweep
    would read and write the products of the decays at each step as well: seven. Many chunks and
    few steps keep an accelerator full, whose cost of one more step is that of starting a kernel.
    """
    chunks = _Chunks.of(a, b, h_reset, resets, reverse)
    product, last, had_reset = chunks.parts(arithmetic)
    last = _tree(product, last, arithmetic.lift(h0), had_reset, reverse, arithmetic)
    return chunks.states(_before(last, h0, reverse))


def _enter(
    axis: str,
    a: Number,
    b: Number,
    h0: Number,
    h_reset: Number | None,
    resets: jax.Array | None,
    reverse: bool,
    arithmetic: Arithmetic,
) -> Number:
    """The state that enters the steps of each device, where time is cut along an axis.

    A device is one chunk more: its chunks, joined.
    """
    combine = _joined_by(arithmetic)
    parts = _Chunks.of(a, b, h_reset, resets, reverse).parts(arithmetic)
    parts = associative_scan(combine, parts, reverse=reverse)
    part = jax.tree.map(lambda x: x[0 if reverse else -1], parts)
    first = (part[0], arithmetic.lift(h0), part[2])
    return arithmetic.lower(entering(axis, part, first, combine, reverse)[1])


class _Chunks(NamedTuple):
    """A sequence in chunks of C steps, all side by side.

    Attributes:
        inputs: decays, unless they are constant, inputs and resets, leaves `[chunks, C, ...]`.
        constant: the decay of a step.
        h_reset: the state after a reset.
        reverse: from the last step to the first.
        steps: T; those that fill up the last chunk come after all others, and nobody sees them.
    """

    inputs: Any
    constant: Number
    h_reset: Number | None
    reverse: bool
    steps: int

    @classmethod
    def of(cls, a: Number, b: Number, h_reset: Any, resets: Any, reverse: bool) -> _Chunks:
        """Cuts a sequence `[T, ...]`."""
        steps = b[0].shape[0]
        length = min(CHUNK, steps)
        missing = -steps % length

        def cut(x: jax.Array) -> jax.Array:
            if missing:
                filled = (missing, 0) if reverse else (0, missing)
                x = jnp.pad(x, [filled] + [(0, 0)] * (x.ndim - 1))
            return x.reshape(x.shape[0] // length, length, *x.shape[1:])

        inputs = jax.tree.map(cut, (a if _varies(a, steps) else None, b, resets))
        return cls(inputs, jax.tree.map(lambda x: x[0], a), h_reset, reverse, steps)

    @property
    def length(self) -> int:
        """C."""
        return self.inputs[1][0].shape[1]

    def at(self, i: Any) -> tuple[Any, Number, Number, Any]:
        """Which step of each chunk is the i-th, and its inputs, `[chunks, ...]`."""
        step = self.length - 1 - i if self.reverse else i
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=step, axis=1, keepdims=False)
        a, b, reset = jax.tree.map(take, self.inputs)
        return step, self.constant if a is None else a, b, reset

    def parts(self, arithmetic: Arithmetic) -> Part:
        """Of each chunk: the product of its decays, its state after zeros, whether it resets."""

        def sweep(i: Any, state: Part) -> Part:
            product, h, had_reset = state
            _, a, b, reset = self.at(i)
            if reset is not None:
                assert self.h_reset is not None
                h = select(reset, arithmetic.lift(self.h_reset), h)
                had_reset = had_reset | reset
            a = arithmetic.lift(a)
            h = arithmetic.affine(a, h, arithmetic.lift(b))
            return arithmetic.times(a, product), h, had_reset

        decay, blank, reset = jax.tree.map(zeros_like, self.at(0)[1:])
        if self.inputs[0] is None:
            count = blank[0].shape[0]
            decay = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), decay)
        one = (decay[0] + 1, *decay[1:])
        begin = arithmetic.lift(one), arithmetic.lift(blank), reset
        return jax.lax.fori_loop(0, self.length, sweep, begin)

    def states(self, enters: Number) -> Number:
        """All states `[T, ...]`, from those that enter each chunk, `[chunks, ...]`."""

        def sweep(i: Any, state: tuple[Number, Number]) -> tuple[Number, Number]:
            h, hs = state  # `[chunks, *state]` and `[chunks, C, *state]`
            step, a, b, reset = self.at(i)
            h = _step(h, a, b, self.h_reset, reset)
            write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=1)
            return h, jax.tree.map(write, hs, h)

        hs = _zeros(self.inputs[1])
        _, hs = jax.lax.fori_loop(0, self.length, sweep, (enters, hs))
        filled = self.length * enters[0].shape[0]
        keep = slice(filled - self.steps, None) if self.reverse else slice(self.steps)
        return jax.tree.map(lambda x: x.reshape(filled, *x.shape[2:])[keep], hs)


def _before(h: Number, h0: Number, reverse: bool) -> Number:
    """What stood before each step, in the direction of the recurrence; `h0` before the first."""
    order = (lambda x, x0: (x[1:], x0[None])) if reverse else (lambda x, x0: (x0[None], x[:-1]))
    return tuple(jnp.concatenate(order(x, x0)) for x, x0 in zip(h, h0, strict=True))


RUN = {"scan": _run_sequential, "associative": _run_associative, "chunked": _run_chunked}
