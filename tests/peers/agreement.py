"""Do cells and attentions here agree with those of flax, torch, keras, haiku and equinox?

    python -m tests.peers.agreement                          (2 minutes)
    python -m experiments.harness.record runs/agreement agreement   (the table in docs/agreement.md)

Every counterpart of `tests.peers` runs on equal weights, inputs and first carries, in float32 and
in float64. Needs `pip install "longlag[peers]"`.

Leaves runs/agreement/results.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.harness.questions import show
from experiments.harness.recorded import Recorded
from longlag.cli.arguments import plain_errors
from longlag.system.machine import provenance, version

TITLE = "Do ours agree with those of others?"
# What no difference exceeds; the tests measure again.
BOUNDS = {"float32": 2e-5, "float64": 1e-13}
PACKAGES = ("flax", "dm-haiku", "equinox", "keras", "torch")
COLUMNS = (
    "here",
    "there",
    "compared",
    *(f"{kind}: {what}" for kind in BOUNDS for what in ("outputs", "gradients")),
)


def main(out: Path = Path("runs/agreement")) -> int:
    """Measures every counterpart.

    Args:
        out: the folder.
    """
    try:
        from tests.peers import COUNTERPARTS
        from tests.peers.measure import measure
    except ModuleNotFoundError as error:
        raise ValueError(f'{error}: expected the peers, pip install "longlag[peers]"') from error
    began = time.perf_counter()
    rows = []
    for counterpart in COUNTERPARTS:
        row: dict[str, Any] = {
            "here": counterpart.here,
            "package": counterpart.package,
            "there": counterpart.name,
        }
        for kind in BOUNDS:
            with jax.enable_x64(kind == "float64"):
                skipped = kind == "float64" and not counterpart.float64
                row[kind] = None if skipped else measure(counterpart, counterpart.build())
        rows.append(row | {"carry": counterpart.has_carry})
    meta = provenance("python -m tests.peers.agreement", began)
    meta["versions"] |= {name: version(name) for name in PACKAGES}
    results = {"rows": rows, "meta": meta}
    show(results, TITLE, out, COLUMNS, lines(results), verdict(results))
    return 0


def lines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every counterpart."""
    versions, found = results["meta"]["versions"], []
    for row in results["rows"]:
        outputs, gradients = ("outputs", "weights, inputs")
        if row["carry"]:
            outputs, gradients = f"{outputs}, last carry", f"{gradients}, first carry"
        numbers = [
            f"{row[kind][what]:.1e}" if row[kind] else "float32 inside"
            for kind in BOUNDS
            for what in ("outputs", "gradients")
        ]
        there = f"{row['package']} {versions[row['package']]} `{row['there']}`"
        found.append((row["here"], there, f"{outputs}; gradients in {gradients}", *numbers))
    return found


def verdict(results: dict[str, Any]) -> str:
    """What stands under the table."""
    said = []
    for kind, bound in BOUNDS.items():
        rows = [row for row in results["rows"] if row[kind]]
        # Of NumPy, since the `max` of Python may pass over a NaN.
        worst = np.max([(row[kind]["outputs"], row[kind]["gradients"]) for row in rows])
        said.append(f"{kind}, {len(rows)} pairs: at most {worst:.1e}, and held below {bound:.0e}")
    largest = max(row["float32"]["largest"] for row in results["rows"])
    return f"{'; '.join(said)}. The largest entry that is compared is {largest:.0f}."


# It is no result about recurrence: it has a page in docs.
RECORDED = (
    Recorded(
        *("agreement", TITLE, 40),
        columns=COLUMNS,
        lines=lines,
        verdict=verdict,
        note="",
        documents=("docs/agreement.md",),
        page=None,
    ),
)
SMOKE = False


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m tests.peers.agreement", description=__doc__))
