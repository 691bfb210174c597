"""What a translation is measured by besides its scores: floors, lengths, and where it looked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.real_data.sentence_scores import align, interval
from longlag.runs import Loaded
from longlag.system.optional_packages import needed_for
from longlag.tasks.pairs import Pairs, PairTask

__all__ = ["align_pieces", "floors", "quality_by_length"]

BINS = 5


def align_pieces(
    loaded: Loaded, seed: int, source: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, list[str], list[str]]:
    """Where each piece of a target looked in its source; arguments as those of `align`.

    Returns:
        Weights `[L', S]`, `STOP` included, and what the pieces of target and source are called.
    """
    task: PairTask = loaded.experiment.task  # type: ignore[assignment]
    weights, numbers = align(loaded, seed, source, numbers)
    sides = ((task.pairs.writer, numbers), (task.pairs.reader, source))
    # A space would be seen by nobody.
    names = [
        [coder.name_of(int(n)).replace(" ", "␣") for n in side] for coder, side in sides if coder
    ]
    return weights, names[0], names[1]


def floors(pairs: Pairs, part: str) -> dict[str, list[str]]:
    """What is said without a network: the source as it stands, and what the nearest source got.

    Nearest by the cosine of the counts of 2 to 4 characters within words, weighted by rarity.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    with needed_for("the floors"):
        from sklearn.feature_extraction.text import TfidfVectorizer
    train, sources = ([pairs.sources[i] for i in pairs.rows[name]] for name in ("train", part))
    counted = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    known = counted.fit_transform(train)
    nearest = []
    for at in range(0, len(sources), 256):
        alike = counted.transform(sources[at : at + 256]) @ known.T
        nearest += [int(i) for i in np.asarray(alike.argmax(axis=1)).ravel()]
    return {
        "copy of the source": sources,
        "nearest source of training": [pairs.targets[int(pairs.rows["train"][i])] for i in nearest],
    }


def quality_by_length(
    quality: Mapping[str, np.ndarray], lengths: np.ndarray
) -> list[dict[str, Any]]:
    """Quality against the length of the source: a row for each arm and bin of about equal counts.

    Args:
        quality: by arm, `[N]`.
        lengths: `[N]`, of the sources.
    """
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BINS + 1)).astype(int))
    edges[-1] += 1
    rows = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        there = (lengths >= low) & (lengths < high)
        for arm, values in quality.items():
            rows.append(
                {"arm": arm, "from": low, "to": high - 1, "sources": int(there.sum())}
                | interval(values[there])._asdict()
            )
    return rows
