"""What a trained intent model says to a question, and what it attended to (experiments.intents)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.bar import Bar
from rich.table import Table

from longlag.command_line import console
from longlag.data.intents import UNKNOWN, tokenize
from longlag.disk import writing
from longlag.models import SequenceModel
from longlag.runs import Loaded

__all__ = ["answer", "attended", "decide", "picture", "show"]


@functools.partial(jax.jit, static_argnums=0)
def _at_last_word(model: SequenceModel, params: Any, tokens: Any, mask: Any) -> jax.Array:
    answers = model.apply(params, tokens, mask=mask)[1]
    return jax.nn.softmax(answers[jnp.arange(len(mask)), mask.sum(1) - 1])


def decide(model: SequenceModel, params: Any, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Probabilities of the intents, read off at the last word.

    Args:
        model: the model.
        params: of one seed.
        tokens: `[N, T]` int32.
        mask: `[N, T]` bool.

    Returns:
        `[N, classes]`, rows sum to one.
    """
    parts = range(0, len(tokens), 2048)
    found = [_at_last_word(model, params, tokens[i : i + 2048], mask[i : i + 2048]) for i in parts]
    return np.concatenate(jax.device_get(found))


def _encode(loaded: Loaded, text: str) -> tuple[np.ndarray, np.ndarray]:
    task: Any = loaded.experiment.task
    return task.corpus.vocabulary.encode([text], max(len(tokenize(text)), task.length))


def answer(loaded: Loaded, text: str) -> np.ndarray:
    """Probabilities of the intents for a text, one row per seed: `[S, classes]`."""
    seeds = loaded.experiment.seed_numbers
    return np.concatenate(
        [decide(loaded.model, loaded.of_seed(s), *_encode(loaded, text)) for s in seeds]
    )


def attended(loaded: Loaded, text: str) -> np.ndarray:
    """What attention reads from each word when the last one has been read; mean over the seeds."""
    tokens, mask = map(jnp.asarray, _encode(loaded, text))
    words, read = len(tokenize(text)), []
    for seed in loaded.experiment.seed_numbers:
        seen = loaded.model.probe(loaded.of_seed(seed), tokens, mask=mask)
        weights = next(value for name, value in seen.items() if name.endswith("weights"))
        read.append(np.asarray(weights[0, words - 1, :words]))
    return np.mean(read, axis=0)


def picture(words: Sequence[str], weights: np.ndarray, title: str) -> plt.Figure:  # type: ignore[name-defined]
    """A bar per word."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.6 * len(words), 2.6), layout="constrained")
    axes.bar(range(len(words)), weights, color="#0072B2")
    axes.set_xticks(range(len(words)), words, rotation=30, ha="right")
    axes.set_ylabel("weight")
    axes.set_title(title, fontsize=10)
    return figure


def show(run: Path, loaded: Loaded, question: str) -> None:
    """Prints answer and attention, and leaves the picture in `plots/ask.png` of the run.

    The seeds answer together, by their mean: to pick the best one would take another test set.
    """
    task: Any = loaded.experiment.task
    words, intents = tokenize(question), task.corpus.utterances.intents
    tokens = _encode(loaded, question)[0][0]
    unknown = [word for word, token in zip(words, tokens) if token == UNKNOWN]
    if unknown:
        console.print(f"words never seen in training: {', '.join(unknown)}", highlight=False)
    each = answer(loaded, question)
    chances = each.mean(0)
    arm = f"{loaded.experiment.arm}, mean of {len(each)} seeds"
    console.print(f"{arm}, run {run}", highlight=False, soft_wrap=True)
    for i in np.argsort(-chances)[:3]:
        console.print(f"  {chances[i]:.3f}  {intents[i]}", highlight=False)

    weights = attended(loaded, question)
    bars = Table(title="what it reads at the last word", title_justify="left", box=None)
    for name, justify in (("word", "left"), ("", "left"), ("weight", "right")):
        bars.add_column(name, justify=justify)  # type: ignore[arg-type]
    for word, weight in zip(words, weights):
        bars.add_row(word, Bar(1, 0, float(weight), width=40), f"{weight:.2f}")
    console.print(bars)
    path = run / "plots" / "ask.png"
    figure = picture(words, weights, f"{intents[chances.argmax()]} ({chances.max():.2f})")
    with writing("the picture", path):
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=150)
    plt.close(figure)
    console.print(f"picture {path}", highlight=False, soft_wrap=True)
