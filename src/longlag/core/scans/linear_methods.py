"""The methods of `linear_scan`: one step after another, by a tree, and chunk by chunk.

`a` keeps axes of size 1 throughout: it is never spread over the state.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.any_length import associative_scan, is_known
from longlag.core.placement import zeros_like
from longlag.core.scans.numbers import Parts, _affine, _at, _zeros
from longlag.core.selection import select

# Steps of a chunk of "chunked". Its tree costs about 30 transfers of 1 / CHUNK of the states, one
# transfer of all of them, and its two sweeps CHUNK steps each, however long the sequence is.
CHUNK = 32


def _varies(a: Parts, steps: int) -> bool:
    return a[0].shape[0] == steps


def _step(h: Parts, a: Parts, b: Parts, h_reset: Any, reset: Any) -> Parts:
    if reset is not None:
        h = select(reset, h_reset, h)
    return _affine(a, h, b)


def _sequential(a, b, h0, h_reset, resets, reverse, _):
    """One step after another."""
    if not is_known(b[0].shape[0]):
        return _any_length(a, b, h0, h_reset, resets, reverse)
    a = _rows(a, b[0].shape[0])

    def body(h, t):
        h = _step(h, a(t), _row(b, t), h_reset, _row(resets, t))
        return h, h

    order = _order(b, reverse)
    return _over_steps(body, h0, _filled(b, order[0]), order)[1]


def _any_length(a, b, h0, h_reset, resets, reverse):
    """One step after another, where the number of steps is not known."""
    varies = _varies(a, b[0].shape[0])

    def body(h, inputs):
        decay, b, reset = inputs
        h = _step(h, decay if varies else _at(a, 0), b, h_reset, reset)
        return h, h

    return jax.lax.scan(body, h0, (a if varies else None, b, resets), reverse=reverse)[1]


def _over_steps(body, state, outputs, order):
    """`jax.lax.scan` over steps, whose outputs take the place of what is in some arrays.

    XLA:CPU fills what a scan puts out before the loop writes it: with zeros, which are one array
    for all scans of a program that have this shape, and then a copy for each. An array that is
    filled with a row of the data (`_filled`) is no other scan's.

    Args:
        body: from the state and t to the state and the outputs of step t.
        state: before the first of these steps.
        outputs: a tree of `[T, ...]`, whose rows at these steps are replaced.
        order: the steps, a range.

    Returns:
        The state after the last of the steps, and the outputs.
    """

    def one(i, carry):
        state, outputs = carry
        t = order.start + order.step * i
        put = functools.partial(
            jax.lax.dynamic_update_index_in_dim, index=t, axis=0, allow_negative_indices=False
        )
        state, new = body(state, t)
        return state, jax.tree.map(put, outputs, new)

    return jax.lax.fori_loop(0, len(order), one, (state, outputs))


def _order(x: Parts, reverse: bool) -> range:
    """The steps of a sequence `[T, ...]` in the direction of the recurrence."""
    steps = range(x[0].shape[0])
    return steps[::-1] if reverse else steps


def _row(x: Any, t: Any) -> Any:
    """Step t of a tree of `[T, ...]`; t may be traced."""
    at = functools.partial(
        jax.lax.dynamic_index_in_dim, index=t, keepdims=False, allow_negative_indices=False
    )
    return jax.tree.map(at, x)


def _rows(a: Parts, steps: int) -> Any:
    """The decay at step t; one that does not change with time is read once."""
    always = _row(a, 0)
    return (lambda t: _row(a, t)) if _varies(a, steps) else lambda t: always


def _filled(x: Parts, t: int) -> Parts:
    """Arrays of the shape of `x`, each row of which is step t of it."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[t], x.shape), x)


def _associative(a, b, h0, h_reset, resets, reverse, how):
    if not _varies(a, b[0].shape[0]):
        a = jax.tree.map(lambda x: jnp.broadcast_to(x, (b[0].shape[0], *x.shape[1:])), a)
    if resets is not None:
        b = select(resets, _affine(a, h_reset, b), b)
    return _tree(how.lift(a), how.lift(b), how.lift(h0), resets, reverse, how)


def _tree(a, b, h0, anew, reverse, how):
    """The states of the recurrence, where an element that is `anew` forgets all before it.

    `a`, `b` and `h0` are numbers of the kind that `how` calculates in. What an element forgets is
    dropped by a selection, so that neither zero times NaN nor an overflow can come through.
    Products of `a` across such an element are wrong, and never used.
    """

    def combine(left, right):
        forgets = right[2]
        b = how.affine(right[0], left[1], right[1])
        if forgets is None:
            return how.times(right[0], left[0]), b, None
        b = select(forgets, right[1], b)
        return how.times(right[0], left[0]), b, forgets | left[2]

    a, b, anew = associative_scan(combine, (a, b, anew), reverse=reverse)
    h = how.affine(a, jax.tree.map(lambda x: x[None], h0), b)
    return how.lower(h if anew is None else select(anew, b, h))


def _chunked(a, b, h0, h_reset, resets, reverse, how):
    """All chunks side by side, one step of each at a time.

    A first sweep finds what each chunk makes of the state that enters it: the product of its
    decays and its last state after zeros. A tree over the chunks gives the states that enter, and
    a second sweep begins with these. The first sweep writes nothing for each step, so all is five
    transfers and the tree over one of `CHUNK` states. Correcting the states of a single sweep
    would read and write the products of the decays at each step as well: seven. Many chunks and
    few steps keep an accelerator full, whose cost of one more step is that of starting a kernel.
    """
    steps = b[0].shape[0]
    length = min(CHUNK, steps)
    varies = _varies(a, steps)
    missing = -steps % length

    def cut(x):
        # The steps that fill up the last chunk come after all others, and nobody sees them.
        if missing:
            x = jnp.pad(x, [(missing, 0) if reverse else (0, missing)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(x.shape[0] // length, length, *x.shape[1:])

    inputs = jax.tree.map(cut, (a if varies else None, b, resets))
    always = jax.tree.map(lambda x: x[0], a)

    def at(i):
        """Which step of each chunk is the i-th, and its inputs, `[chunks, ...]`."""
        step = length - 1 - i if reverse else i
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=step, axis=1, keepdims=False)
        a, b, reset = jax.tree.map(take, inputs)
        return step, a if varies else always, b, reset

    def first(i, state):
        product, h, anew = state
        _, a, b, reset = at(i)
        if reset is not None:
            h, anew = select(reset, how.lift(h_reset), h), anew | reset
        a = how.lift(a)
        return how.times(a, product), how.affine(a, h, how.lift(b)), anew

    def second(i, state):
        h, hs = state
        step, a, b, reset = at(i)
        h = _step(h, a, b, h_reset, reset)
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=1)
        return h, jax.tree.map(write, hs, h)

    decay, blank, reset = jax.tree.map(zeros_like, at(0)[1:])
    if not varies:
        decay = jax.tree.map(lambda x: jnp.broadcast_to(x, (blank[0].shape[0], *x.shape)), decay)
    one = (decay[0] + 1, *decay[1:])
    begin = how.lift(one), how.lift(blank), reset
    product, last, anew = jax.lax.fori_loop(0, length, first, begin)
    last = _tree(product, last, how.lift(h0), anew, reverse, how)
    enters = _before(last, h0, reverse)
    hs = _zeros(inputs[1])
    _, hs = jax.lax.fori_loop(0, length, second, (enters, hs))
    keep = slice(missing, None) if reverse else slice(steps)
    return jax.tree.map(lambda x: x.reshape(steps + missing, *x.shape[2:])[keep], hs)


RUN = {"scan": _sequential, "associative": _associative, "chunked": _chunked}


def _before(h: Parts, h0: Parts, reverse: bool) -> Parts:
    """What stood before each step, in the direction of the recurrence; `h0` before the first."""
    order = (lambda x, x0: (x[1:], x0[None])) if reverse else (lambda x, x0: (x0[None], x[:-1]))
    return tuple(jnp.concatenate(order(x, x0)) for x, x0 in zip(h, h0, strict=True))
