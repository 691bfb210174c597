"""Input validation: shapes, dtypes and structures, before any compilation.

What is plain is taken: lists and the arrays of other packages become arrays. A mask is of bools, a
token is an integer, a number is real. Values are looked at where they are known, which inside
`jax.jit` they are not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = [
    "as_array",
    "as_key",
    "check_like",
    "check_rows",
    "check_sequence",
    "check_tokens",
    "is_readable",
    "is_zero",
]


KINDS = {
    "real numbers": (jnp.floating, jnp.integer, jnp.bool),
    "integers": (jnp.integer,),
    "bools": (jnp.bool,),
}


def as_array(name: str, value: Any, kind: str = "real numbers") -> jax.Array:
    """Converts an array of any package, or nested lists of numbers, to a jax array.

    Args:
        name: for the message.
        value: what came. An array of jax is returned as it is.
        kind: "real numbers" (integers and bools too), "integers" or "bools".

    Raises:
        ValueError: rows of several lengths, complex numbers, strings, objects, typed keys, or
            another kind.
    """
    array = _convert(name, value, kind)
    if not any(jnp.issubdtype(array.dtype, dtype) for dtype in KINDS[kind]):
        pairs = jnp.issubdtype(array.dtype, jnp.complexfloating)
        hint = "; a complex number is a pair of real arrays in this library" if pairs else ""
        raise ValueError(f"{name}: expected {kind}, got {array.dtype} of shape {array.shape}{hint}")
    return array if isinstance(array, jax.Array) else _to_jax(name, array)


def _convert(name: str, value: Any, kind: str) -> jax.Array | np.ndarray:
    """An array of jax or NumPy, of any dtype."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    if isinstance(value, int | float | complex):
        return jnp.asarray(value)  # of weak type: it promotes nothing
    is_list = isinstance(value, list | tuple)
    try:
        if is_list and any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value)):
            return jnp.asarray(value)
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        hint = ""
        if is_list:
            hint = " (`longlag.pad_rows` pads and masks rows of several lengths)"
        raise ValueError(
            f"{name}: expected an array of {kind}, got {type(value).__name__}: {error}{hint}"
        ) from None
    if array.dtype.kind not in "biufcV":  # V: bfloat16 and its like
        raise ValueError(f"{name}: expected an array of {kind}, got {type(value).__name__}")
    if is_list and not array.size:  # an empty list has no dtype of its own
        return array.astype({"integers": np.int32, "bools": bool}.get(kind, array.dtype))
    return array


def _to_jax(name: str, array: np.ndarray) -> jax.Array:
    """An array of NumPy as one of jax. Integers that jax would wrap are refused."""
    result = jnp.asarray(array)
    if jnp.issubdtype(array.dtype, jnp.integer) and array.size and result.dtype != array.dtype:
        limits = jnp.iinfo(result.dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(
                f"{name}: expected integers that fit {result.dtype}, got {array.min()} to "
                f"{array.max()}"
            )
    return result


def is_readable(value: Any) -> bool:
    """Whether the numbers of an array can be looked at: it is not traced, and lies here."""
    return not isinstance(value, Tracer) and getattr(value, "is_fully_addressable", True)


def as_key(name: str, key: Any) -> jax.Array | None:
    """Converts a key to a typed one, also the uint32 array of `jax.random.PRNGKey`.

    Both give the same numbers. None stays None.

    Raises:
        ValueError: it is neither, or there are several.
    """
    if key is None:
        return None
    kind = f"{key.dtype} of shape {key.shape}" if hasattr(key, "dtype") else type(key).__name__
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.ndim == 0:
                return key  # type: ignore[return-value]
        elif key.dtype == np.uint32 and key.ndim == 1:
            try:
                return jax.random.wrap_key_data(jnp.asarray(key))
            except (TypeError, ValueError):
                pass
    elif isinstance(key, int):
        kind += f" {key}"
    raise ValueError(f"{name}: expected one key, as `jax.random.key(0)` is; got {kind}")


def is_zero(size: Any) -> bool:
    """Whether a dimension is known to be empty; a symbolic one (`jax.export`) is not known."""
    return isinstance(size, int) and size == 0


def check_sequence(
    name: str,
    xs: Any,
    mask: Any,
    resets: Any,
    time_major: bool,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """Returns inputs, mask and resets as arrays.

    Args:
        name: of the inputs, for the message.
        xs: real numbers, `[B, T, ...]`, or `[T, B, ...]` if `time_major`.
        mask: bools of the leading two axes of `xs`, or None.
        resets: as `mask`.
        time_major: which axis is which.

    Raises:
        ValueError: another shape or dtype.
    """
    axes = "[T, B, ...]" if time_major else "[B, T, ...]"
    xs = as_array(name, xs)
    if xs.ndim < 2:
        raise ValueError(f"{name}: expected {axes}, got shape {xs.shape}")
    return xs, _flag("mask", mask, name, xs), _flag("resets", resets, name, xs)


def _flag(what: str, flag: Any, name: str, xs: jax.Array) -> jax.Array | None:
    """A mask or resets as an array of bools."""
    if flag is None:
        return None
    flag = _convert(what, flag, "bools")
    if flag.shape == xs.shape[:2] and flag.dtype == bool:
        return jnp.asarray(flag)
    hint = ""
    if flag.shape == xs.shape[:2]:
        hint = f"; `{what} != 0` makes bools of numbers"
    elif flag.ndim == 1 and flag.dtype != bool and what == "mask":
        hint = "; `longlag.lengths_to_mask` makes a mask `[B, T]` of lengths"
    raise ValueError(
        f"{what}: expected bool of shape {xs.shape[:2]}, the leading axes of {name}; "
        f"got {flag.dtype} of shape {flag.shape}{hint}"
    )


def check_tokens(name: str, tokens: jax.Array, classes: int, mask: jax.Array | None) -> None:
    """Raises `ValueError` for a token outside the classes, where tokens and mask are known.

    Args:
        name: for the message.
        tokens: integers.
        classes: how many there are; tokens are 0 .. `classes` - 1.
        mask: true where a token counts; None: everywhere.
    """
    if not is_readable(tokens) or not is_readable(mask):
        return
    values = np.asarray(tokens)
    values = values if mask is None else values[np.asarray(mask)]
    if values.size and (values.min() < 0 or values.max() >= classes):
        raise ValueError(
            f"{name}: expected tokens of 0 .. {classes - 1}, got {values.min()} .. {values.max()}"
        )


def check_like(name: str, tree: Any, like: Any, whose: str) -> None:
    """Raises `ValueError` unless two trees agree in structure, shapes and kinds of number.

    Floating leaves may differ in precision, since a carry keeps the dtype it comes with.
    """
    expected, structure = jax.tree.structure(like), jax.tree.structure(tree)
    if expected != structure:
        raise ValueError(f"{name}: expected the structure {expected} ({whose}); got {structure}")
    like_leaves, _ = jax.tree_util.tree_flatten_with_path(like)
    for (path, like_leaf), leaf in zip(like_leaves, jax.tree.leaves(tree)):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        shape, like_dtype = like_leaf.shape, like_leaf.dtype
        both_floating = jnp.issubdtype(like_dtype, jnp.floating) and jnp.issubdtype(
            dtype, jnp.floating
        )
        if shape != np.shape(leaf) or (like_dtype != dtype and not both_floating):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected {like_dtype} of shape {shape} "
                f"({whose}); got {dtype} of shape {np.shape(leaf)}"
            )


def check_rows(name: str, tree: Any, leading: tuple[int, ...], whose: str) -> None:
    """Raises `ValueError` unless the leaves of a tree are arrays with these leading axes."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.shape(leaf)[: len(leading)] != leading:
            axes = ", ".join(map(str, leading))
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected the shape [{axes}, ...] ({whose}); "
                f"got {jnp.shape(leaf)}"
            )
