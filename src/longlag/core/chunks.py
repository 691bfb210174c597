"""Time in chunks: how a sequence is cut, and scans over what was cut.

A scan over chunks under `jax.checkpoint` keeps the state at the borders alone, and one chunk at a
time of all else: with chunks of about √T steps, memory that grows with √T for a third more work
(Chen et al. 2016, arXiv 1604.06174). Because every cell, layer and model streams, the same scan
serves a single layer (`unroll(remat=...)`), a whole model with its loss (`sum_over_time`) and
truncated backpropagation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp

from longlag.core.any_length import is_known
from longlag.core.array_types import Index
from longlag.core.over_devices import refuse_time_axis

__all__ = [
    "Chunk",
    "check_chunk",
    "chunk_length",
    "over_chunks",
    "rematerialise",
    "steps_of",
    "sum_over_time",
]

Chunk = int | Literal["sqrt"]
S = TypeVar("S")


def sum_over_time(
    step: Callable[[S, Any, Index], tuple[S, Any]],
    state: S,
    inputs: Any,
    *,
    chunk: Chunk = "sqrt",
    truncate: bool = False,
) -> tuple[S, Any]:
    """Sums what a function makes of a long sequence, a chunk of time after another.

    Only the states at the borders of the chunks are kept for the gradient; all else is computed
    again, chunk by chunk. So a model with its head and its loss inside `step` takes gradients
    through any length, and its logits are never there for all steps at once.

        def step(state, chunk, index):
            inputs, targets = chunk
            state, logits = model.apply(params, inputs, state)
            return state, cross_entropy(logits, targets).sum()

        _, loss = sum_over_time(step, model.init_state(params, B, capacity), (inputs, targets))

    Args:
        step: `(state, chunk, index) -> (state, sums)`: the state has one structure, shapes and
            dtypes throughout; `chunk` holds leaves `[B, C, ...]` of the inputs, and `index` the
            number of the chunk, int32, to be folded into a key. It may close over parameters, whose
            gradients are added up over the chunks in their own dtype.
        state: before the first step.
        inputs: a tree, leaves `[B, T, ...]`, None stays None.
        chunk: C, the steps of a chunk, or "sqrt": near √T. The last chunk may be shorter.
        truncate: no gradient flows from one chunk into the one before (truncated backpropagation
            through time, Williams and Peng 1990), nor through the state that is returned.

    Returns:
        The state after the last step, and the tree of sums.

    Raises:
        ValueError: inputs of different lengths, a chunk that is not a positive number.
    """
    refuse_time_axis("sum_over_time", "take the steps of a device at once, and more devices")
    lengths = sorted({leaf.shape[1] for leaf in jax.tree.leaves(inputs)})
    if len(lengths) != 1:
        raise ValueError(f"inputs: expected leaves [B, T, ...] of one length T, got T = {lengths}")
    check_chunk("chunk", chunk)
    length = steps_of(chunk, lengths[0])
    by_time = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), inputs)

    def add_chunk(carry: Any, steps: Any, index: jax.Array) -> tuple[Any, None]:
        state, totals = carry
        rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), steps)  # [C, B] to [B, C]
        state, sums = step(state, rows, index)
        if truncate:
            state = jax.lax.stop_gradient(state)
        return (state, jax.tree.map(jnp.add, totals, sums)), None

    def sum_first(state: S, inputs: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf[:, :length], inputs)
        return step(state, first, jnp.int32(0))[1]

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(sum_first, state, inputs)
    )
    return rematerialise(add_chunk, (state, zeros), by_time, length)[0]


def check_chunk(name: str, chunk: Any) -> None:
    """Raises `ValueError` unless `chunk` is "sqrt" or a positive int."""
    whole = isinstance(chunk, int) and not isinstance(chunk, bool)
    if chunk != "sqrt" and not (whole and chunk >= 1):
        raise ValueError(f"{name}: expected 'sqrt' or at least 1 step, got {chunk!r}")


def steps_of(chunk: Chunk, steps: int) -> int:
    """The steps of a chunk of a sequence of `steps`."""
    if not is_known(steps):
        return steps
    if chunk == "sqrt":
        return chunk_length(steps, max(math.isqrt(steps), 1))
    return max(min(chunk, steps), 1)


def chunk_length(steps: int, aim: int) -> int:
    """Steps of a chunk near `aim`: a divisor of all steps if there is one near it.

    A sequence of up to one and a half times the aim is one chunk, and so is one of unknown length.
    """
    if not is_known(steps):
        return steps
    if steps <= 3 * aim // 2:
        return max(steps, 1)
    near = range(max(3 * aim // 4, 1), 3 * aim // 2 + 1)
    return min((c for c in near if steps % c == 0), key=lambda c: abs(c - aim), default=aim)


def rematerialise(
    part: Callable[[S, Any, jax.Array], tuple[S, Any]],
    state: S,
    steps: Any,
    length: int,
    reverse: bool = False,
) -> tuple[S, Any]:
    """Scans over chunks of time; the gradient keeps the state before each, and runs it once more.

    Args:
        part: `(state, steps, index) -> (state, out)` for one chunk, leaves `[C, ...]`, and its
            number, int32.
        state: passed from chunk to chunk.
        steps: leaves `[T, ...]`.
        length: C; the last chunk may be shorter.
        reverse: from the last chunk to the first.

    Returns:
        The last state, and what every step returned, in the order of time.
    """

    def run_chunk(state: S, steps: Any, index: jax.Array) -> tuple[S, Any, None]:
        return *part(state, steps, index), None

    total = jax.tree.leaves(steps)[0].shape[0]
    index = jnp.arange(max(-(-total // length), 1), dtype=jnp.int32)
    # A scan cannot merge the second run with the first, so nothing has to prevent it.
    checkpointed = jax.checkpoint(run_chunk, prevent_cse=False)
    state, out, _ = over_chunks(checkpointed, state, steps, index, length, reverse)
    return state, out


def over_chunks(
    run_chunk: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    state: Any,
    by_step: Any,
    by_chunk: Any,
    length: int,
    reverse: bool,
) -> tuple[Any, Any, Any]:
    """Scans over chunks of time; what is left over is a shorter chunk at the end.

    Args:
        run_chunk: `(state, by_step, by_chunk) -> (state, out_by_step, out_by_chunk)` for one chunk.
        state: passed from chunk to chunk.
        by_step: leaves `[T, ...]`.
        by_chunk: leaves `[number of chunks, ...]`.
        length: of a chunk.
        reverse: from the last chunk to the first.

    Returns:
        The last state, out_by_step and out_by_chunk: what every step and every chunk returned, in
        the order of time.
    """
    total = jax.tree.leaves(by_step)[0].shape[0]
    whole, rest = divmod(total, length)

    def scan_whole(state: Any, start: int, stop: int) -> tuple[Any, Any, Any]:
        n = (stop - start) // length
        cut = jax.tree.map(lambda x: x[start:stop].reshape(n, length, *x.shape[1:]), by_step)
        first = jax.tree.map(lambda x: x[:n], by_chunk)

        def body(state: Any, inputs: tuple[Any, Any]) -> tuple[Any, list[Any]]:
            state, *outs = run_chunk(state, *inputs)
            return state, outs

        # What the steps return is `[n, C, ...]`, and what the chunks return is `[n, ...]`.
        state, outs = jax.lax.scan(body, state, (cut, first), reverse=reverse)
        out_by_step, out_by_chunk = outs
        out_by_step = jax.tree.map(lambda x: x.reshape(n * length, *x.shape[2:]), out_by_step)
        return state, out_by_step, out_by_chunk

    def run_one(state: Any, start: int, stop: int) -> tuple[Any, Any, Any]:
        cut = jax.tree.map(lambda x: x[start:stop], by_step)
        index = start // length
        this = jax.tree.map(lambda x: x[index], by_chunk)
        state, out_by_step, out_by_chunk = run_chunk(state, cut, this)
        return state, out_by_step, jax.tree.map(lambda x: x[None], out_by_chunk)

    parts = [(run_one if whole == 1 else scan_whole, 0, whole * length)] if whole else []
    parts += [(run_one, whole * length, total)] if rest or not whole else []
    outs = []
    for run, start, stop in reversed(parts) if reverse else parts:
        state, *out = run(state, start, stop)
        outs.insert(0 if reverse else len(outs), out)
    if len(outs) == 1:
        return state, *outs[0]
    return state, *jax.tree.map(lambda *x: jnp.concatenate(x), *outs)
