"""What a trained model says for every source of a part, and how good that is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bootstrap import Interval, bootstrap
from longlag.data.coders import STOP
from longlag.runs import Loaded
from longlag.search import generate
from longlag.seq2seq import Seq2Seq
from longlag.tasks.pairs import Pairs, PairTask

__all__ = [
    "Said",
    "aligned",
    "by_length",
    "difference",
    "floors",
    "interval",
    "say",
    "score",
    "tell",
]

ROWS = 64  # sources that are searched for side by side
BINS = 5
# Wu et al. 2016, arXiv 1609.08144, chose by 0.6 to 0.7; without it a beam prefers what is short.
LENGTH_PENALTY = 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
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


def score(texts: Sequence[str], references: Sequence[str]) -> Said:
    """Scores texts by sacrebleu: chrF2, and BLEU by its own tokens ("13a").

    Raises:
        ImportError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise ImportError('scores need more packages: pip install "longlag[data]"') from error
    chrf, pairs = CHRF(), [*zip(texts, references, strict=True)]
    return Said(
        texts=tuple(texts),
        chrf=np.array([chrf.sentence_score(text, [right]).score for text, right in pairs]),
        exact=np.array([100.0 * (text == right) for text, right in pairs]),
        corpus_chrf=chrf.corpus_score([*texts], [[*references]]).score,
        corpus_bleu=BLEU(force=True).corpus_score([*texts], [[*references]]).score,
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("steps", "beams"))
def _search(
    model: Seq2Seq, params: Any, inputs: jax.Array, mask: jax.Array, *, steps: int, beams: int
) -> jax.Array:
    found = generate(
        model,
        params,
        inputs,
        stop=STOP,
        max_length=steps,
        mask=mask,
        beams=beams,
        length_penalty=LENGTH_PENALTY if beams > 1 else 0.0,
    )
    return found.tokens[:, 0]


def say(
    model: Seq2Seq, params: Any, inputs: np.ndarray, mask: np.ndarray, steps: int, beams: int
) -> np.ndarray:
    """The best target that a search finds for each source.

    Args:
        model: the model.
        params: of one seed.
        inputs: `[N, S]` int32.
        mask: `[N, S]` bool.
        steps: L, of the longest target.
        beams: 1 is greedy search.

    Returns:
        `[N, L]` int32, `STOP` from the end of each on.
    """
    found = []
    for at in range(0, len(inputs), ROWS):
        rows = np.arange(at, at + ROWS) % len(inputs)  # the last part is filled up: one shape
        found.append(_search(model, params, inputs[rows], mask[rows], steps=steps, beams=beams))
    return np.concatenate(jax.device_get(found))[: len(inputs)]


def tell(numbers: np.ndarray, pairs: Pairs) -> list[str]:
    """The texts of `say`."""
    return [pairs.writer.decode(row[: _end(row)].tolist()) for row in numbers]


def _end(row: np.ndarray) -> int:
    return int((row != STOP).sum())


def aligned(
    loaded: Loaded, seed: int, source: np.ndarray, said: np.ndarray
) -> tuple[np.ndarray, list[str], list[str]]:
    """Where each piece of a target looked in its source.

    Args:
        loaded: a run with attention.
        seed: whose parameters.
        source: `[S]` int32, without padding.
        said: `[L]` int32, `STOP` from its end on.

    Returns:
        Weights `[L', S]`, `STOP` included, and what the pieces of target and source are called.
    """
    task: PairTask = loaded.experiment.task  # type: ignore[assignment]
    said = said[: _end(said) + 1]
    weights = jax.jit(loaded.model.alignment)(
        loaded.of_seed(seed), jnp.asarray(source)[None], jnp.asarray(said)[None]
    )
    sides = ((task.pairs.writer, said), (task.pairs.reader, source))
    # A space would be seen by nobody.
    names = [[coder.named(int(n)).replace(" ", "␣") for n in side] for coder, side in sides]
    return np.asarray(weights[0]), names[0], names[1]


def floors(pairs: Pairs, part: str) -> dict[str, list[str]]:
    """What is said without a network: the source as it stands, and what the nearest source got.

    Nearest by the cosine of the counts of 2 to 4 characters within words, weighted by rarity.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise ImportError('the floors need more packages: pip install "longlag[data]"') from error
    train, asked = ([pairs.sources[i] for i in pairs.rows[name]] for name in ("train", part))
    counted = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    known = counted.fit_transform(train)
    nearest = []
    for at in range(0, len(asked), 256):
        alike = counted.transform(asked[at : at + 256]) @ known.T
        nearest += [int(i) for i in np.asarray(alike.argmax(axis=1)).ravel()]
    return {
        "copy of the source": asked,
        "nearest source of training": [pairs.targets[int(pairs.rows["train"][i])] for i in nearest],
    }


def interval(values: np.ndarray) -> Interval:
    """The mean of some sentences' scores, and its 95% bootstrap interval over the sentences."""
    return bootstrap(lambda weights: weights @ values / len(values), len(values), digits=2)


def difference(quality: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How much better each arm is than each before it, sentence by sentence.

    Args:
        quality: by arm, `[N]`: each sentence's score, the mean of the seeds.
    """
    arms = [*quality]
    found = []
    for i, arm in enumerate(arms):
        for other in arms[:i]:
            apart = interval(quality[arm] - quality[other])
            found.append({"arm": arm, "than": other, **apart._asdict()})
    return found


def by_length(quality: Mapping[str, np.ndarray], lengths: np.ndarray) -> list[dict[str, Any]]:
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
