"""Tables of the site: one that is made from the committed results, and how wide ones look.

The directive `best-arms` shows the best arm of each kind on five tasks. A table with many
columns keeps its short entries on one line, its long ones wide enough, and scrolls in its box.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from experiments.harness.recorded import RESULTS, committed_results
from experiments.harness.tables import Results, Row, count_solved, near_rows, rows_by_arm
from longlag.report.rows import markdown

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# The committed results, and what the model has to do in them.
NEEDS = {
    "attention-vs-recurrence-hold": "hold ten symbols over a gap",
    "attention-vs-recurrence-choose": "choose eight symbols out of noise",
    "attention-vs-recurrence-look-up": "look up the values of four keys",
    "attention-vs-recurrence-track": "track a state (parity)",
    "attention-vs-recurrence-both": "look up the key that a state selects",
}
# From so many columns on, an entry of up to so many letters is kept on one line, and one of so many
# is given room.
MANY_COLUMNS, SHORT, LONG = 5, 18, 40
COLUMNS = ("the model must", "kind", "best arm", "seeds at 0.95", "at 4 × lag", "state")


def best_arms(results: Mapping[str, Results]) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` for each task and kind of model.

    The best arm has the most seeds at the threshold at the trained length. Then the higher median
    accuracy at the longest lag decides, and then fewer bytes of state.

    Args:
        results: what `NEEDS` names, by the name of its folder.
    """
    table: list[tuple[str, ...]] = []
    for name, need in NEEDS.items():
        arms = rows_by_arm(results[name])
        threshold = results[name]["threshold"]
        for kind in ("recurrence", "recurrence + attention", "attention only"):
            of_kind = {arm: rows for arm, rows in arms.items() if _kind(rows[0]) == kind}
            ranks = {
                arm: (
                    count_solved(rows, threshold, beyond=False)[0] / len(near_rows(rows)),
                    _far(rows),
                    -rows[0]["state_bytes"],
                )
                for arm, rows in of_kind.items()
            }
            best = max(ranks, key=lambda arm: ranks[arm])
            rows = of_kind[best]
            solved, of = count_solved(rows, threshold, beyond=False)
            state = f"{near_rows(rows)[0]['state_bytes']:,} B"
            table.append((need, kind, best, f"{solved} of {of}", f"{_far(rows):.2f}", state))
    return table


def _kind(row: Row) -> str:
    if "+ attention" in row["kind"]:
        return "recurrence + attention"
    if row["kind"] == "attention":
        return "attention only"
    return "no memory" if row["arm"].startswith("feed-forward") else "recurrence"


def _far(rows: list[Row]) -> float:
    longest = max(row["lag"] for row in rows)
    return statistics.median(row["accuracy"] or 0 for row in rows if row["lag"] == longest)


class BestArms(SphinxDirective):
    """The table of `best_arms`."""

    def run(self) -> list[nodes.Node]:
        """Reads the committed results and parses the table."""
        results = {name: committed_results(name) or {} for name in NEEDS}
        for name in NEEDS:
            self.env.note_dependency(str(RESULTS / name / "cpu.json"))
        return self.parse_text_to_nodes(markdown(COLUMNS, best_arms(results)))


def _keep_short_entries(app: Sphinx, document: nodes.document) -> None:
    del app
    for table in document.findall(nodes.table):
        columns = len(list(table.findall(nodes.colspec)))
        for entry in table.findall(nodes.entry):
            if columns >= MANY_COLUMNS:
                letters = len(entry.astext())
                size = "short" if letters <= SHORT else "long" if letters >= LONG else "medium"
                entry["classes"].append(size)


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the extension to Sphinx."""
    app.add_directive("best-arms", BestArms)
    app.connect("doctree-read", _keep_short_entries)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
