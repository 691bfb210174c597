"""Measures the memory of a device where the time of one sequence is cut over several.

    python -m benchmarks.time_over_devices --quick   (65,536 steps, within a minute)
    python -m benchmarks.time_over_devices           (1,048,576 steps: minutes)

Value and gradient of a model in one sequence, on one device and on eight. The devices are parts of
this machine's CPU (`--xla_force_host_platform_device_count`), so the times say nothing of several
machines. Memory is what the compiler reserves on each device: inputs, and what is held beside them.
"difference" is the greatest of any gradient to that on the first number of devices, as a share of
the greatest gradient. Each row has a process of its own. The last line printed is one JSON object
with everything.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.progress import Progress

from benchmarks.record import Record, source, table
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

LINEAR, HYBRID = "MinGRU", "hybrid"
WINDOW, FEATURES = 16, 4


@dataclasses.dataclass(frozen=True)
class Options:
    """Measures the gradient of a model in one long sequence.

    Attributes:
        length: T, in steps; a multiple of each number of devices.
        devices: how many; the first is what the others are compared with.
        width: of the models, a multiple of four.
        quick: 65,536 steps, unless a length is given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    length: int = 1_048_576
    devices: tuple[int, ...] = (1, 8)
    width: int = 8
    quick: bool = False
    record: bool = False


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = Options(length=65_536, quick=True) if "--quick" in argv else Options()
    prog = "python -m benchmarks.time_over_devices"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    if min(options.devices, default=0) < 1:
        raise ValueError(f"--devices: expected positive numbers, got {options.devices}")
    if options.length < 1 or any(options.length % count for count in options.devices):
        raise ValueError(
            f"--length: expected a multiple of {options.devices} steps, got {options.length}"
        )
    if options.width < 1 or options.width % 4:
        raise ValueError(f"--width: expected a multiple of 4, got {options.width}")
    record, rows = Record("time_over_devices", options.record), []
    arms = [(model, count) for model in (LINEAR, HYBRID) for count in options.devices]
    with Progress(console=console) as progress:
        for model, count in progress.track(arms, description="models"):
            rows.append(
                record.measure_quietly(measure, model, options.length, count, options.width)
            )
    for row in rows:
        first = next(r for r in rows if r["model"] == row["model"])
        pairs = list(zip(row["gradient"], first["gradient"]))
        scale = max(abs(y) for _, y in pairs)
        row["difference"] = max(abs(x - y) for x, y in pairs) / scale
    for row in rows:
        del row["gradient"]
    console.print(table("value and gradient of one sequence", COLUMNS, map(_line, rows)))
    record.finish(rows, section)
    return 0


def one_gradient(model: str, length: int, count: int, width: int) -> dict[str, Any]:
    """Value and gradient in this process, which has so many devices.

    Returns:
        `model, length, devices, width`, `input_bytes` and `temp_bytes` of each device, `seconds`,
        `loss`, and `gradient`, all its numbers.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    import longlag as ll

    layers: tuple[Any, ...] = (ll.Residual(ll.Recurrent(ll.MinGRU(width))),) * 2
    if model == HYBRID:
        linear = ll.Stack((ll.ShortConvolution(), ll.Recurrent(ll.MinGRU(width))))
        attention = ll.DotProduct(width, heads=2, window=WINDOW)
        matrix = ll.Recurrent(ll.GatedDeltaNet(width, heads=2))
        layers = tuple(map(ll.Residual, (linear, attention, matrix)))
    network = ll.SequenceModel("features", FEATURES, width, layers, FEATURES)

    def local(params: Any, xs: jax.Array) -> jax.Array:
        with ll.time_over_devices("time"):
            answers = network.apply(params, xs)[1]
        return jax.lax.pmean(jnp.mean((answers - xs) ** 2), "time")

    mesh = jax.make_mesh((count,), ("time",), axis_types=(AxisType.Auto,))
    cut = P(None, "time")
    loss = jax.shard_map(local, mesh=mesh, in_specs=(P(), cut), out_specs=P())
    params = network.init(jax.random.key(0))
    # A head of zeros would hide the layers from the loss.
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (width, FEATURES))
    params = jax.device_put(params, NamedSharding(mesh, P()))
    xs = jax.jit(
        lambda: jax.random.normal(jax.random.key(2), (1, length, FEATURES)),
        out_shardings=NamedSharding(mesh, cut),
    )()
    program = jax.jit(jax.value_and_grad(loss)).lower(params, xs).compile()
    start = time.perf_counter()
    value, grads = jax.block_until_ready(program(params, xs))
    seconds = time.perf_counter() - start
    memory: Any = program.memory_analysis()
    return {
        "model": model,
        "length": length,
        "devices": count,
        "width": width,
        "input_bytes": memory.argument_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "seconds": round(seconds, 3),
        "loss": float(value),
        "gradient": [float(x) for leaf in jax.tree.leaves(grads) for x in leaf.ravel().tolist()],
    }


def measure(model: str, length: int, count: int, width: int) -> dict[str, Any]:
    """The row of one model on so many devices, from a process that has them."""
    arguments = ", ".join(map(repr, (model, length, count, width)))
    code = "import json; from benchmarks.time_over_devices import one_gradient; "
    code += f"print(json.dumps(one_gradient({arguments})))"
    devices = f"--xla_force_host_platform_device_count={count}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{model} on {count} devices:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


COLUMNS = ("model", "devices", "inputs, MB a device", "beside, MB a device", "s", "difference")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["model"],
        str(row["devices"]),
        f"{row['input_bytes'] / 1e6:,.1f}",
        f"{row['temp_bytes'] / 1e6:,.1f}",
        f"{row['seconds']:,.1f}",
        f"{row['difference']:.1e}",
    )


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    row = results["rows"][0]
    what = f"T = {row['length']:,}, batch 1, width {row['width']}, float32; "
    lines = [_line(row) for row in results["rows"]]
    return "\n".join([markdown(COLUMNS, lines), "", what + source(results)])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
