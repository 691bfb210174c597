"""Times causal self-attention over whole sequences beside that of other frameworks.

    python -m benchmarks.attention --quick              (within a minute)
    python -m benchmarks.attention                      (four shapes, forward and train)
    python -m benchmarks.attention --shape 8,200,64,4 --frameworks "flax linen" torch
    python -m benchmarks.attention --record             (keeps the results in benchmarks/results)

Four projections without biases, no positions, float32. torch and "jax.nn" have the products between
them in one call, `scaled_dot_product_attention` and `dot_product_attention`. Each framework has a
process of its own; a ratio is that of the minima of one round, and what counts is the median over
the rounds. Below 1 longlag is faster. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro
from rich.progress import Progress

from benchmarks.frameworks import Layer, jit_run, torch_run
from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants, median_ratio
from benchmarks.unroll import read_shape
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.report.rows import markdown
from longlag.system.console import console

if TYPE_CHECKING:
    import jax

__all__ = ["FRAMEWORKS", "Options", "main", "measure", "section"]

OURS = "longlag"
# As in the experiments, a usual one, a long one, and a wide one.
SHAPES = ("32,64,32,4", "32,128,128,4", "8,512,128,4", "8,256,512,8")

Run = Callable[[], None]


def longlag(layer: Layer) -> Run:
    import jax

    from longlag.attention import DotProduct

    _, _, features, heads = layer.shape
    attention = DotProduct(features, heads=heads, positions="none")
    params = attention.init(jax.random.key(0), features)

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        return attention.apply(params, xs)[1]

    return jit_run(layer, apply, params, time_major=True)


def linen(layer: Layer) -> Run:
    import flax.linen as nn
    import jax

    attention = nn.MultiHeadDotProductAttention(layer.shape[3], use_bias=False)
    params = attention.init(jax.random.key(0), layer.inputs)

    def apply(params: Any, xs: jax.Array) -> Any:
        return attention.apply(params, xs, mask=_causal(layer))

    return jit_run(layer, apply, params)


def nnx(layer: Layer) -> Run:
    from flax import nnx

    _, _, features, heads = layer.shape
    attention = nnx.MultiHeadAttention(
        heads, features, use_bias=False, decode=False, rngs=nnx.Rngs(0)
    )
    graph, params, rest = nnx.split(attention, nnx.Param, ...)

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, rest)(xs, mask=_causal(layer))

    return jit_run(layer, apply, params)


def jax_nn(layer: Layer) -> Run:
    import jax

    _, _, features, heads = layer.shape
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(key, (features, features)) / features**0.5 for key in keys]

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        q, k, v = ((xs @ w).reshape(*xs.shape[:2], heads, -1) for w in params[:3])
        return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(xs.shape) @ params[3]

    return jit_run(layer, apply, params)


def equinox(layer: Layer) -> Run:
    import equinox as eqx
    import jax

    _, _, features, heads = layer.shape
    attention = eqx.nn.MultiheadAttention(heads, features, key=jax.random.key(0))
    params, static = eqx.partition(attention, eqx.is_array)

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        made = eqx.combine(params, static)
        return jax.vmap(lambda x: made(x, x, x, mask=_causal(layer)[0, 0]))(xs)

    return jit_run(layer, apply, params)


def torch(layer: Layer) -> Run:
    import torch

    _, _, features, heads = layer.shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    squares = (torch.nn.Linear(features, features, bias=False) for _ in range(4))
    maps = torch.nn.ModuleList(squares).to(device)
    xs = torch.from_numpy(layer.inputs).to(device)

    def apply() -> Any:
        q, k, v = (m(xs).unflatten(-1, (heads, -1)).transpose(1, 2) for m in maps[:3])
        contexts = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return maps[3](contexts.transpose(1, 2).flatten(2))

    return torch_run(layer, apply, maps)


FRAMEWORKS = {
    OURS: longlag,
    "flax linen": linen,
    "flax nnx": nnx,
    "jax.nn": jax_nn,
    "equinox": equinox,
    "torch": torch,
}


def _causal(layer: Layer) -> Any:
    """`[1, 1, T, T]`, a constant of the program."""
    return np.tril(np.ones((1, 1, layer.shape[1], layer.shape[1]), bool))


@dataclasses.dataclass(frozen=True)
class Options:
    """Times one attention in several frameworks.

    Attributes:
        shape: B,T,D,H: batch, steps, features, heads. Several may be given.
        passes: "forward" is the value alone, "train" value and gradient in the parameters.
        frameworks: whom to compare; longlag is always there.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: one shape, three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = SHAPES
    passes: tuple[Literal["forward", "train"], ...] = ("forward", "train")
    frameworks: tuple[str, ...] = tuple(name for name in FRAMEWORKS if name != OURS)
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(shape=SHAPES[:1], rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.attention"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    layers = [
        Layer("attention", read_shape(shape), training=what == "train")
        for shape in options.shape
        for what in options.passes
    ]
    for layer in layers:
        if layer.shape[2] % layer.shape[3]:
            raise ValueError(f"--shape: expected D that H divides, got {layer.shape}")
    for name in options.frameworks:
        choose(name, tuple(FRAMEWORKS), "--frameworks")
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    record, rows = Record("attention", options.record, ("equinox", "torch")), []
    names = (OURS, *(name for name in options.frameworks if name != OURS))
    makers = {name: FRAMEWORKS[name] for name in names}
    with Contestants(makers) as contestants, Progress(console=console) as progress:
        for layer in progress.track(layers, description="attention"):
            rows.append(record.measure_quietly(measure, contestants, layer, names, options.rounds))
    title = "longlag's time as a share of the others'"
    console.print(table(title, _columns(rows), map(_line, rows), left=2))
    record.finish(rows, section, rounds=options.rounds)
    return 0


def measure(
    contestants: Contestants, layer: Layer, names: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Times one attention in every framework.

    Returns:
        A row: `shape, pass`, `ms` (name -> the least of all rounds), `ratios` (name -> median of
        the rounds' ratios of minima) and `spread` (name -> least and greatest of these ratios).
    """
    for name in names:
        contestants.prepare(name, layer)
    minima = contestants.minima(names, rounds)
    ratios = {name: median_ratio(minima[OURS], minima[name]) for name in names if name != OURS}
    return {
        "shape": list(layer.shape),
        "pass": "train" if layer.training else "forward",
        "ms": {name: round(min(ms), 3) for name, ms in minima.items()},
        "ratios": {name: round(ratio[0], 3) for name, ratio in ratios.items()},
        "spread": {name: [round(r, 3) for r in ratio[1:]] for name, ratio in ratios.items()},
    }


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return ("B,T,D,H", "pass", "ms", *rows[0]["ratios"])


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    shares = (f"{ratio:.2f}" for ratio in row["ratios"].values())
    return ",".join(map(str, row["shape"])), row["pass"], f"{row['ms'][OURS]:.1f}", *shares


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    rows = results["rows"]
    return "\n".join([markdown(_columns(rows), [*map(_line, rows)]), "", source(results)])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
