"""What trained models say for every source of the test part, how good it is, and how far apart."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.bootstrap import Interval, bootstrap
from experiments.harness.questions import Arms, module_of
from experiments.harness.rates import folder
from experiments.harness.tables import Results, Row, rows_by_arm, spread, time_of
from longlag.data.coders import STOP
from longlag.models import NO_CLASS, Seq2Seq, generate
from longlag.runs import Loaded, load
from longlag.system.console import console
from longlag.system.optional_packages import needed_for
from longlag.tasks.pairs import Pairs

__all__ = [
    "COLUMNS",
    "NO_SCORES",
    "ScoredTexts",
    "align",
    "answer_test_part",
    "compare_arms",
    "corpus_scores",
    "decode_texts",
    "describe_differences",
    "interval",
    "is_undefined",
    "lines",
    "newest_run",
    "require_defined",
    "score_texts",
    "search_targets",
]

ROWS = 64  # sources that are searched for side by side
# Wu et al. 2016, arXiv 1609.08144, chose by 0.6 to 0.7; without it a beam prefers what is short.
LENGTH_PENALTY = 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredTexts:
    """Answers to N sources, each with its score.

    Attributes:
        texts: what was said.
        chrf: `[N]`, chrF of each sentence alone, 0 to 100.
        exact: `[N]`, 100 where the text is the reference and 0 elsewhere.
        corpus_chrf: of all of them together, as it is published.
        corpus_bleu: likewise.
    """

    texts: tuple[str, ...]
    chrf: np.ndarray
    exact: np.ndarray
    corpus_chrf: float
    corpus_bleu: float

    def quality(self, name: str) -> np.ndarray:
        """Each sentence's score: "chrF" or "exact"."""
        return {"chrF": self.chrf, "exact": self.exact}[name]


def score_texts(texts: Sequence[str], references: Sequence[str]) -> ScoredTexts:
    """Scores texts by sacrebleu: chrF2, and BLEU by its own tokens ("13a").

    Raises:
        ImportError: sacrebleu is not installed.
    """
    with needed_for("scores"):
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    chrf, pairs = CHRF(), [*zip(texts, references, strict=True)]
    return ScoredTexts(
        texts=tuple(texts),
        chrf=np.array([chrf.sentence_score(text, [right]).score for text, right in pairs]),
        exact=np.array([100.0 * (text == right) for text, right in pairs]),
        corpus_chrf=chrf.corpus_score([*texts], [[*references]]).score,
        corpus_bleu=BLEU(force=True).corpus_score([*texts], [[*references]]).score,
    )


def corpus_scores(judged: ScoredTexts, numbers: np.ndarray | None = None) -> Row:
    """The corpus's scores, for a row.

    Args:
        judged: the scores.
        numbers: from `search_targets`, what a model said. The share of NaN in it, if there is any,
            is `nan`.
    """
    share = 0.0 if numbers is None else float(is_undefined(numbers).mean())
    return ({"nan": round(share, 4)} if share else {}) | {
        "chrf": round(judged.corpus_chrf, 2),
        "bleu": round(judged.corpus_bleu, 2),
        "exact": round(float(judged.exact.mean()), 2),
    }


NO_SCORES: Row = {"chrf": None, "bleu": None, "exact": None}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("steps", "beams"))
def _search(
    model: Seq2Seq,
    params: Any,
    inputs: jax.Array,
    mask: jax.Array | None,
    *,
    steps: int,
    beams: int,
) -> jax.Array:
    hypotheses = generate(
        model,
        params,
        inputs,
        stop=STOP,
        max_length=steps,
        mask=mask,
        beams=beams,
        length_penalty=LENGTH_PENALTY if beams > 1 else 0.0,
    )
    return hypotheses.tokens[:, 0]


def search_targets(
    model: Seq2Seq,
    params: Any,
    inputs: np.ndarray,
    mask: np.ndarray | None,
    steps: int,
    beams: int,
) -> np.ndarray:
    """The best target that a search finds for each source.

    Args:
        model: the model.
        params: of one seed.
        inputs: `[N, S]` int32, or `[N, S, D]` float32.
        mask: `[N, S]` bool or None.
        steps: L, of the longest target.
        beams: 1 is greedy search.

    Returns:
        `[N, L]` int32, `STOP` from the end of each on, `NO_CLASS` where the model answers NaN.
    """
    parts = []
    for at in range(0, len(inputs), ROWS):
        rows = np.arange(at, at + ROWS) % len(inputs)  # the last part is filled up: one shape
        seen = None if mask is None else mask[rows]
        parts.append(_search(model, params, inputs[rows], seen, steps=steps, beams=beams))
    return np.concatenate(jax.device_get(parts))[: len(inputs)]


def decode_texts(numbers: np.ndarray, pairs: Pairs) -> list[str]:
    """Decodes what `search_targets` gives. An answer with NaN is empty: it is like no reference."""
    return [
        "" if undefined else pairs.writer.decode(row[: _end(row)].tolist())
        for row, undefined in zip(numbers, is_undefined(numbers))
    ]


def is_undefined(numbers: np.ndarray) -> np.ndarray:
    """`[N]` bool, whether a model answered NaN anywhere in a text of `search_targets`."""
    return (numbers == NO_CLASS).any(axis=1)


def require_defined(numbers: np.ndarray, run: Path) -> None:
    """Raises `ValueError` if a model answered NaN in a text of `search_targets`."""
    if is_undefined(numbers).any():
        raise ValueError(f"expected a model with finite answers; that of {run} answers NaN")


def _end(row: np.ndarray) -> int:
    return int((row != STOP).sum())


def answer_test_part(
    arms: Arms, rows: Sequence[Row], out: Path, beams: int
) -> Iterator[tuple[Row, Loaded, np.ndarray | None]]:
    """Answers the test part by every seed of every arm.

    Args:
        arms: as they were trained.
        rows: a row for each arm and seed.
        out: each arm's run is in `folder(arm)` of it.
        beams: 1 is greedy search.

    Yields:
        The row, the run, and what was said (see `search_targets`), or None by a seed that diverged.
    """
    for arm, job in arms.items():
        task: Any = job.task
        pairs, loaded = task.pairs, load(out / folder(arm))
        test = pairs.rows["test"]
        mask = None if pairs.mask is None else pairs.mask[test]
        for row in (row for row in rows if row["arm"] == arm):
            if row["accuracy"] is None:
                yield row, loaded, None
                continue
            console.print(f"{arm}, seed {row['seed']}: answering the test part", highlight=False)
            params, inputs = loaded.of_seed(row["seed"]), task.to_model_inputs(pairs.inputs[test])
            yield (
                row,
                loaded,
                search_targets(loaded.model, params, inputs, mask, task.length, beams),
            )


def align(
    loaded: Loaded, seed: int, source: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each piece of a target looked in its source.

    Args:
        loaded: a run with attention.
        seed: whose parameters.
        source: `[S]` int32, without padding, or `[S, D]` float32.
        numbers: `[L]` int32, `STOP` from its end on.

    Returns:
        Weights `[L', R]` over the R steps or regions of the source, and the pieces `[L']`, `STOP`
        included.
    """
    numbers = numbers[: _end(numbers) + 1]
    weights = jax.jit(loaded.model.alignment)(
        loaded.of_seed(seed), jnp.asarray(source)[None], jnp.asarray(numbers)[None]
    )
    return np.asarray(weights[0]), numbers


def interval(values: np.ndarray, groups: np.ndarray | None = None) -> Interval:
    """The mean of some sentences' scores, and its 95% bootstrap interval over the sentences.

    Args:
        values: `[N]`.
        groups: `[N]`, what each belongs to, if they are not independent; groups are then what is
            drawn, whole. None: each is its own.
    """
    of_group = np.arange(len(values))
    if groups is not None:
        _, of_group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(of_group, values), np.bincount(of_group)
    return bootstrap(lambda drawn: (drawn @ sums) / (drawn @ counts), len(sums), digits=2)


def compare_arms(
    quality: Mapping[str, np.ndarray], groups: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """How much better each arm is than each before it, sentence by sentence.

    Args:
        quality: by arm, `[N]`: each sentence's score, the mean of the seeds.
        groups: of `interval`.
    """
    arms = [*quality]
    rows = []
    for i, arm in enumerate(arms):
        for other in arms[:i]:
            ahead = interval(quality[arm] - quality[other], groups)
            rows.append({"arm": arm, "than": other, **ahead._asdict()})
    return rows


def describe_differences(differences: Sequence[Mapping[str, Any]]) -> str:
    """Differences and their intervals in words."""
    sentences = []
    for row in differences:
        outcome = "not significant" if row["low"] <= 0 <= row["high"] else "significant"
        sentences.append(
            f"{row['arm']} − {row['than']}: {row['mean']:+.1f} ({row['low']:+.1f} to "
            f"{row['high']:+.1f}), {outcome}."
        )
    return " ".join(sentences)


COLUMNS = ("arm", "chrF", "BLEU", "exact, %", "loss", "rate", "params", "state", "time")


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm and floor: medians of the seeds, ranges in brackets."""
    table = []
    for arm, rows in rows_by_arm(results).items():
        cost = ("",) * 5
        if rows[0]["seed"] is not None:
            cost = (
                spread(rows, "loss", 2),
                f"{rows[0]['rate']:g}",
                f"{rows[0]['parameters']:,}",
                f"{rows[0]['state_bytes']:,} B",
                time_of(rows),
            )
        table.append((arm, *(spread(rows, key, 1) for key in ("chrf", "bleu", "exact")), *cost))
    return table


def newest_run(runs: Path, name: str, option: str) -> Path:
    """The newest finished run of an experiment.

    Args:
        runs: where its folders are.
        name: of the experiment, with which they begin.
        option: that wants one, for the message.

    Raises:
        ValueError: there is none.
    """
    finished = [*runs.glob(f"{name}*/results.json")]
    if not finished:
        raise ValueError(
            f"{option}: expected a finished run in {runs}; first run `python -m {module_of(name)}`"
        )
    return max(finished, key=lambda file: file.stat().st_mtime).parent
