"""Tables, figures and the page of a comparison, from plain dictionaries.

Nothing here knows how a row came to be: the report reads what `results.json` holds.

    results = {
        "rows": [{...}],         # one per task, arm, seed and test length; the only key required
        "roles": {"LSTM": "recurrence", ...},
        "curves": [{...}],
        "by_lag": [{...}],
        "frontiers": [{...}],
        "attention": {...},
        "trace": {...},
        "meta": {...},
    }
    write("runs/demo", results)  # runs/demo/report.html and runs/demo/plots/*.png
    figure(results, "lag", save="paper/lag")  # paper/lag.pdf, .png, and the rows in .csv

`rows`: `task, arm, seed, accuracy, exact_match, loss, length, steps, parameters, state_bytes,
    seconds`; optionally `train_length` (the length trained at; where no row of a task has it, the
    shortest), `budget` (steps that the seed was given; else `steps`, those it took) and `solved_at`
    (steps until solved, or None). Rows at four times the trained length fill the far column. A
    floor is a row too: its arm is `"floor: <who>"`, its seed and its costs are None. A seed that
    diverged has accuracy None or NaN. `nan`, where a row has it, is the share of its answers that
    are NaN; they count as wrong. A loss that is not finite is None or NaN. Some figures want more:
    `flops_per_token` (cost), `horizon` and `spent` (horizon). `floor` in a row is the accuracy of
    the best fixed answer, where no row of its own says so.
`roles`: what an arm stands for: feed-forward, recurrence, both or attention. The order is that of
    the arms in every table and figure.
`curves`: `task, arm, seed, steps, loss, accuracy`, the last three lists of one length.
`by_lag`: `task, arm, seed, lag, train_lag, accuracy`, and `nan` as in a row.
`frontiers`: `arm, seed, lag, spent`, the operations after which a seed had solved a lag (horizon).
`attention`: `weights` `[T_query, T_memory]` (a row of zeros read nothing), `tokens` of the memory,
    `title`, `caption`, optionally `queries`.
`trace`: `states` `[T, H]`, `tokens`, `title`, `caption`.
`meta`: `command, commit, device, versions` (a dictionary) and `wall_seconds`, each optional.
`threshold` (.95), `title`, `question` and `lead` may be set as well.
"""

from longlag.system.optional_packages import needed_for

with needed_for("reports", "experiments"):
    from longlag.report.figures import png
    from longlag.report.kinds import KINDS, figure, plots
    from longlag.report.page import render, write
    from longlag.report.rows import table
    from longlag.report.statements import about_tasks, findings
    from longlag.report.summary import Entry, Spread, flaws, summarise, wilson

__all__ = [
    "KINDS",
    "Entry",
    "Spread",
    "about_tasks",
    "figure",
    "findings",
    "flaws",
    "plots",
    "png",
    "render",
    "summarise",
    "table",
    "wilson",
    "write",
]
