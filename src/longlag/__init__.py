"""longlag: recurrence with and without attention on long-time-lag memory tasks, in JAX.

`longlag.__all__` is what is promised to users, and `longlag.GROUPS` has the same names by group.
The packages below (`longlag.core`, `longlag.nn`, ...) are how it is built. They may change.

A name is imported when it is first used, so that research code which needs a cell and `unroll`
pays for jax alone.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import longlag.contrib.cudnn as _cudnn  # noqa: F401 - it enters itself as a backend
from longlag.system.moved import install as _install

_install()

__version__ = "0.2.0"

# Where the names of each group come from. A module without names gives all that it exports.
_SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "cells": {"longlag.cells": ()},
    "contract of a cell": {
        "longlag.core.cell": ("Carry", "Cell"),
        "longlag.core.dense_cell": ("DenseCell",),
        "longlag.core.linear_cell": ("GatedLinearCell", "LinearCell"),
        "longlag.core.matrix_cell": ("Association", "MatrixCarry", "MatrixCell", "Reads"),
        "longlag.core.ops": ("dot", "gate_projection"),
        "longlag.testing": ("check_cell", "check_extremes", "check_task"),
    },
    "running a cell": {
        "longlag.core.unrolling": ("unroll",),
        "longlag.core.reference": ("scan_reference",),
        "longlag.core.explaining": ("explain",),
        "longlag.contrib.newton_method": ("newton",),
        "longlag.contrib.newton_solver": ("NewtonInfo",),
        "longlag.core.scans.linear": ("linear_scan",),
        "longlag.core.scans.matrix": ("matrix_scan",),
        "longlag.core.chunks": ("sum_over_time",),
        "longlag.core.over_devices": ("time_over_devices",),
        "longlag.core.packing": ("lengths_to_mask", "pad_rows"),
    },
    "layers": {"longlag.nn": (), "longlag.contrib.blocks": ()},
    "attentions": {"longlag.attention": ()},
    "models": {
        "longlag.models": (
            "Cost",
            "Hypotheses",
            "Model",
            "Seq2Seq",
            "SequenceModel",
            "WholeSequenceModel",
            "beam_search",
            "build",
            "generate",
            "sample",
        )
    },
    "tasks": {"longlag.tasks": ()},
    "training": {
        "longlag.training": (
            "Evaluation",
            "TrainState",
            "Training",
            "dispatch",
            "evaluate",
            "evaluation_batch",
            "init_states",
            "losses",
            "train",
        )
    },
    "running": {
        "longlag.runs": (
            "Architecture",
            "Captioner",
            "EncoderDecoder",
            "Experiment",
            "RunFolder",
            "Transcriber",
            "carry_out",
            "create",
            "sweep",
        )
    },
    "loading": {"longlag.runs": ("Loaded", "load"), "longlag.interop": ()},
}


def _names(module: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return names or tuple(importlib.import_module(module).__all__)


def _groups() -> dict[str, tuple[str, ...]]:
    return {
        group: tuple(sorted(n for module, some in modules.items() for n in _names(module, some)))
        for group, modules in _SOURCES.items()
    }


def __getattr__(name: str) -> Any:
    """Imports a promised name where it is first used (PEP 562)."""
    value: Any
    if name == "GROUPS":
        value = _groups()
    elif name == "__all__":
        value = sorted(n for names in _groups().values() for n in names)
    elif name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        value = _promised(name)
    globals()[name] = value
    return value


def _promised(name: str) -> Any:
    # First the modules whose names are written above, so that no other module is imported.
    tables = [table for modules in _SOURCES.values() for table in modules.items()]
    for module, names in sorted(tables, key=lambda table: not table[1]):
        if name in _names(module, names):
            return getattr(importlib.import_module(module), name)
    every = [n for names in _groups().values() for n in names]
    near = difflib.get_close_matches(name, every, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
