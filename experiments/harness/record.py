"""Record a finished comparison: its JSON is committed, and pages and tables come from it.

    python -m experiments.harness.record runs/demo demo
    python -m experiments.harness.record runs/family-hold family-hold --add     (an arm more)

It writes files; what becomes of them is for git. A record that would lose arms is refused, and so
is one of a smoke run. The page of the question, docs/results/QUESTION.md, is made or made again by
`experiments.harness.gallery`. A new page has gaps for its answer, method and limits.
"""

from __future__ import annotations

import collections
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import tyro

from experiments.harness import discovery, gallery
from experiments.harness.recorded import RESULTS, committed_results
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.system.atomic_files import replace_file

# What results.json holds for the page of the run alone.
LEFT_OUT = ("attention", "by_lag", "confused", "curves", "lead", "question", "title", "trace")


def main(
    run: tyro.conf.Positional[Path],
    question: tyro.conf.Positional[str],
    add: bool = False,
) -> int:
    """Copies a run's results to experiments/results, and makes all pages and tables again.

    Args:
        run: a folder with results.json.
        question: what the results answer. It names the folder, the page and its markers.
        add: put the arms of this run beside those that are recorded, or in place of those with
            their names. The page names the source of both.
    """
    choose(question, sorted(discovery.recorded_questions()), "question")
    kept = prepare_record(run, question, add)
    folder = RESULTS / question
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "cpu.json", json.dumps(kept, indent=1) + "\n")
    for plot in sorted((run / "plots").glob("*.png")):
        shutil.copyfile(plot, folder / plot.name)
    return gallery.main()


def prepare_record(run: Path, question: str, add: bool) -> dict[str, Any]:
    """What is to be recorded of a run: `results.json` without what is for its own page alone.

    Raises:
        ValueError: there are no results, they are of a smoke run, arms would be lost, or arms to be
            added have fewer seeds or steps than those there.
    """
    file = run / "results.json"
    if not file.is_file():
        raise ValueError(f"run: expected a folder with results.json, got {run}")
    results = json.loads(file.read_text(encoding="utf-8"))
    if "smoke" in results["meta"].get("command", ""):
        raise ValueError(f"run: expected one that answers the question, got a smoke run, {run}")
    kept = {k: v for k, v in results.items() if k not in LEFT_OUT}
    kept["rows"] = [{k: v for k, v in row.items() if k != "by_position"} for row in results["rows"]]
    before = committed_results(question)
    if before is None:
        return kept
    arms = {row.get("arm", "") for row in kept["rows"]}
    missing = {row.get("arm", "") for row in before["rows"]} - arms
    if not add:
        if missing:
            raise ValueError(
                f"{question}: expected all arms that are recorded; {len(missing)} of them are "
                f"not in {run}: {'; '.join(sorted(missing))}. Run them too, or give --add"
            )
        return kept
    _require_as_much(kept["rows"], before["rows"])
    joined = {}
    for key in {**before, **kept}:
        mine, theirs = kept.get(key), before.get(key)
        if _are_rows_of_arms(mine) or _are_rows_of_arms(theirs):
            joined[key] = [row for row in theirs or () if row["arm"] not in arms] + (mine or [])
        elif key != "meta" and mine != theirs:
            raise ValueError(
                f"{question}: expected a run of all arms, since --add cannot join its {key!r} to "
                "the one that is recorded"
            )
    meta = before["meta"]
    # What an earlier addition brought is gone with its arms, and its time with it.
    gone = [one for one in meta.get("added", []) if arms.issuperset(one["arms"])]
    hours = meta["core_hours"] - sum(one["core_hours"] for one in gone)
    hours = round(hours + kept["meta"]["core_hours"], 3)
    stay = [one for one in meta.get("added", []) if one not in gone]
    added = [*stay, {"arms": sorted(arms), **kept["meta"]}]
    return before | joined | {"meta": meta | {"core_hours": hours, "added": added}}


def _require_as_much(rows: list[Any], before: list[Any]) -> None:
    """Refuses arms of fewer seeds or steps than any that they would stand beside."""
    for what, numbers in (("seeds", _seeds), ("training steps", _budgets)):
        least, counts = min(numbers(before).values(), default=0), numbers(rows)
        short = {arm: number for arm, number in counts.items() if number < least}
        if short:
            arm = min(short, key=lambda arm: short[arm])
            raise ValueError(
                f"run: expected at least {least:,} {what} of each arm, as those recorded have; "
                f"got {short[arm]:,} of {arm!r}"
            )


def _seeds(rows: list[Any]) -> dict[str, int]:
    pairs = {(row["arm"], row["seed"]) for row in rows if "seed" in row}
    return collections.Counter(arm for arm, _ in pairs)


def _budgets(rows: list[Any]) -> dict[str, int]:
    pairs = [(row["arm"], row["budget"]) for row in rows if row.get("budget")]
    return {arm: min(budget for a, budget in pairs if a == arm) for arm, _ in pairs}


def _are_rows_of_arms(value: Any) -> bool:
    """Whether these are rows of one arm each; those of two would outlive one of them."""
    return isinstance(value, list) and all(
        isinstance(row, dict) and "arm" in row and "than" not in row for row in value
    )


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.harness.record", description=__doc__))
