"""Run by `tests/training/test_meshes.py` with four CPU devices: one experiment on several meshes.

Prints what it sees as JSON: what differs from the run on one device, and how far.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag import MinGRU
from longlag.cli import compare
from longlag.cli.arguments import plain_errors
from longlag.runs import Architecture, Experiment, Progress, RunFolder, carry_out, devices_of
from longlag.system.interrupt import Interruption
from longlag.tasks import SelectiveCopy
from longlag.training import (
    Training,
    choose_mesh,
    compiled_dispatch,
    dispatch,
    fetch,
    init_states,
    place,
)
from tests.helpers.tiny import OPTIONS, PARITY
from tests.helpers.tiny_runs import final, new

FOUR = dataclasses.replace(PARITY, seeds=4)
GRID = dataclasses.replace(
    PARITY,
    training=dataclasses.replace(PARITY.training, learning_rate=Training.learning_rate),
    rates=(1e-2, 3e-2),
)
# What can run with its time over devices. Seven steps are no equal parts. With five classes for
# twelve answers no gradient is zero but for rounding, which Adam would make as large as the others.
PARTS = dataclasses.replace(
    PARITY,
    task=SelectiveCopy(length=4, items=3, vocab=5),
    cell=MinGRU(8),
    architecture=Architecture(width=8, depth=1),
)
ROOT = Path(tempfile.mkdtemp())


def run(
    name: str, mesh: str, until: int | None = None, experiment: Experiment = FOUR
) -> tuple[RunFolder, Any]:
    """Carries the experiment out, or on, in a folder; stops it once it has taken so many steps."""
    path, stop = ROOT / name, Interruption()
    folder = RunFolder.open(path) if path.exists() else new(path, experiment)

    def look(report: Progress) -> None:
        stop.signal = None if report.step != until else 15  # type: ignore[assignment]

    return folder, carry_out(experiment, folder, mesh=mesh, stop=stop, on_progress=look)


def differences(
    one: tuple[Any, Any], other: tuple[Any, Any], experiment: Experiment = FOUR
) -> dict[str, Any]:
    """Whether metrics, checkpoints and results are the same bytes, and how far they are apart."""
    (metrics, restored), (others_metrics, others_restored) = (
        final(folder, experiment) for folder, _ in (one, other)
    )
    trees = [
        [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(each.tree)]
        for each in (restored, others_restored)
    ]
    losses = [
        [(m["loss"], m["validation_loss"], m["accuracy"]) for m in folder.metrics()]
        for folder, _ in (one, other)
    ]
    rows = [
        outcome and [row | {"seconds": 0} for row in outcome["rows"]] for _, outcome in (one, other)
    ]
    return {
        "same": metrics == others_metrics
        and rows[0] == rows[1]
        and all(map(np.array_equal, *trees)),
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(*trees)),
        "losses": float(np.abs(np.subtract(*losses)).max()),
    }


def trace(mesh_text: str) -> Any:
    training = FOUR.training
    mesh = choose_mesh(mesh_text, training, FOUR.seeds)
    states = place(mesh, init_states(FOUR.model, training, FOUR.seeds), "seeds")
    until = place(mesh, jnp.full(FOUR.seeds, training.steps), "seeds")
    arguments = (FOUR.model, FOUR.task, training.as_compiled, states, until, mesh)
    return compiled_dispatch.trace(*arguments)


def rows_drawn(mesh_text: str) -> list[int]:
    """How many rows the random bits of a training step have on one device."""
    text, length = trace(mesh_text).lower().compile().as_text(), FOUR.task.time_steps
    return sorted({int(rows) for rows in re.findall(rf"u32\[(\d+),{length}\]", text)})


def manual_axes(mesh_text: str) -> list[str]:
    """The axes over which XLA does not cut a training step, not even into one part."""
    (axes,) = {*re.findall(r"manual_axes=\{(.*?)\}", trace(mesh_text).lower().as_text())}
    return sorted(re.findall(r"\w+", axes))


def time_over_devices() -> dict[str, Any]:
    """A run with its time over devices, which goes on on one device; neither is tested."""
    one = run("one in time", "none", 15, PARTS)
    run("parts", "data=2,time=2", 10, PARTS)
    parts = run("parts", "none", 15, PARTS)
    return differences(one, parts, PARTS) | {
        "ended": seed_that_has_ended("data=2,time=2"),
        "parts shorter than the answers": devices_of(PARTS, "time=4").shape["time"],  # type: ignore[union-attr]
    }


def seed_that_has_ended(mesh_text: str) -> list[Any]:
    """The steps of two seeds after a dispatch that the second has no part in, and its changes."""
    model, task, training = PARTS.model, PARTS.task, PARTS.training
    mesh = choose_mesh(mesh_text, training, 2)
    first, states = (init_states(model, training, 2) for _ in range(2))
    states, until = place(mesh, (states, jnp.array([training.steps, 0])), "seeds")
    after, loss = fetch(dispatch(model, task, training, states, until, mesh))
    same = jax.tree.map(lambda x, y: np.array_equal(x[1], y[1]), first.params, after.params)
    return [after.step.tolist(), loss.tolist()[1], all(jax.tree.leaves(same))]


def refusals() -> dict[str, Any]:
    """The exit code and the message of a command whose time cannot be cut over devices."""
    hybrid = [*OPTIONS, "--cell", "min-gru"]
    given = {
        "dense cell": [*OPTIONS],
        "time_chunk": [*hybrid, "--time-chunk", "4"],
    }
    refused = {}
    for name, options in given.items():
        with contextlib.redirect_stderr(io.StringIO()) as error:
            try:
                with plain_errors():
                    compare.main([*options, "--out", str(ROOT / "refused"), "--mesh", "time=2"])
            except SystemExit as left:
                code = left.code
            else:
                code = 0
        refused[name] = [code, " ".join(error.getvalue().split()), (ROOT / "refused").exists()]
    return refused


def main() -> None:
    one = run("one", "none")
    compiled = compiled_dispatch._cache_size()
    seeds, both = run("seeds", "seeds=4"), run("both", "data=2,seeds=2")
    compiled = compiled_dispatch._cache_size() - compiled
    run("moved", "seeds=4", until=5)
    run("moved", "seeds=2,data=2", until=10)
    moved = run("moved", "none")
    run("home", "seeds=4", until=10)
    home = run("home", "none")
    grids = (run(f"grid {mesh}", mesh, None, GRID) for mesh in ("none", "auto"))
    auto = {}
    for count, rows in ((4, 4), (2, 4), (3, 4), (3, 3), (1, 2)):
        training = dataclasses.replace(FOUR.training, batch_size=rows, eval_size=4 * rows)
        mesh = choose_mesh("auto", training, count)
        auto[f"{count} seeds, {rows} rows"] = mesh and [*mesh.shape.values()]
    report = {
        "seeds": differences(one, seeds),
        "both": differences(one, both),
        "moved": differences(one, moved),
        "grid": differences(*grids, GRID) | {"mesh": dict(devices_of(GRID, "auto").shape)},  # type: ignore[union-attr]
        "home": differences(one, home),
        "compiled": compiled,
        "meshes": [folder.env.get("meshes") for folder, _ in (one, both, moved)],
        "configs": one[0].config == both[0].config,
        "drawn": rows_drawn("seeds=2,data=2"),
        "manual": [manual_axes("seeds=4"), manual_axes("seeds=2,data=2")],
        "auto": auto,
        "time": time_over_devices(),
        "refused": refusals(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(seed_that_has_ended(sys.argv[1])))
    else:
        main()
