"""What a training needs, by formulas, beside what the compilers say of the same programs.

    python -m benchmarks.scaling      (writes the tables of docs/scaling.md)

The formulas are those of the page. The compiled programs are those of `benchmarks.compiled`, as
they were recorded, so nothing is compiled here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.compiled import read
from benchmarks.programs import PROGRAMS, Shape
from benchmarks.record import Row
from benchmarks.targets import CHIPS, TARGETS
from longlag.report.rows import insert, markdown
from longlag.system.console import console

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
# How far a formula may be from what was compiled, as a share of it.
NEAR = 0.2
# Matrix cells whose heads are narrower than the 128 numbers that a TPU lays out side by side.
NARROW = ("cell: LinearAttention", "cell: Retention", "cell: GLA")
# Of a chunk of a matrix cell, steps: with a decay for each head, and for each key.
PER_HEAD, PER_KEY = 32, 16


@dataclasses.dataclass(frozen=True)
class Needs:
    """What one chip needs for one gradient.

    Attributes:
        arrays: temporary memory in arrays `[B, T, H]` of float32.
        operations: of matrix products, for each number of such an array.
        parameters: whose gradients are added up over the chips.
    """

    arrays: float
    operations: float
    parameters: int


def dense(
    shape: Shape, *, gates: int, carried: int, mixed: int, heads: int = 1, inner: bool = False
) -> Needs:
    """A dense cell of at least 128 features, which stores what `mix` returned.

    Args:
        shape: of the batch.
        gates: G.
        carried: arrays of the carry.
        mixed: arrays that `mix` returns.
        heads: blocks of the recurrent kernel.
        inner: whether the inputs have a gradient too.
    """
    D, H = shape.inputs, shape.features
    operations = 2 * gates * ((3 if inner else 2) * D + 3 * H / heads)
    parameters = gates * H * (D + H // heads + 1)
    return Needs(carried + mixed + 2 + D / H, operations, parameters)


def linear(shape: Shape, *, gates: int) -> Needs:
    """A linear cell with gates of the input alone, by the associative scan."""
    D, H = shape.inputs, shape.features
    return Needs(7 + D / H, 4 * gates * D, gates * H * (D + 1))


def matrix(shape: Shape, *, heads: int, per_key: bool = False, rank: int = 0) -> Needs:
    """A matrix cell without the delta rule, K = V = H / N, in chunks of C steps.

    Args:
        shape: of the batch.
        heads: N.
        per_key: whether each key has a decay of its own.
        rank: of the map to these decays.
    """
    D, H = shape.inputs, shape.features
    K, C = H / heads, PER_KEY if per_key else PER_HEAD
    arrays = 9 + D / H + 3 * K / C + (C if per_key else C / K)
    operations = 12 * D + 16 * K + (6 * C + 4 * C**2 if per_key else 12 * C)
    parameters = 3 * H * (D + 1)
    if rank:
        operations += 4 * rank * (D + H) / H
        parameters += rank * (D + H) + H
    return Needs(arrays, operations, parameters)


def dot_product(shape: Shape, *, heads: int, window: int = 0, inner: bool = False) -> Needs:
    """Dot-product attention, D = H. A window is read in blocks, which see two windows of keys."""
    T, H = shape.steps, shape.features
    keys = 2 * window or T
    arrays = (10 if window else 8.5) + 2 * heads * keys / H
    return Needs(arrays, (24 if inner else 18) * H + 12 * keys, 4 * H * H)


def additive(shape: Shape) -> Needs:
    """Additive attention, D = H, whose scores are made for a block of queries at once."""
    T, H = shape.steps, shape.features
    return Needs(26, 8 * H + 10 * T, 2 * H * H + H)


def four_seeds(needs: Needs) -> Needs:
    """Four seeds side by side."""
    return Needs(4 * needs.arrays, 4 * needs.operations, 4 * needs.parameters)


def hybrid(shape: Shape) -> Needs:
    """The train step of six blocks, five of an LSTM and one of attention, each with an MLP of 3 H.

    An LSTM's block stores two arrays of the carry, four of `mix`, the output, and five around them:
    what the block and its norm were given. The MLP's stores six arrays of its width.
    """
    H, classes = shape.features, 256
    shape = shape._replace(inputs=H)
    lstm = dense(shape, gates=4, carried=2, mixed=4, inner=True)
    attention = dot_product(shape, heads=8, inner=True)
    arrays = 5 * 12 + attention.arrays + 3 + 6 * 6 * 3
    operations = 5 * lstm.operations + attention.operations + 6 * 12 * 3 * H + 6 * classes
    norms, mlp = 13 * H, 2 * 3 * H * H + 4 * H
    parameters = 5 * lstm.parameters + attention.parameters + 6 * mlp + norms
    return Needs(arrays, operations, parameters + 2 * classes * H + classes)


LSTM = functools.partial(dense, gates=4, carried=2, mixed=4)
FORMULAS: dict[str, Callable[[Shape], Needs]] = {
    "cell: Elman": functools.partial(dense, gates=1, carried=1, mixed=1),
    "cell: GRU": functools.partial(dense, gates=3, carried=1, mixed=4),
    "cell: LSTM": LSTM,
    "cell: SLSTM": functools.partial(dense, gates=4, carried=4, mixed=4, heads=4),
    "cell: MinGRU": functools.partial(linear, gates=2),
    "cell: LinearAttention": functools.partial(matrix, heads=4),
    "cell: Retention": functools.partial(matrix, heads=4),
    "cell: GLA": functools.partial(matrix, heads=4, per_key=True, rank=16),
    "long: LSTM": LSTM,
    "long: Retention": functools.partial(matrix, heads=2),
    "four seeds: LSTM": lambda shape: four_seeds(LSTM(shape)),
    "four seeds: Retention": lambda shape: four_seeds(matrix(shape, heads=2)),
    "attention: dot product": functools.partial(dot_product, heads=4),
    "attention: dot product, window 64": functools.partial(dot_product, heads=4, window=64),
    "attention: additive": additive,
    "train step: LSTM and attention": hybrid,
}


def _exchanges(chips: int) -> int:
    """Of states between chips that share out the time, one way."""
    return math.ceil(math.log2(chips)) + 1


# Bytes that a chip hands on for one gradient where chips share out the time: decays and states of a
# linear cell, each way; states of a matrix cell; keys and values of every chip, and on the way back
# their gradients too.
IN_TIME: dict[str, Callable[[Shape, int], float]] = {
    "cut in time: MinGRU": lambda shape, chips: (
        4 * linear(shape, gates=2).parameters
        + 16 * shape.batch * shape.features * _exchanges(chips)
    ),
    "cut in time: Retention": lambda shape, chips: (
        4 * matrix(shape, heads=2).parameters
        + 8 * shape.batch * shape.features**2 / 2 * _exchanges(chips)
    ),
    "cut in time: dot product": lambda shape, chips: (
        4 * dot_product(shape, heads=2).parameters
        + 24 * shape.batch * shape.steps * shape.features * chips
    ),
}


@dataclasses.dataclass(frozen=True)
class Check:
    """A number by the formulas, and the same in a compiled program."""

    quantity: str
    formula: float
    compiled: float

    @property
    def share(self) -> float:
        """The formula as a share of what was compiled; infinite if there is nothing of it."""
        return self.formula / self.compiled if self.compiled else math.inf

    @property
    def is_near(self) -> bool:
        """Whether both are within `NEAR`."""
        return abs(self.share - 1) <= NEAR


def check(row: Row) -> Iterator[Check]:
    """What a recorded program says of the formulas."""
    shape = Shape(*row["shape"])
    if row["program"] in IN_TIME:
        yield Check("wire", IN_TIME[row["program"]](shape, row["chips"]), row["wire_bytes"])
        return
    needs, numbers = FORMULAS[row["program"]](shape), shape.batch * shape.steps * shape.features
    yield Check("memory", 4 * numbers * needs.arrays, row["temporary"])
    yield Check("operations", numbers * needs.operations, row["operations"])
    if row["chips"] > 1:
        yield Check("wire", 4 * needs.parameters, row["wire_bytes"])


def explain(row: Row, one: Check) -> str:
    """The note of a miss; empty where nobody knows the reason."""
    if one.is_near or TARGETS[row["target"]].platform != "tpu":
        return ""
    if one.quantity == "operations":
        return "c" if row["program"] == "attention: additive" else ""
    return "a" if one.share > 1 else "b" if row["program"] in NARROW else ""


def checked() -> list[Row]:
    """The recorded programs that a formula exists for."""
    return [row for row in read() if row["program"] in FORMULAS | IN_TIME and "error" not in row]


def of_checks(rows: Sequence[Row]) -> str:
    """The table of formulas beside compiled programs, and how many numbers agree.

    A program for several numbers of chips has one line, with the worst of them.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["program"], row["target"]), []).append(row)
    lines = [_line(group) for group in groups.values()]
    columns = ("program", "chips", "MB", "share", "GFLOP", "share", "MB to the wire", "share")
    every = [one for row in rows for one in check(row)]
    near = f"{sum(one.is_near for one in every)} of {len(every)} numbers are within 20%."
    return "\n".join([markdown(columns, lines), "", near])


def _line(rows: Sequence[Row]) -> list[str]:
    chips = ", ".join(str(row["chips"]) for row in rows)
    cells = [rows[0]["program"], f"{chips} {TARGETS[rows[0]['target']].name}"]
    for quantity, unit in {"memory": 1e6, "operations": 1e9, "wire": 1e6}.items():
        checks = [(one, row) for row in rows for one in check(row) if one.quantity == quantity]
        if not checks:
            cells += ["", ""]
            continue
        one, row = max(checks, key=lambda pair: abs(pair[0].share - 1))
        note, share = explain(row, one), f"{one.share:.2f}" if one.compiled else "–"
        cells += [f"{one.compiled / unit:,.1f}", f"{share} ({note})" if note else share]
    return cells


def of_chips() -> str:
    """The table of the hybrid's train step over more and more chips."""
    shape = PROGRAMS["train step: LSTM and attention"].shape
    needs, numbers = hybrid(shape), shape.batch * shape.steps * shape.features
    lines = []
    for chips in CHIPS:
        ring = 2 * (chips - 1) / chips * 4 * needs.parameters
        lines.append(
            [
                str(chips),
                f"{chips * shape.batch:,}",
                f"{(4 * numbers * needs.arrays + 12 * needs.parameters) / 1e9:.1f}",
                f"{numbers * needs.operations / 1e12:.2f}",
                f"{ring / 1e6:.0f}",
                f"{numbers * needs.operations / ring:,.0f}" if ring else "",
            ]
        )
    columns = ("chips", "sequences a step", "GB a chip", "TFLOP a chip")
    return markdown((*columns, "MB sent by a chip", "operations a byte"), lines)


def main() -> int:
    """Writes the tables into the page."""
    text = insert(PAGE.read_text("utf-8"), "checks", of_checks(checked()))
    PAGE.write_text(insert(text, "chips", of_chips()), "utf-8")
    console.print(f"written to {PAGE}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
