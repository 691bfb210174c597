"""Compiles the library's programs for accelerators that are not here.

    python -m benchmarks.compiled --only "cell: LSTM" --targets v5e      (seconds)
    python -m benchmarks.compiled --chips 1 --record                     (each program: an hour)
    python -m benchmarks.compiled --only "train step" --chips 8 64 256 --record

Nothing is run, so nothing here is a speed. Every cell (value and gradient, with any mask and any
resets), attention and published block, and the train step of two hybrids, for an H100 and for TPU
v5e and v6e, on one chip and with the batch shared out over 8, 64 and 256. `benchmarks.targets`
installs the compilers.

`--record` keeps a line of JSON for every program as soon as it is compiled, and leaves out what has
a line, so a run that was cut goes on. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

import tyro
from rich.progress import Progress

from benchmarks.programs import PROGRAMS
from benchmarks.record import README, RESULTS, Row, table
from benchmarks.targets import CHIPS, TARGETS, Compiler, versions
from longlag.cli.arguments import plain_errors
from longlag.report.rows import insert, markdown
from longlag.system.atomic_files import replace_file
from longlag.system.console import console
from longlag.system.machine import environment

RECORD = RESULTS / "compiled.jsonl"


@dataclasses.dataclass(frozen=True)
class Options:
    """Compiles programs for accelerators, and reads what the compiler says of them.

    Attributes:
        only: programs whose names contain one of these, such as "cell: LSTM" or "block"; none: all.
        targets: the chips to compile for.
        chips: how many of them.
        again: compile what has a line too, and replace the line.
        record: keep the results in benchmarks/results/compiled.jsonl.
    """

    only: tuple[str, ...] = ()
    targets: tuple[Literal["h100", "v5e", "v6e"], ...] = ("h100", "v5e", "v6e")
    chips: tuple[int, ...] = CHIPS
    again: bool = False
    record: bool = False


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m benchmarks.compiled"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv))
    unknown = set(options.chips) - set(CHIPS)
    if unknown:
        raise ValueError(f"--chips: expected some of {CHIPS}, got {sorted(unknown)}")
    names = [
        name for name in PROGRAMS if not options.only or any(part in name for part in options.only)
    ]
    if not names:
        raise ValueError(f"--only: expected parts of {', '.join(PROGRAMS)}; got {options.only}")
    cases = itertools.product(options.chips, options.targets, names)
    # A fused loop is for one chip: XLA cannot share it out.
    cases = [
        (name, target, chips)
        for chips, target, name in cases
        if chips == 1 or not name.startswith("fused")
    ]
    kept = {_key(row): row for row in read()} if options.record else {}
    if not options.again:
        cases = [case for case in cases if "error" in kept.get(case, {"error": "missing"})]
    env = environment()
    about = {"commit": env["commit"], "dirty": env["dirty"], "versions": versions_of(env)}
    rows, compiler = [], Compiler()
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=len(cases))
        for name, target, chips in cases:
            progress.update(bar, description=f"{name}, {chips} x {TARGETS[target].name}")
            row: Row = {"program": name, "target": target, "chips": chips}
            try:
                row |= compiler.call("benchmarks.programs:measure", name, target, chips)
            except RuntimeError as error:
                row["error"] = str(error).strip().splitlines()[-1]
                compiler.close()
                compiler = Compiler()
            rows.append(row | about)
            if options.record:
                kept[name, target, chips] = rows[-1]
                write([*kept.values()])
            progress.advance(bar)
    compiler.close()
    every = [*kept.values()] if options.record else rows
    console.print(table("compiled, not run", COLUMNS, map(_line, rows), left=3))
    if options.record:
        text = insert(README.read_text("utf-8"), RECORD.stem, section(every))
        README.write_text(text, "utf-8")
        console.print(f"recorded in {RECORD} and {README}", highlight=False, soft_wrap=True)
    print(json.dumps({"benchmark": "compiled", **about, "rows": rows}))
    return 1 if any("error" in row for row in rows) else 0


def read() -> list[Row]:
    """The recorded lines."""
    lines = RECORD.read_text("utf-8").splitlines() if RECORD.is_file() else []
    return [json.loads(line) for line in lines]


def write(rows: Sequence[Row]) -> None:
    """Keeps the lines, in the order of the programs."""
    names = {name: number for number, name in enumerate(PROGRAMS)}
    places = {target: number for number, target in enumerate(TARGETS)}

    def place(row: Row) -> tuple[int, int, int]:
        return row["chips"], names.get(row["program"], len(names)), places[row["target"]]

    lines = [json.dumps(row) for row in sorted(rows, key=place)]
    replace_file(RECORD, "\n".join(lines) + "\n")


def versions_of(env: dict[str, Any]) -> dict[str, str]:
    """Those that a compiled program depends on."""
    names = ("longlag", "jax", "jaxlib")
    return {name: env["versions"][name] for name in names} | versions()


def section(rows: Sequence[Row]) -> str:
    """The tables of benchmarks/README.md: on one chip, then on several."""
    good = [row for row in rows if "error" not in row]
    by_name: dict[str, dict[str, Row]] = {}
    for row in good:
        if row["chips"] == 1:
            by_name.setdefault(row["program"], {})[row["target"]] = row
    one = [_on_one(name, by_target) for name, by_target in by_name.items()]
    several = [_on_several(row) for row in good if row["chips"] > 1]
    parts = [markdown(ON_ONE, one), "", markdown(ON_SEVERAL, several), "", _source(rows)]
    failed = [f"{each['program']} ({each['target']})" for each in rows if "error" in each]
    if failed:
        parts += ["", f"Did not compile: {', '.join(failed)}."]
    return "\n".join(parts)


ON_ONE = (
    *("program", "B,T,D,H", "GFLOP of products", "temporary MB", "loops", "kernels a turn"),
    "compile, s",
)
ON_SEVERAL = ("program", "chips", "collectives", "MB to the wire", "temporary MB", "compile, s")


def _on_one(name: str, rows: dict[str, Row]) -> list[str]:
    def each(text: Any) -> str:
        cells = [text(rows[target]) if target in rows else "·" for target in TARGETS]
        # What all targets have alike stands once.
        return cells[0] if len(set(cells)) == 1 else " / ".join(cells)

    shape = next(iter(rows.values()))["shape"]
    return [
        name,
        ",".join(map(str, shape)),
        each(_operations),
        each(_temporary),
        each(lambda row: str(row["loops"])),
        each(_kernels),
        each(lambda row: f"{row['compile_s']:.0f}"),
    ]


def _on_several(row: Row) -> list[str]:
    return [
        row["program"],
        f"{row['chips']} {TARGETS[row['target']].name}",
        _collectives(row),
        f"{row['wire_bytes'] / 1e6:.1f}",
        _temporary(row),
        f"{row['compile_s']:.0f}",
    ]


COLUMNS = (
    *("program", "chip", "chips", "GFLOP", "temporary MB", "loops", "kernels a turn"),
    *("collectives", "MB to the wire", "compile, s"),
)


def _line(row: Row) -> list[str]:
    names = [row["program"], TARGETS[row["target"]].name, str(row["chips"])]
    if "error" in row:
        return [*names, row["error"], *[""] * 6]
    return [
        *names,
        _operations(row),
        _temporary(row),
        str(row["loops"]),
        _kernels(row),
        _collectives(row),
        f"{row['wire_bytes'] / 1e6:.1f}",
        f"{row['compile_s']:.0f}",
    ]


def _operations(row: Row) -> str:
    return f"{row['operations'] / 1e9:.1f}" + (" + ?" if row["unknown"] else "")


def _temporary(row: Row) -> str:
    return f"{row['temporary'] / 1e6:.0f}"


def _kernels(row: Row) -> str:
    if row["unknown"]:
        return f"{row['unknown']} in all"
    if len(row["kernels"]) > 4:
        return f"{min(row['kernels'])} to {max(row['kernels'])}"
    return "+".join(map(str, row["kernels"])) or "–"


def _collectives(row: Row) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in row["collectives"].items()) or "–"


def _source(rows: Sequence[Row]) -> str:
    commits = ", ".join(f"`{commit[:10]}`" for commit in dict.fromkeys(r["commit"] for r in rows))
    packages = dict.fromkeys(f"{k} {v}" for row in rows for k, v in row["versions"].items())
    return f"Compiled, not run; commit {commits}; {', '.join(packages)}."


def _key(row: Row) -> tuple[str, str, int]:
    return row["program"], row["target"], row["chips"]


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
