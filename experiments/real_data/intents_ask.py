"""A question to a model that has learned from all templates (`--ask` of `intents`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from experiments.real_data.intents_figures import reading
from experiments.real_data.intents_scores import attention_weights, decide
from experiments.real_data.translation_figures import draw_png
from longlag.data.intents import UNKNOWN, tokenize
from longlag.runs import Experiment, Workers, load, sweep
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.system.devices import leave_accelerators
from longlag.tasks import Intents

__all__ = ["answer"]


def answer(question: str, job: Experiment, run: Path, workers: Workers = 0) -> str:
    """Prints what a model says and what it read; it is trained first unless it was.

    The seeds answer together, by their mean: to pick the best one would take a test set.

    Args:
        question: in words.
        job: what is trained, on an `Intents`.
        run: its run folder, where `plots/ask.png` is left.
        workers: of the sweep.

    Returns:
        The name of the likeliest intent.

    Raises:
        ValueError: there is no word in the question, or the model answers NaN.
    """
    words = tokenize(question)
    if not words:
        raise ValueError(f"--ask: expected a question in words, got {question!r}")
    if not (run / "results.json").is_file():
        console.print(f"no finished run in {run}; training one", highlight=False)
        leave_accelerators()
        sweep({run.name: job}, run.parent, workers)
    loaded = load(run)
    task = loaded.experiment.task
    assert isinstance(task, Intents)
    intents = task.corpus.utterances.intents
    tokens, mask = task.corpus.vocabulary.encode([question], max(len(words), task.length))
    unknown = [word for word, token in zip(words, tokens[0]) if token == UNKNOWN]
    if unknown:
        console.out(f"words never seen in training: {', '.join(unknown)}", highlight=False)
    of_seeds = [loaded.of_seed(seed) for seed in loaded.experiment.seed_numbers]
    chances = np.mean([decide(loaded.model, p, tokens, mask)[0] for p in of_seeds], axis=0)
    weights = np.mean(
        [attention_weights(loaded.model, p, tokens, mask)[0] for p in of_seeds], axis=0
    )
    if np.isnan(chances).any():
        raise ValueError(f"--ask: expected a model with finite answers; that of {run} answers NaN")
    arm = f"{loaded.experiment.arm}, mean of {len(of_seeds)} seeds"
    console.print(f"{arm}, run {run}", highlight=False, soft_wrap=True)
    for i in np.argsort(-chances)[:3]:
        console.print(f"  {chances[i]:.3f}  {intents[i]}", highlight=False)
    bars = Table("word", "", "weight", title="what it reads", title_justify="left", box=None)
    for word, weight in zip(words, weights):
        bars.add_row(Text(word), Bar(1, 0, float(weight), width=40), f"{weight:.2f}")
    console.print(bars)
    likeliest = intents[chances.argmax()]
    path = run / "plots" / "ask.png"
    figure = reading([words], [weights[: len(words)]], [f"{likeliest} ({chances.max():.2f})"])
    with writing("the picture", path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(draw_png(figure))
    console.print(f"picture {path}", highlight=False, soft_wrap=True)
    return likeliest
