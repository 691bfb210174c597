"""Sequences of several lengths: as masks, packed into rows, or sorted into a few lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["buckets", "lengths_to_mask", "pack"]


def lengths_to_mask(lengths: jax.Array, steps: int) -> jax.Array:
    """Which steps are real.

    Args:
        lengths: `[...]` integers, from 0 to `steps`.
        steps: T.

    Returns:
        `[..., T]` bool, true at the first `lengths` steps, as `unroll` and every layer take it.
    """
    return jnp.arange(steps) < jnp.asarray(lengths)[..., None]


def pack(
    documents: Sequence[np.ndarray], steps: int, fill: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    for i, document in enumerate(documents):
        array = np.asarray(document)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise ValueError(
                f"documents[{i}]: expected integers of shape [L], got {array.dtype} of shape "
                f"{array.shape}"
            )
    kept = [np.asarray(document, np.int32) for document in documents if len(document)]
    if not kept:
        raise ValueError("documents: expected at least one that is not empty")
    tokens = np.concatenate(kept)
    resets = np.zeros(len(tokens), bool)
    resets[np.cumsum([0, *map(len, kept[:-1])])] = True
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
        ValueError: borders that do not ascend, or a sequence longer than the last.
    """
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
