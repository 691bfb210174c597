"""What models and floors say to held-out utterances, pooled over the folds and scored.

All scores are of counts: how often each template's utterances were taken for each intent. So the
bootstrap can draw templates anew without asking a model again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.bootstrap import bootstrap
from longlag.data.intents import Utterances
from longlag.models import Seq2Seq

__all__ = [
    "MEASURES",
    "accuracy",
    "attention_weights",
    "by_template",
    "decide",
    "differences",
    "macro_f1",
    "scores",
    "tally",
]

ROWS = 2048  # utterances that are read side by side


@functools.partial(jax.jit, static_argnums=0)
def _chances(model: Seq2Seq, params: Any, tokens: Any, mask: Any) -> jax.Array:
    # The only answer is the first, so what stands for the target is never read.
    nothing = jnp.zeros((len(tokens), 1), jnp.int32)
    return jax.nn.softmax(model.apply(params, tokens, nothing, mask=mask)[:, 0])


def decide(model: Seq2Seq, params: Any, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Probabilities of the intents.

    Args:
        model: the model.
        params: of one seed.
        tokens: `[N, T]` int32.
        mask: `[N, T]` bool.

    Returns:
        `[N, K]` float32, rows sum to one.
    """
    rows = min(ROWS, len(tokens))
    chances = []
    for at in range(0, len(tokens), rows):
        part = np.arange(at, at + rows) % len(tokens)  # the last part is filled up: one shape
        chances.append(_chances(model, params, tokens[part], mask[part]))
    return np.concatenate(jax.device_get(chances))[: len(tokens)]


def attention_weights(
    model: Seq2Seq, params: Any, tokens: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """What the attention reads of each word: `[N, T]` float32; arguments as those of `decide`.

    Raises:
        ValueError: the model has no attention.
    """
    nothing = jnp.zeros((len(tokens), 1), jnp.int32)
    weights = jax.jit(model.alignment)(params, tokens, nothing, mask=mask)
    return np.asarray(weights[:, 0])


def tally(utterances: Utterances, rows: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """How often the utterances of each template were taken for each intent.

    Args:
        utterances: all.
        rows: `[N]`, indices of those that were asked.
        predicted: `[N]`, the intents they were taken for.

    Returns:
        `[templates, K]` int64.
    """
    counts = np.zeros((len(utterances.sentences), len(utterances.intents)), np.int64)
    np.add.at(counts, (utterances.templates[rows], predicted), 1)
    return counts


# The measures take weights `[R, N]`, how often each of N templates counts; the templates' counts
# `[N, K]` of `tally`; and their intents `[N]`. They give `[R]`.
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def macro_f1(weights: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean F1 over the intents that have a template with a weight, each counting alike.

    Every utterance of a template counts, so one with many weighs more within its intent.

    scikit-learn's `f1_score` gives the same, but of one resample at a time: 6 ms for each, where
    all 2,000 take 40 ms here.
    """
    own = np.eye(counts.shape[1])[labels] * counts.sum(1, keepdims=True)
    right = np.eye(counts.shape[1])[labels] * counts
    actual, predicted, hit = weights @ own, weights @ counts, weights @ right
    f1 = 2 * hit / np.maximum(actual + predicted, 1)
    return f1.sum(1) / (actual > 0).sum(1)


def accuracy(weights: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of the utterances that is right."""
    right = counts[np.arange(len(labels)), labels]
    return (weights @ right) / (weights @ counts.sum(1))


def by_template(weights: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean over the templates of the share that is right: every template counts alike."""
    right = counts[np.arange(len(labels)), labels] / counts.sum(1)
    return (weights @ right) / weights.sum(1)


MEASURES: Mapping[str, Measure] = {
    "macro_f1": macro_f1,
    "by_template": by_template,
    "accuracy": accuracy,
}


def scores(counts: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All measures of the counts of the templates as they are; arguments as those of `Measure`."""
    once = np.ones((1, len(labels)))
    return {
        name: round(float(measure(once, counts, labels)[0]), 4)
        for name, measure in MEASURES.items()
    }


def differences(
    counts: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    pairs: Sequence[tuple[str, str | None]],
) -> list[dict[str, Any]]:
    """By how much an arm is ahead of another, with an interval over the templates.

    In each resample templates are drawn anew, of all intents together, and both arms are scored on
    the same ones. The score of an arm is the mean over its seeds. An interval says what other
    templates would change; other seeds and other training sets are not in it.

    Args:
        counts: by arm, for each seed `[N, K]`: what became of the N templates that were tested.
        labels: `[N]`, the templates' intents.
        pairs: arm and the other one, or None for the arm's own score.

    Returns:
        A row for each pair and measure: `arm, than, measure, mean, low, high`.
    """
    rows = []
    for arm, than in pairs:
        for name, measure in MEASURES.items():

            def mean_score(weights: np.ndarray, of: str, measure: Measure = measure) -> np.ndarray:
                return np.mean([measure(weights, seed, labels) for seed in counts[of]], axis=0)

            interval = bootstrap(
                lambda w: mean_score(w, arm) - (mean_score(w, than) if than is not None else 0),  # noqa: B023
                len(labels),
            )
            rows.append({"arm": arm, "than": than, "measure": name, **interval._asdict()})
    return rows
