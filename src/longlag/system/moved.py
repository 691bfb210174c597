"""Old module names of version 0.1, for files that still import them.

A run folder keeps a copy of its user's own cell and task. Such a file may import `longlag.cell` or
`longlag.layers`, and the run must load for good. An old name warns and gives what the new places
have. Nothing here is imported before an old name is.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

__all__ = ["install"]

# The new places of each old module, in which a name is looked up in turn.
MOVED: dict[str, tuple[str, ...]] = {
    "architecture": ("runs.architectures",),
    "backends": ("core.backends", "contrib.cudnn"),
    "block": ("nn.block",),
    "blocks": ("contrib.blocks",),
    "catalogue": ("cli.listing",),
    "cell": ("core.cell", "core.affine_cell", "core.dense_cell", "core.ops", "core.zoneout"),
    "checkpoint": ("runs.checkpoint",),
    "checks": ("core.checks",),
    "chunks": ("core.chunks",),
    "command_line": ("cli.arguments", "system.console"),
    "diagnostics": ("analysis.diagnostics",),
    "disk": ("system.atomic_files",),
    "embedding": ("models.embedding",),
    "environment": ("system.machine",),
    "evaluation": ("training.evaluation",),
    "experiment": ("runs.experiment",),
    "extras": ("system.optional_packages",),
    "interrupt": ("system.interrupt",),
    "layer": ("nn.layer",),
    "layers": ("nn", "attention.read"),
    "linear_cell": ("core.linear_cell",),
    "linear_scan": ("core.scans.linear",),
    "matching": ("models.parameter_matching",),
    "matrix_cell": ("core.matrix_cell",),
    "matrix_scan": ("core.scans.matrix",),
    "model": ("models.model",),
    "names": ("runs.registry",),
    "newton": ("contrib.newton_method", "contrib.newton_solver"),
    "pictures": ("models.image_encoder",),
    "run_folder": ("runs.folder",),
    "sampling": ("models.sampling",),
    "search": ("models.beam",),
    "select": ("core.selection",),
    "seq2seq": ("models.seq2seq", "models.decoding"),
    "sequences": ("core.packing",),
    "short_convolution": ("nn.short_convolution",),
    "spec": ("core.spec",),
    "sweep": ("runs.sweeps",),
    "tasks.checks": ("tasks.batch_checks",),
    "time_parallel": ("core.scans.step",),
    "unroll": ("core.unrolling",),
}


class OldModule(types.ModuleType):
    """An old module: its names are those of the new places.

    Where the old module had the name of its function, it can be called as the function.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        places = MOVED[self.__name__.removeprefix("longlag.")]
        for place in places:
            module = importlib.import_module(f"longlag.{place}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"{self.__name__} has no {name!r}; it is now in longlag.{places[0]}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import finder of the old modules, after every other finder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        is_old = fullname.startswith("longlag.") and fullname.removeprefix("longlag.") in MOVED
        return importlib.machinery.ModuleSpec(fullname, self) if is_old else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return OldModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__name__
        places = MOVED[name.removeprefix("longlag.")]
        warnings.warn(
            f"{name} is now in longlag.{places[0]}; what is public is in longlag itself",
            DeprecationWarning,
            stacklevel=2,
        )


def install() -> None:
    """Registers the old module names with Python's import."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())
