"""Batches cut over devices, in time or in rows, during training.

A mesh with more than one device on the axis `time` leaves nothing to XLA. Each device draws the
whole batch and takes its own rows and steps of it (`take_part`). The model runs over these steps
under `longlag.time_over_devices`. What a device finds is its part of a sum (`add_parts`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.sharding import Mesh

from longlag.core.array_types import PRNGKey
from longlag.core.over_devices import time_over_devices
from longlag.tasks import Batch, pad

__all__ = ["add_parts", "in_parts", "key_of_part", "map_over_parts", "take_part"]

Tree = TypeVar("Tree")

# Axes of the mesh, in the order of the axes of a batch that they cut.
CUTS = ("data", "time")


def in_parts(mesh: Mesh | None) -> bool:
    """Whether a mesh from `choose_mesh` cuts sequences in time."""
    return mesh is not None and mesh.shape["time"] > 1


def take_part(mesh: Mesh | None, batch: Batch) -> Batch:
    """Takes the rows and steps of this device from a batch that every device has whole.

    Sequences that cannot be cut into equal parts are padded at their end with masked steps.

    Args:
        mesh: from `choose_mesh`; one that cuts no sequence gives the batch as it is.
        batch: leaves `[B, T, ...]`.
    """
    if mesh is None or not in_parts(mesh):
        return batch
    steps, parts = batch.inputs.shape[1], mesh.shape["time"]
    if steps % parts:
        batch = pad(batch, steps + parts - steps % parts)

    def cut(leaf: jax.Array) -> jax.Array:
        for axis, name in enumerate(CUTS):
            size = leaf.shape[axis] // mesh.shape[name]
            first = jax.lax.axis_index(name) * size
            leaf = jax.lax.dynamic_slice_in_dim(leaf, first, size, axis)
        return leaf

    return jax.tree.map(cut, batch)


def add_parts(mesh: Mesh | None, tree: Tree) -> Tree:
    """Sums arrays over all parts of a batch. Without parts, returns them unchanged."""
    return jax.lax.psum(tree, CUTS) if in_parts(mesh) else tree


def key_of_part(mesh: Mesh | None, key: PRNGKey) -> PRNGKey:
    """Makes a random key for the rows of this device. The model makes one for its steps."""
    return jax.random.fold_in(key, jax.lax.axis_index("data")) if in_parts(mesh) else key


def map_over_parts(mesh: Mesh | None, function: Callable[[Batch], Tree]) -> Callable[[Batch], Tree]:
    """Maps a function over the parts of a batch. It returns arrays `[B, T]`.

    Args:
        mesh: from `choose_mesh`; one that cuts no sequence gives the function as it is.
        function: gives arrays `[B, T]` of any part of a batch.

    Returns:
        A function of the whole batch, with the same arrays on every device.
    """
    if not in_parts(mesh):
        return function

    def run(batch: Batch) -> Tree:
        steps = batch.inputs.shape[1]
        with time_over_devices("time"):
            results = function(take_part(mesh, batch))
        for axis, name in enumerate(CUTS):
            results = jax.lax.all_gather(results, name, axis=axis, tiled=True)
        return jax.tree.map(lambda x: x[:, :steps], results)

    return run
