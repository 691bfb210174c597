"""The test of `intents`: what all arms and floors say to what was held out, together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.questions import Arms
from experiments.harness.rates import folder
from experiments.harness.tables import Results, Row
from experiments.real_data.intents_figures import confusion, reading
from experiments.real_data.intents_scores import (
    MEASURES,
    attention_weights,
    decide,
    differences,
    scores,
    tally,
)
from experiments.real_data.translation_figures import draw_png
from longlag.data.intents import floors, tokenize
from longlag.models import NO_CLASS, likeliest_class
from longlag.runs import Experiment, load
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.tasks import Intents
from longlag.tasks.intents import Corpus

__all__ = ["SHUFFLED", "WORDS", "arm", "held_out_task", "pool_folds"]

WORDS = "floor: bag of words"
SHUFFLED = ", words shuffled"
SHOWN = 6  # utterances in the picture of what is read


def arm(job: Experiment) -> str:
    """The name of an arm, of whatever fold."""
    return job.arm + (SHUFFLED if held_out_task(job).shuffled else "")


def pool_folds(arms: Arms, rows: Sequence[Row], out: Path, plain: str, attentive: str) -> Results:
    """All held-out utterances of all folds, as every arm, seed and floor takes them.

    Each template is held out once, so a seed's predictions of all folds together are one test of
    all templates; every score is one of these predictions, and no mean over the folds.

    Args:
        arms: of `Options.question`.
        rows: of all runs.
        out: where their folders are.
        plain: the arm without attention that reads words in order.
        attentive: the one with it.

    Returns:
        `rows` by arm and seed, and floor; `scores` and `differences` with their intervals over the
        templates; `confused`, of one arm, with attention if it is there; `data`, what was tested.
    """
    rows, corpora = [*_rows_of_runs(arms, rows, out)], _corpora(arms)
    task = held_out_task(next(iter(arms.values())))
    console.print("fitting the floors", highlight=False)
    for corpus in corpora:
        for note, predicted in floors(corpus.utterances, corpus.parts).items():
            counts = tally(corpus.utterances, corpus.parts.held, predicted)
            rows.append({"arm": f"floor: {note}", "seed": None, "counts": counts})
    totals = np.sum([row["counts"] for row in rows if row["arm"] == WORDS], axis=(0, 2))
    tested = np.flatnonzero(totals)
    utterances = corpora[0].utterances
    label_of = np.zeros(len(totals), int)
    label_of[utterances.templates] = utterances.labels
    labels = label_of[tested]
    scored, whole = [], {}
    for (one, seed), of_folds in _group_rows(rows, "arm", "seed").items():
        row = {key: value for key, value in of_folds[-1].items() if key != "counts"}
        if seed is not None:
            row["seconds"] = round(sum(fold["seconds"] for fold in of_folds), 2)
        if all(fold["counts"] is not None for fold in of_folds):
            counts = np.sum([fold["counts"] for fold in of_folds], axis=0)[tested]
            whole.setdefault(one, []).append(counts)
            row |= scores(counts, labels)
        else:  # it diverged in a fold, or answered NaN, and says so
            row |= dict.fromkeys(MEASURES)
            if share := max(fold.get("nan", 0) for fold in of_folds):
                row["nan"] = share
        scored.append(row)
    by_label = np.bincount(labels, totals[tested], len(utterances.intents))
    pairs = [
        *((one, WORDS) for one in whole if one not in (WORDS, "floor: majority class")),
        (attentive, plain),
        *((one, one + SHUFFLED) for one in (plain, attentive)),
    ]
    there = [pair for pair in pairs if whole.keys() >= set(pair)]
    shown = next(one for one in (attentive, plain, *whole) if one in whole)
    by_intent = np.zeros((len(utterances.intents),) * 2, int)
    for counts in whole[shown]:
        np.add.at(by_intent, labels, counts)
    pictures = {"confusion": confusion(by_intent, utterances.intents, f"{shown}, all seeds")}
    if attentive in whole:
        read = next(name for name, job in arms.items() if arm(job) == attentive)
        pictures["reading"] = _draw_reading(out / folder(read))
    with writing("the plots", out):
        (out / "plots").mkdir(exist_ok=True)
        for name, figure in pictures.items():
            (out / "plots" / f"{name}.png").write_bytes(draw_png(figure))
    return {
        "rows": scored,
        "scores": differences(whole, labels, [(one, None) for one in whole]),
        "differences": differences(whole, labels, there),
        "confused": {
            "arm": shown,
            "intents": list(utterances.intents),
            "counts": by_intent.tolist(),
        },
        "data": {
            "language": task.language,
            "utterances": int(totals.sum()),
            "templates": len(tested),
            "intents": len(np.unique(labels)),
            "straddling": sum(len(corpus.parts.straddling) for corpus in corpora),
            "folds": task.folds,
            "held": len(corpora),
            "per_template": [int(totals[tested].min()), int(totals.max())],
            "per_intent": by_label.astype(int).tolist(),
        },
    }


def _rows_of_runs(arms: Arms, rows: Sequence[Row], out: Path) -> Iterator[Row]:
    """The rows by the name of their arm alone, each with the `tally` of what it says to its fold.

    None stands for the tally of a seed that diverged, or that answered NaN, with the share of
    those answers as `nan`: a table of counts has no place for them.
    """
    for name, job in arms.items():
        loaded = load(out / folder(name))
        held = held_out_task(job)
        tokens, mask = held.full_utterances()
        for row in (row for row in rows if row["arm"] == name):
            counts, kept = None, {}
            if row["accuracy"] is not None:
                chances = decide(loaded.model, loaded.of_seed(row["seed"]), tokens, mask)
                predicted = np.asarray(likeliest_class(chances))
                if (predicted == NO_CLASS).any():
                    kept["nan"] = float((predicted == NO_CLASS).mean())
                else:
                    counts = tally(held.corpus.utterances, held.rows, predicted)
            kept |= {key: row[key] for key in ("parameters", "state_bytes", "steps", "seconds")}
            yield {"arm": arm(job), "seed": row["seed"], **kept, "counts": counts}


def _corpora(arms: Arms) -> list[Corpus]:
    """Of every fold."""
    return list(
        {held_out_task(job).fold: held_out_task(job).corpus for job in arms.values()}.values()
    )


def _group_rows(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by what they have under some keys."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def held_out_task(job: Experiment) -> Intents:
    """What a job holds out."""
    assert isinstance(job.task, Intents)
    return dataclasses.replace(job.task, part="held")


def _draw_reading(run: Path) -> Figure:
    """The picture of what the attention of a run reads in utterances of held-out templates.

    Of the median length, the first of each intent: it is not picked by eye.
    """
    loaded = load(run)
    held = held_out_task(loaded.experiment)
    tokens, mask = held.full_utterances()
    lengths, utterances = mask.sum(1), held.corpus.utterances
    there = np.flatnonzero(lengths == np.sort(lengths)[len(lengths) // 2])
    _, first = np.unique(utterances.labels[held.rows[there]], return_index=True)
    rows = there[first[:SHOWN]]
    params = loaded.of_seed()
    predicted = likeliest_class(decide(loaded.model, params, tokens[rows], mask[rows]))
    weights = attention_weights(loaded.model, params, tokens[rows], mask[rows])
    return reading(
        [tokenize(utterances.texts[i]) for i in held.rows[rows]],
        [of_row[of_mask] for of_row, of_mask in zip(weights, mask[rows])],
        ["NaN" if i == NO_CLASS else utterances.intents[i] for i in predicted.tolist()],
    )
