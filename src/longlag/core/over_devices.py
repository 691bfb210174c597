"""Time over devices: a sequence whose steps are cut along an axis of a mesh.

Inside `jax.shard_map` each device along the axis has a part of the steps, the first device the
first part. A layer with a memory asks for what enters its part (`entering`), runs over its own
steps from there as over any sequence, and hands out what the last part left (`at_end`).

What enters is `first`, joined with all parts before. A part is told in few numbers: the product of
its decays and its last state, the last inputs of a convolution, the newest entries of a window. So
devices exchange states, never steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp

from longlag.core.selection import select

__all__ = [
    "at_end",
    "before",
    "entering",
    "key_of_device",
    "place",
    "refuse_time_axis",
    "time_axis",
    "time_over_devices",
]

Tree = TypeVar("Tree")

# It is part of the key of jax's caches: what was traced inside `with` is not taken outside of it.
_axis = jax.make_user_context(None)


@contextlib.contextmanager
def time_over_devices(axis: str | None) -> Iterator[None]:
    """Says that time is cut along an axis of the mesh, for all that runs in this context.

        def loss(params, inputs, targets):                          # a device's part
            with longlag.time_over_devices("time"):
                _, answers = model.apply(params, inputs)
            return jax.lax.pmean(jnp.mean((answers - targets) ** 2), "time")

        cut = jax.P(None, "time")                                   # [B, T, ...]
        loss = jax.shard_map(loss, mesh=mesh, in_specs=(jax.P(), cut, cut), out_specs=jax.P())

    `unroll`, `linear_scan`, `matrix_scan` and every layer then compute what one device would, up to
    rounding: values, derivatives, masks, resets and the carry. A carry or state that is given is
    that before the first step, and the one returned is that after the last step, each the same on
    all devices. The carries of `carries="all"` are those of the device's own steps.

    Linear and matrix cells, short convolutions and attentions run so. A dense cell needs the step
    before, and is refused, as are `remat` and the layers that say so. A layer of your own that
    meets steps with each other must ask for `longlag.core.over_devices.time_axis()`, or it sees the
    steps of one device alone. Noise is drawn for each device apart.

    Args:
        axis: its name, an axis of the `jax.shard_map` that runs inside or around; None: time is not
            cut, as before.
    """
    with _axis(axis):
        yield


def time_axis(xs: jax.Array | None = None) -> str | None:
    """The axis along which time is cut, or None.

    Args:
        xs: a sequence, which must be cut along it; None: any.

    Raises:
        ValueError: there is no such axis here, or the sequence is the same on all devices.
    """
    axis = _axis.value
    if axis is None:
        return None
    try:
        varies = jax.typeof(jax.lax.axis_index(axis)).mat.varying
    except NameError:
        raise ValueError(
            "time_over_devices: expected an axis of the mesh of a jax.shard_map around it; "
            f"got {axis!r}"
        ) from None
    # Without the check of shard_map, nothing is known to vary.
    if xs is not None and varies and axis not in jax.typeof(xs).mat.varying:
        raise ValueError(
            f"time_over_devices: expected a sequence whose time is cut along {axis!r} (in_specs of "
            f"jax.shard_map); got {jax.typeof(xs)}, the same on all its devices"
        )
    return axis


def refuse_time_axis(what: str, instead: str) -> None:
    """Raises `ValueError`, with what to do instead, if time is cut along an axis."""
    if _axis.value is not None:
        raise ValueError(f"{what}: cannot run with time over devices ({_axis.value!r}); {instead}")


def key_of_device(key: jax.Array | None) -> jax.Array | None:
    """A key of the device's own for its steps, since their noise is not that of others' steps."""
    if key is None or (axis := time_axis()) is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis))


def place(axis: str, reverse: bool = False) -> tuple[jax.Array, int]:
    """The index of the device's part in the direction of the recurrence, and how many there are."""
    index, count = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return (count - 1 - index if reverse else index), count


def before(axis: str, tree: Tree, first: Tree, reverse: bool = False) -> Tree:
    """What the device before has; `first` on the first device."""
    return select(place(axis, reverse)[0] == 0, first, _shift(axis, tree, 1, reverse))


def entering(
    axis: str, part: Tree, first: Tree, combine: Callable[[Tree, Tree], Tree], reverse: bool = False
) -> Tree:
    """What enters the part of each device: `first` and all parts before, joined.

    With n devices it takes 1 + log2 n exchanges of one part, and log2 n joins.

    Args:
        axis: of the mesh.
        part: what the device's steps do, a tree.
        first: what is there before the first step, a tree like `part`; nothing is before it.
        combine: `(earlier, later) -> both`, associative.
        reverse: from the last device to the first.
    """
    index, count = place(axis, reverse)
    total, distance = before(axis, part, first, reverse), 1
    while distance < count:
        earlier = _shift(axis, total, distance, reverse)
        total = select(index >= distance, combine(earlier, total), total)
        distance *= 2
    return total


def at_end(axis: str | None, tree: Tree, reverse: bool = False) -> Tree:
    """What the last device has, on all devices; without an axis, the tree."""
    if axis is None:
        return tree
    index, count = place(axis, reverse)

    def of_last(x: jax.Array) -> jax.Array:
        return jax.lax.psum(jnp.where(index == count - 1, x, jnp.zeros_like(x)), axis)

    return jax.tree.map(of_last, tree)


def _shift(axis: str, tree: Tree, distance: int, reverse: bool) -> Tree:
    """What the device so many places before has; zeros where there is none."""
    count = jax.lax.axis_size(axis)
    pairs = [(i, i + distance) for i in range(count - distance)]
    if reverse:
        pairs = [(target, source) for source, target in pairs]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, pairs), tree)
