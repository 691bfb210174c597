"""Measure how far back a finished run reaches, and by which part of the network.

    longlag diagnose runs/20261124-101500-recall-lstm-full
    longlag diagnose RUN --seed 1 --sequences 64

Takes half a minute. Prints a table, and writes these files to RUN/diagnosis:

    gradient.png    the gradient of the loss, by lag
    radius.png      the spectral radius of each recurrence's Jacobian, along a test sequence
    constants.png   the time constants of each recurrence's state
    attention.png   the weights of each attention, by lag
    diagnosis.json  all numbers
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from longlag.analysis.diagnostics import (
    attention_by_lag,
    gradient_by_lag,
    jacobians,
    recurrences,
    spectral_radius,
    time_constants,
)
from longlag.cli.arguments import call
from longlag.report.figures import png
from longlag.report.style import PALETTE, house_style
from longlag.runs import Loaded, load
from longlag.system.atomic_files import replace_file, writing
from longlag.system.console import console, print_table
from longlag.tasks import Batch
from longlag.training import evaluation_batch
from longlag.training.grids import describe_label

__all__ = ["diagnose_run", "draw_figures", "main", "measure_seed", "table_rows"]


def main(argv: Sequence[str]) -> int:
    """Runs `longlag diagnose` and returns the exit code."""
    return call(diagnose_run, argv, "longlag diagnose", __doc__ or "")


def diagnose_run(
    run: tyro.conf.Positional[Path],
    seed: int = 0,
    rate: float | None = None,
    sequences: int = 32,
) -> int:
    """Diagnoses one seed of a run, at one learning rate.

    Args:
        run: the run folder.
        seed: one of the seeds of the run.
        rate: one of the rates of the run, if it has a grid. By default the first.
        sequences: number of test sequences. Jacobians are measured along the first.
    """
    if sequences < 1:
        raise ValueError(f"--sequences: expected at least 1, got {sequences}")
    loaded = load(run)
    measurements = measure_seed(loaded, seed, sequences, rate)
    folder = run / "diagnosis"
    with writing("the diagnosis", folder):
        folder.mkdir(exist_ok=True)
        replace_file(folder / "diagnosis.json", json.dumps(_to_json(measurements), indent=1) + "\n")
        for name, figure in draw_figures(measurements).items():
            (folder / f"{name}.png").write_bytes(png(figure))
    columns = ("what", "where", "how much")
    rates = loaded.experiment.rates
    label = {"seed": seed, **({"rate": rates[0] if rate is None else rate} if rates else {})}
    title = f"{loaded.experiment.arm}, {describe_label(label)}"
    print_table(columns, table_rows(measurements), title)
    console.print(f"plots {folder}", highlight=False, soft_wrap=True)
    return 0


def measure_seed(
    loaded: Loaded, seed: int, sequences: int, rate: float | None = None
) -> dict[str, Any]:
    """Measures gradients, Jacobians and attention of one seed, as arrays.

    Returns:
        `gradient` by lag, up to the longest that there is; by the path of a recurrence `radius`
        `[T]` and `constants` `[S]`; by the path of an attention `attention` `[T]` by lag.
    """
    model, params = loaded.model, loaded.of_seed(seed, rate)
    batch = evaluation_batch(loaded.experiment.task, sequences, "test")
    at = _last_scored(batch)
    gradient = gradient_by_lag(
        model, params, batch.inputs, mask=batch.mask, targets=batch.targets, at=at
    )
    seen = jax.jit(model.probe)(params, batch.inputs, mask=batch.mask)
    steps = int(at[0]) + 1
    radius, constants = {}, {}
    for path, cell, weights in recurrences(model, params):
        matrices = jacobians(cell, weights, seen[f"{path}inputs"][:steps, 0])
        name = path.rstrip("/")
        radius[name] = spectral_radius(matrices)
        constants[name] = time_constants(matrices)
    attention = {
        name.removesuffix("/weights"): attention_by_lag(weights, batch.mask, at)
        for name, weights in seen.items()
        if name.endswith("weights")
    }
    return {
        "gradient": gradient[: int(at.max()) + 1],  # of the lags that a row reaches back
        "radius": radius,
        "constants": constants,
        "attention": attention,
    }


def table_rows(measurements: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The rows of the printed table: what, where, how much."""
    gradient = np.asarray(measurements["gradient"])
    first, last = gradient[0], gradient[-1]
    rows = [("gradient by lag", "inputs", f"{first:.2e} at 0, {last:.2e} at {len(gradient) - 1}")]
    for path, values in measurements["radius"].items():
        rows.append(("spectral radius", path, f"{np.median(values):.3f} (median over steps)"))
    for path, values in measurements["constants"].items():
        finite = values[np.isfinite(values)]
        longest = f"{finite.max():,.1f}" if finite.size else "none finite"
        rows.append(("time constants", path, f"{np.median(values):,.1f} steps, longest {longest}"))
    for path, values in measurements["attention"].items():
        best = int(np.argmax(values))
        rows.append(("attention by lag", path, f"most at {best}: {float(values[best]):.2f}"))
    return rows


def draw_figures(measurements: dict[str, Any]) -> dict[str, Figure]:
    """Draws one figure for each kind of measurement."""
    made = {}
    with house_style():
        made["gradient"] = _curves(
            {"inputs": measurements["gradient"]},
            "lag, steps",
            "gradient norm of the loss",
            log=True,
        )
        if measurements["radius"]:
            made["radius"] = _curves(
                measurements["radius"], "step", "spectral radius of the Jacobian"
            )
            constants = {
                path: np.sort(np.clip(values, 1e-2, 1e6))
                for path, values in measurements["constants"].items()
            }
            made["constants"] = _curves(
                constants, "number of the state, sorted", "time constant, steps", log=True
            )
        if measurements["attention"]:
            made["attention"] = _curves(
                measurements["attention"], "lag, steps", "weight at the answer"
            )
    return made


def _curves(curves: dict[str, Any], across: str, up: str, log: bool = False) -> Figure:
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        values = np.asarray(values)
        ax.plot(np.arange(len(values)), values, color=PALETTE[i % len(PALETTE)], label=name)
    if log and any(np.nanmax(np.asarray(v), initial=0) > 0 for v in curves.values()):
        ax.set_yscale("log")
    ax.set_xlabel(across)
    ax.set_ylabel(up)
    if len(curves) > 1:
        ax.legend(frameon=False)
    return figure


def _last_scored(batch: Batch) -> jax.Array:
    """The step of each row's last scored answer, `[B]`."""
    steps = jnp.arange(batch.scored.shape[1])
    return jnp.max(jnp.where(batch.scored, steps, 0), axis=1)


def _to_json(tree: Any) -> Any:
    """For JSON, which knows neither NaN nor infinity."""
    if isinstance(tree, dict):
        return {name: _to_json(value) for name, value in tree.items()}
    return [float(x) if np.isfinite(x) else None for x in np.asarray(tree)]
