"""Trained runs, loaded for prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from longlag.core.array_types import Inputs, Logits, Mask
from longlag.core.ops import Params
from longlag.models.sequence import SequenceModel
from longlag.runs.checkpoint import restore
from longlag.runs.experiment import Experiment
from longlag.runs.folder import RunFolder
from longlag.training.curriculum import lags_of
from longlag.training.step import init_states

__all__ = ["Loaded", "load"]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A trained run, loaded for prediction.

    Attributes:
        experiment: what was run.
        model: its model (`longlag.Model`), of the class that its architecture builds.
        params: parameters with a leading axis of `experiment.labels`: of seeds or, with a grid of
            learning rates, of pairs.
        step: the step of the checkpoint.
        messages: newer checkpoints that were damaged and passed over.
    """

    experiment: Experiment
    model: Any
    params: Params
    step: int
    messages: tuple[str, ...]

    def of_seed(self, seed: int | None = None, rate: float | None = None) -> Params:
        """The parameters of one seed, at one rate of a grid. None means the first."""
        seeds = self.experiment.seed_numbers
        seed = seeds[0] if seed is None else seed
        if seed not in seeds:
            raise ValueError(f"seed: expected {seeds[0]} .. {seeds[-1]}, got {seed}")
        rates = self.experiment.rates
        if rate is not None and rate not in rates:
            expected = f"one of {rates}" if rates else "none, since the run has no grid of rates"
            raise ValueError(f"rate: expected {expected}; got {rate}")
        at = 0 if rate is None else rates.index(rate)
        at = at * len(seeds) + seeds.index(seed)
        return jax.tree.map(lambda leaf: leaf[at], self.params)

    def predict(
        self,
        inputs: Inputs,
        *,
        mask: Mask | None = None,
        seed: int | None = None,
        rate: float | None = None,
    ) -> Logits:
        """Predicts the answers to a batch of sequences.

        Args:
            inputs: tokens `[B, T]` or features `[B, T, D]`.
            mask: `[B, T]` bool or None.
            seed: whose parameters; None: the first's.
            rate: of a grid, at which they were trained; None: the first.

        Returns:
            `[B, T, K]`: logits of the classes, or values.

        Raises:
            ValueError: inputs or a mask that do not fit, or the run is of an encoder and a decoder,
                which answer word by word.
        """
        if not isinstance(self.model, SequenceModel):
            raise ValueError(
                f"predict: expected a model of one sequence, got a {type(self.model).__name__}; "
                "longlag.generate searches for its answers"
            )
        # The model of a run stays one object, so sequences of one shape are compiled for once.
        apply = jax.jit(self.model.apply)
        inputs, mask, _ = self.model.embedding.check(inputs, mask)
        return apply(self.of_seed(seed, rate), inputs, mask=mask)[1]


def load(run: str | Path) -> Loaded:
    """Loads a run for prediction or further study.

    Args:
        run: the run folder.

    Raises:
        ValueError: it is not a run folder, or its checkpoints are damaged.
    """
    folder = RunFolder.open(Path(run))
    experiment = Experiment.from_config(folder.config, folder.path)
    model, training = experiment.model, experiment.training
    lags = len(lags_of(experiment.task, training))
    count = len(experiment.labels)
    like = jax.eval_shape(lambda: init_states(model, training, count, lags=lags))
    restored = restore(folder.checkpoints, like)
    return Loaded(experiment, model, restored.tree.params, restored.step, restored.skipped)
