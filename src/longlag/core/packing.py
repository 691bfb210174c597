"""Sequences of several lengths: as masks, packed into rows, or sorted into a few lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import Lengths, MaskOfLengths, PaddedTokens, PaddingMask
from longlag.core.checks import as_array, is_readable
from longlag.core.spec import take

__all__ = ["buckets", "check_no_row_empty", "lengths_to_mask", "pack", "pad_lists", "pad_rows"]


def lengths_to_mask(lengths: Lengths, steps: int) -> MaskOfLengths:
    """Makes the mask of sequences of several lengths, true at the steps that are no padding.

    Args:
        lengths: `[...]` integers, from 0 to `steps`.
        steps: T.

    Returns:
        `[..., T]` bool, true at the first `lengths` steps, as `unroll` and every layer take it.

    Raises:
        ValueError: lengths that are no integers, or, where they are known, of fewer than 0 or more
            than T steps.
    """
    steps, lengths = take("steps", steps, int), as_array("lengths", lengths, "integers")
    if is_readable(lengths) and lengths.size:
        shortest, longest = np.min(lengths), np.max(lengths)
        if shortest < 0 or longest > steps:
            raise ValueError(f"lengths: expected 0 .. {steps}, got {shortest} .. {longest}")
    return jnp.arange(steps) < lengths[..., None]


def pad_rows(rows: Sequence[Any], fill: int = 0) -> tuple[PaddedTokens, PaddingMask]:
    """Pads rows of several lengths at their ends.

    Args:
        rows: tokens, integers of shape `[L]`, lists or arrays.
        fill: the token at padding.

    Returns:
        Tokens `[B, T]` int32, T the longest L, and their mask `[B, T]` bool.

    Raises:
        ValueError: there is no row, or one is not a row of integers.
    """
    return _pad("rows", rows, take("fill", fill, int))


def _pad(name: str, rows: Any, fill: int) -> tuple[np.ndarray, np.ndarray]:
    arrays = _as_rows(name, rows)
    if not arrays:
        raise ValueError(f"{name}: expected at least one row, got none")
    lengths = [len(row) for row in arrays]
    tokens = np.full((len(arrays), max(lengths)), fill, np.int32)
    for padded, row in zip(tokens, arrays):
        padded[: len(row)] = row
    return tokens, np.arange(tokens.shape[1]) < np.array(lengths)[:, None]


def pad_lists(name: str, rows: Any, mask: Any) -> tuple[Any, Any]:
    """Pads a list of rows of several lengths; anything else is returned as it is, with its mask.

    Raises:
        ValueError: rows of several lengths beside a mask.
    """
    rowlike = list | tuple | np.ndarray | jax.Array
    if not isinstance(rows, list | tuple) or not all(
        isinstance(row, rowlike) and getattr(row, "ndim", 1) for row in rows
    ):
        return rows, mask
    if len({len(row) for row in rows}) < 2:
        return rows, mask
    if mask is not None:
        raise ValueError(
            f"mask: expected None beside rows of several lengths in {name}, which are their own; "
            "got a mask"
        )
    return _pad(name, rows, 0)


def check_no_row_empty(name: str, mask: jax.Array | None) -> None:
    """Raises `ValueError` for a row of which a mask, where it is known, leaves nothing."""
    if mask is None or not is_readable(mask):
        return
    empty = np.flatnonzero(~np.asarray(mask).any(axis=1)).tolist()
    if empty:
        raise ValueError(f"{name}: expected at least one token in every row, got none in {empty}")


def _as_rows(name: str, rows: Any) -> list[np.ndarray]:
    """Rows of tokens, int32."""
    arrays = []
    for i, row in enumerate(rows):
        array = np.asarray(row)
        array = array if array.size else array.astype(np.int32)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"{name}[{i}]: expected integers of shape [L], got {array.dtype} of shape "
                f"{array.shape}"
            )
        limits = np.iinfo(np.int32)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise ValueError(
                f"{name}[{i}]: expected integers that fit int32, got {array.min()} .. {array.max()}"
            )
        arrays.append(array.astype(np.int32))
    return arrays


def pack(
    documents: Sequence[np.ndarray], steps: int, fill: int = 0
) -> tuple[PaddedTokens, PaddingMask, PaddingMask]:
    """Packs documents one behind the other into rows, so that little is padding.

    A document that does not fit goes on in the next row, without a reset: pass the carry on from
    batch to batch in row order, or give rows apart a `steps` that is long enough. The first token
    of every document is a reset.

    Args:
        documents: tokens, integers of shape `[L]`; an empty one is left out.
        steps: T.
        fill: the token at padding, which the last row alone can have.

    Returns:
        Tokens `[R, T]` int32, resets `[R, T]` bool, mask `[R, T]` bool.

    Raises:
        ValueError: no document has a token, one is not a row of integers, or T < 1.
    """
    steps, fill = take("steps", steps, int), take("fill", fill, int)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    filled = [document for document in _as_rows("documents", documents) if len(document)]
    if not filled:
        raise ValueError("documents: expected at least one that is not empty")
    tokens = np.concatenate(filled)
    resets = np.zeros(len(tokens), bool)
    resets[np.cumsum([0, *map(len, filled[:-1])])] = True
    missing = -len(tokens) % steps
    mask = np.pad(np.ones(len(tokens), bool), (0, missing))
    tokens = np.pad(tokens, (0, missing), constant_values=fill)
    resets = np.pad(resets, (0, missing))
    rows = tuple(x.reshape(-1, steps) for x in (tokens, resets, mask))
    return rows[0], rows[1], rows[2]


def buckets(
    lengths: Sequence[int], borders: Sequence[int], batch_size: int, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of sequences of about one length, so that a few compiled lengths do for all.

    Every sequence comes once, in an order that the seed alone decides. The last batch of a bucket
    may be smaller.

    Args:
        lengths: of the sequences.
        borders: ascending; a sequence is padded to the first that it does not exceed.
        batch_size: B.
        seed: of the order.

    Yields:
        The length to pad to, and the indices of the sequences of a batch.

    Raises:
        ValueError: borders that do not ascend, a sequence longer than the last, lengths below
            zero, or a batch of none.
    """
    lengths = take("lengths", np.asarray(lengths).tolist(), tuple[int, ...])
    borders = take("borders", np.asarray(borders).tolist(), tuple[int, ...])
    batch_size = take("batch_size", batch_size, int)
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if min(lengths, default=0) < 0:
        raise ValueError(f"lengths: expected at least 0, got {min(lengths)}")
    if list(borders) != sorted(set(borders)) or not borders:
        raise ValueError(f"borders: expected ascending numbers, got {list(borders)}")
    if max(lengths, default=0) > borders[-1]:
        raise ValueError(
            f"lengths: expected at most {borders[-1]}, the last border; got {max(lengths)}"
        )
    rng = np.random.default_rng(seed)
    of_bucket = np.searchsorted(borders, lengths)
    batches = []
    for bucket, border in enumerate(borders):
        members = rng.permutation(np.flatnonzero(of_bucket == bucket))
        for begin in range(0, len(members), batch_size):
            batches.append((int(border), members[begin : begin + batch_size]))
    for i in rng.permutation(len(batches)):
        yield batches[i]
