"""Device meshes of a training, with axes for seeds, rows of a batch and its steps.

A mesh is where a run is carried out and no part of the experiment, so a checkpoint made on one mesh
is resumed on any other. Without a mesh everything is as it is on one device.

- Over the axis `seeds`, each device runs the program of one device with its own seeds. The numbers
  of a seed are those of one device, bit for bit.
- Over the axis `data`, XLA cuts the program. Each device draws and computes its own rows of every
  batch, and the gradients are added up over the devices. The numbers are those of one device within
  rounding. XLA cannot cut a native loop, so `jax.lax.scan` runs instead.
- Over the axis `time`, each device has its own steps of every sequence (`training/parts.py`). Then
  XLA cuts nothing, also no rows.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from longlag.core.spec import Spec, choose
from longlag.kernels.looping import unfused
from longlag.training.config import Training

__all__ = ["MeshSizes", "choose_mesh", "cut_rows", "fetch", "over_mesh", "place"]

Tree = TypeVar("Tree")

AXES = ("seeds", "data", "time")


class MeshSizes(Spec):
    """Number of devices on each axis of a mesh.

    Attributes:
        seeds: devices that share out the seeds.
        data: devices that share out the rows of every batch.
        time: devices that share out the steps of every sequence (`longlag.time_over_devices`).
    """

    seeds: int = 1
    data: int = 1
    time: int = 1

    def __post_init__(self) -> None:
        for name in AXES:
            if getattr(self, name) < 1:
                raise ValueError(f"mesh {name}: expected at least 1, got {getattr(self, name)}")

    @classmethod
    def parse(cls, text: str) -> MeshSizes:
        """Parses sizes such as "seeds=2,data=4". An axis that is left out has one device.

        Raises:
            ValueError: an unknown axis, or what is no positive number.
        """
        sizes: dict[str, int] = {}
        for word in text.split(","):
            name, equals, size = (part.strip() for part in word.partition("="))
            if not equals or not size.isdecimal():
                raise ValueError(
                    f"mesh: expected auto, none or sizes such as seeds=2,data=4; got {text!r}"
                )
            if choose(name, AXES, "axis of the mesh") in sizes:
                raise ValueError(f"mesh: expected each axis once; got {text!r}")
            sizes[name] = int(size)
        return cls(**sizes)

    @property
    def devices(self) -> int:
        """Total number of devices."""
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes in the order of the axes."""
        return tuple(getattr(self, name) for name in AXES)

    def __str__(self) -> str:
        return ",".join(f"{name}={getattr(self, name)}" for name in AXES)


def choose_mesh(mesh: str | MeshSizes, training: Training, seeds: int) -> Mesh | None:
    """Chooses the mesh of a run, over the devices that jax has.

    Args:
        mesh: sizes, or their text (`MeshSizes.parse`). "auto": as many devices as the seeds can be
            shared out over in equal parts, and then the batch over those that are left; time never.
            "none": one device.
        training: has the sizes of the batches.
        seeds: S. A grid of learning rates has `len(rates) * seeds` states to share out.

    Returns:
        A mesh with the axes `seeds`, `data` and `time`, or None for one device. Of several
        processes each has the same number of devices in it.

    Raises:
        ValueError: the sizes cannot be read, the seeds or a batch cannot be shared out in equal
            parts, or there are fewer devices.
    """
    processes, available = jax.process_count(), jax.device_count()
    if mesh == "auto":
        sizes = _fit(training, seeds, processes, available)
    elif mesh == "none":
        sizes = MeshSizes()
    else:
        sizes = MeshSizes.parse(mesh) if isinstance(mesh, str) else mesh
    for name, whole, parts in (
        ("seeds", f"seeds {seeds}", sizes.seeds),
        ("data", f"batch_size {training.batch_size}", sizes.data),
        ("data", f"eval_size {training.eval_size}", sizes.data),
    ):
        if int(whole.split()[1]) % parts:
            raise ValueError(f"mesh {name}: expected a divisor of {whole}; got {parts}")
    if sizes.devices > available:
        raise ValueError(f"mesh: expected at most {available} devices; got {sizes}")
    if sizes.devices % processes:
        raise ValueError(
            f"mesh: expected as many devices of each of {processes} processes; got {sizes}"
        )
    if sizes.devices == 1:
        return None
    devices: list[Any] = []
    for process in range(processes):
        local = jax.local_devices(process)
        if len(local) < sizes.devices // processes:
            raise ValueError(
                f"mesh: expected at most {len(local)} devices of process {process}; got {sizes}"
            )
        devices += local[: sizes.devices // processes]
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes.shape, AXES, axis_types=types, devices=devices)


def _fit(training: Training, seeds: int, processes: int, available: int) -> MeshSizes:
    """The mesh "auto": seeds first, then the batch."""
    rows = math.gcd(training.batch_size, training.eval_size)
    options = [
        (parts, cuts)
        for parts, cuts in itertools.product(range(1, seeds + 1), range(1, rows + 1))
        if parts * cuts <= available
        and not (seeds % parts or rows % cuts or parts * cuts % processes)
    ]
    if not options:
        raise ValueError(
            f"mesh: expected {seeds} seeds or batches of {rows} rows to share out over {processes} "
            "processes; they cannot be in equal parts"
        )
    return MeshSizes(*max(options))


def over_mesh(mesh: Mesh, function: Callable[[Any, Any], Any], inputs: Any, shared: Any) -> Any:
    """Runs a function of several seeds on the devices of a mesh, each with its own seeds.

    Args:
        mesh: from `choose_mesh`.
        function: maps `inputs` and `shared` to leaves `[S, ...]`, seed by seed alike. It closes
            over no arrays.
        inputs: leaves `[S, ...]`.
        shared: arrays that are the same for every seed.
    """
    cut = _leaves_rows_to_xla(mesh)
    # With nothing left to cut for XLA, it compiles what it does for one device. jax's check of
    # what varies over the devices would add to it, and no seed needs anything of another.
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec("seeds"), PartitionSpec()),
        out_specs=PartitionSpec("seeds"),
        axis_names={"seeds"} if cut else {*AXES},
        check_vma=False,
    )
    with unfused() if cut else contextlib.nullcontext():
        results = mapped(inputs, shared)
    return jax.lax.with_sharding_constraint(results, _sharding(mesh, "seeds"))


def cut_rows(mesh: Mesh | None, batch: Tree, axis: int = 0) -> Tree:
    """Distributes the rows of a batch over `data`, inside a function that `over_mesh` runs.

    Args:
        mesh: from `choose_mesh`; one that cuts time gives the batch as it is (`parts.take_part`).
        batch: arrays.
        axis: of the rows.
    """
    if mesh is None or not _leaves_rows_to_xla(mesh):
        return batch
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(*[None] * axis, "data"))


def _leaves_rows_to_xla(mesh: Mesh) -> bool:
    return mesh.shape["data"] > 1 and mesh.shape["time"] == 1


def place(mesh: Mesh | None, tree: Tree, axis: str | None = None) -> Tree:
    """Places arrays, whole in every process, on the devices of a mesh.

    Args:
        mesh: from `choose_mesh`.
        tree: arrays.
        axis: of the mesh, over which the first axis of each array is cut. None: each device has
            all of them.
    """
    if mesh is None:
        return tree
    sharding = _sharding(mesh, axis)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__)

    return jax.tree.map(put, tree)


def _sharding(mesh: Mesh, axis: str | None) -> NamedSharding:
    """The first axis of an array cut over one of the mesh, written as jax does in its results."""
    cut = axis is not None and mesh.shape[axis] > 1
    return NamedSharding(mesh, PartitionSpec(axis) if cut else PartitionSpec())


def fetch(tree: Tree) -> Tree:
    """Copies arrays to every host as numpy. Every process must call it."""
    far = [leaf for leaf in jax.tree.leaves(tree) if not getattr(leaf, "is_fully_addressable", 1)]
    if far:
        tree = jax.jit(_same, out_shardings=far[0].sharding.update(spec=PartitionSpec()))(tree)
    return jax.device_get(tree)


def _same(tree: Tree) -> Tree:
    return tree
