"""Where arrays are: inside `jax.shard_map`, and on a mesh with explicit axes.

There the type of an array says over which axes of the mesh it varies, or along which it is cut. A
loop keeps the type of what it carries. So what meets in a loop is made alike before the loop.
Elsewhere nothing is done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

__all__ = [
    "look_up",
    "put_rows",
    "shard_like",
    "take_rows",
    "unify_types",
    "use_mesh",
    "zeros_like",
]

Tree = TypeVar("Tree")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def use_mesh(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Sets the mesh of the arguments while a function is traced.

    It does so for a mesh with explicit axes, if no mesh is set. Without a set mesh, jax 0.12 drops
    the sharding of new zeros, also of those that a gradient is added to. The gradient of a loop, of
    a product or of an index then has the wrong type. An equation keeps the mesh that was set when
    it was traced, and its gradient is found with that mesh.
    """

    @functools.wraps(function)
    def run(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
        mesh = _explicit_mesh((args, options))
        if mesh is None:
            return function(*args, **options)
        with jax.sharding.use_abstract_mesh(mesh):
            return function(*args, **options)

    return run


def _explicit_mesh(arguments: Any) -> Any:
    """The mesh with explicit axes that a traced argument is on, or None if there is none to set."""
    if not jax.sharding.get_abstract_mesh().empty:
        return None
    for leaf in jax.tree.leaves(arguments):
        if isinstance(leaf, Tracer):
            mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
            if mesh is not None and mesh.explicit_axes:
                # Outside of `jit` a new array is no tracer, and a mesh without devices is no use.
                return mesh if isinstance(jnp.zeros(()), Tracer) else None
    return None


def unify_types(trees: Tree, batch_axes: Any) -> Tree:
    """Gives arrays the type that each has once they have met.

    Inside `shard_map` all vary over the axes of the mesh that any varies over. The gradient of what
    did not vary is the sum over the devices, as jax has it. On a mesh with explicit axes the batch
    is cut in the same way in all.

    Args:
        trees: trees of arrays.
        batch_axes: a prefix of it: the axis of the batch, or -1 for arrays that have none.
    """
    leaves, structure = jax.tree.flatten(trees)
    axes = jax.tree.broadcast(batch_axes, trees)
    types = [jax.typeof(leaf) for leaf in leaves]
    manual = frozenset[str]().union(*(type_.mat.varying for type_ in types))
    if manual:
        leaves = [_make_varying(leaf, manual) for leaf in leaves]
    cuts = [
        (type_.sharding.mesh, type_.sharding.spec[axis])
        for type_, axis in zip(types, jax.tree.leaves(axes))
        if axis >= 0 and type_.sharding.spec[axis] is not None
    ]
    if cuts:
        leaves = [_cut(leaf, a, *cuts[0]) for leaf, a in zip(leaves, jax.tree.leaves(axes))]
    return jax.tree.unflatten(structure, leaves)


def _make_varying(leaf: Any, axes: frozenset[str]) -> Any:
    missing = axes - jax.typeof(leaf).mat.varying
    return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf


def _cut(leaf: Any, axis: int, mesh: Any, names: Any) -> Any:
    spec = list(jax.typeof(leaf).sharding.spec)
    if axis < 0 or spec[axis] == names:
        return leaf
    spec[axis] = names
    return jax.sharding.reshard(leaf, NamedSharding(mesh, PartitionSpec(*spec)))


def zeros_like(x: Any, dtype: Any = None) -> jax.Array:
    """Zeros of the type of an array, with or without another dtype."""
    # Some versions of jax leave the sharding out.
    return shard_like(jnp.zeros_like(x, dtype=dtype), x)


def shard_like(x: Any, other: Any) -> Any:
    """Cuts an array over a mesh as another of its shape is cut."""
    sharding = jax.typeof(other).sharding
    if jax.typeof(x).sharding != sharding and not sharding.mesh.empty:
        x = jax.sharding.reshard(x, sharding)
    return x


def look_up(table: jax.Array, at: jax.Array) -> jax.Array:
    """Rows of a table `[V, W]` at indices of any shape; NaN where the table has no such row."""
    sharding, cut = jax.typeof(at).sharding, None
    if any(sharding.spec):
        cut = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec, None))
    return table.at[at].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False, out_sharding=cut
    )


# Row by row by `vmap`, which says that no row meets another: `x[row, slot]` does not.


def take_rows(x: jax.Array, slots: jax.Array) -> jax.Array:
    """Of every row of `[B, S, ...]` the entries in some slots `[B, N]`: `[B, N, ...]`."""
    return jax.vmap(lambda x, slots: x[slots])(x, slots)


def put_rows(x: jax.Array, slots: jax.Array, values: jax.Array) -> jax.Array:
    """Puts `[B, N, ...]` into slots `[B, N]` of every row of `[B, S, ...]`; S drops a value."""

    def put(x: jax.Array, slots: jax.Array, values: jax.Array) -> jax.Array:
        # One row: [S, ...], [N] and [N, ...].
        return x.at[slots].set(values.astype(x.dtype), mode="drop")

    return jax.vmap(put)(x, slots, values)
