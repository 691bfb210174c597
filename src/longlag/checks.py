"""What came is like what was expected: shapes, dtypes and structures, before any compilation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["check_like", "check_rows", "check_sequence"]


def check_sequence(
    name: str,
    xs: jax.Array,
    mask: jax.Array | None,
    resets: jax.Array | None,
    time_major: bool,
) -> None:
    """Raises `ValueError` unless mask and resets are bool and fit the leading axes of `xs`."""
    axes = "[T, B, ...]" if time_major else "[B, T, ...]"
    if not hasattr(xs, "shape"):
        raise ValueError(f"{name}: expected an array {axes}, got {type(xs).__name__}")
    if jnp.ndim(xs) < 2:
        raise ValueError(f"{name}: expected {axes}, got shape {jnp.shape(xs)}")
    for what, flag in (("mask", mask), ("resets", resets)):
        if flag is not None and (flag.shape != xs.shape[:2] or flag.dtype != bool):
            raise ValueError(
                f"{what}: expected bool of shape {xs.shape[:2]}, the leading axes of {name}; "
                f"got {flag.dtype} of shape {flag.shape}"
            )


def check_like(name: str, tree: Any, like: Any, whose: str) -> None:
    """Raises `ValueError` unless two trees agree in structure, shapes and kinds of number.

    Floating leaves may differ in precision, since a carry keeps the dtype it comes with.
    """
    expected, got = jax.tree.structure(like), jax.tree.structure(tree)
    if expected != got:
        raise ValueError(f"{name}: expected the structure {expected} ({whose}); got {got}")
    wanted, _ = jax.tree_util.tree_flatten_with_path(like)
    for (path, want), leaf in zip(wanted, jax.tree.leaves(tree)):
        dtype = jnp.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype
        both_floating = jnp.issubdtype(want.dtype, jnp.floating) and jnp.issubdtype(
            dtype, jnp.floating
        )
        if want.shape != jnp.shape(leaf) or (want.dtype != dtype and not both_floating):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected {want.dtype} of shape {want.shape} "
                f"({whose}); got {dtype} of shape {jnp.shape(leaf)}"
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
