"""The configuration of a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, cast

import optax

from longlag.core.chunks import check_chunk
from longlag.core.ops import Params
from longlag.core.spec import Spec, choose, refuse_idle
from longlag.core.weight_decay import by_name, decay_mask
from longlag.models.model import Model
from longlag.training.optax_by_name import (
    Options,
    check_optimizer,
    freeze,
    optimizer,
    optimizers,
    schedule,
    schedule_needs_end,
    takes_weight_decay,
)

__all__ = ["Training"]

# More steps than an int32 counts are none's.
UNLIMITED = 2**31 - 1


class Training(Spec):
    """How a model is trained.

    Attributes:
        steps: optimiser steps at most, where there is no budget.
        budget: operations of a seed's training at most, such as 2e12. A seed ends at the last step
            that they pay for (`longlag.training.curriculum`). It takes the place of `steps`; 0
            means none.
        curriculum: the lag of the first batches. Each dispatch draws its lag, up to a frontier; the
            frontier doubles when validation at it reaches `solved`, and ends at the task's own lag
            (`longlag.training.curriculum`). 0: every batch has the task's own lag.
        batch_size: sequences per step.
        learning_rate: peak rate.
        optimizer: the name of an optimiser of `optax` or `optax.contrib`, such as "adam", "adamw",
            "lion", "sgd" (here with momentum 0.9) or "rmsprop" (with decay 0.9). One whose updates
            are not proportional to the learning rate is refused.
        optimizer_options: its own keywords, a mapping such as `{"b1": 0.95}`; kept as pairs.
        schedule: "constant", "cosine" to zero over `steps`, or the name of a schedule of `optax`.
        schedule_options: the keywords of a schedule of optax. Rates are in units of
            `learning_rate`; `longlag.training.optax_by_name.schedule` says what may be left out.
        warmup: steps over which the rate rises from zero.
        weight_decay: of an optimiser that has one (adamw, lion, lamb); with another it is refused.
            The model says which parameters it shrinks (`Model.decays`).
        clip: gradients are scaled down to this global norm; 0 means never.
        dispatch: optimiser steps between two looks at the run; evaluations and checkpoints fall on
            these borders.
        eval_size: sequences of the frozen evaluation set.
        solved: validation accuracy from which a task counts as solved; three evaluations in a row
            must reach it, and the first of them is the time of solving.
        stop_when_solved: end a seed there.
        time_chunk: steps of time per chunk of a training sequence, "sqrt" for near √T, or 0: the
            whole sequence at once. In chunks, only the states at their borders are kept for the
            gradient and the rest is computed again, so that memory grows with √T.
        truncate: no gradient flows from one chunk of time into the one before (truncated
            backpropagation through time).
        carry: a step begins with the state that the step before ended with, and no gradient flows
            into that one: truncated backpropagation over a text whose batches follow each other
            (`Task.at_step`).
        seeds_as: "map" (one after another), "vmap" (side by side in one program), or "auto": "map"
            on CPU, where vmap gains nothing (benchmarks/README.md, seeds), "vmap" elsewhere.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.1
    clip: float = 1.0
    dispatch: int = 50
    eval_size: int = 512
    solved: float = 0.99
    stop_when_solved: bool = True
    time_chunk: int | Literal["sqrt"] = 0
    truncate: bool = False
    carry: bool = False
    seeds_as: Literal["auto", "map", "vmap"] = "auto"
    budget: float = 0.0
    curriculum: int = 0
    optimizer_options: Options = ()
    schedule_options: Options = ()

    def __post_init__(self) -> None:
        for name in ("optimizer_options", "schedule_options"):
            object.__setattr__(self, name, freeze(getattr(self, name), name))
        choose(self.optimizer, optimizers(), "optimizer")
        choose(self.seeds_as, ("auto", "map", "vmap"), "seeds_as")
        if self.time_chunk != 0:
            check_chunk("time_chunk", self.time_chunk)
        elif self.truncate:
            raise ValueError("truncate: expected a time_chunk to truncate at, got time_chunk 0")
        if self.carry and self.time_chunk != 0:
            raise ValueError(f"carry: expected time_chunk 0 beside it, got {self.time_chunk}")
        for name in ("steps", "batch_size", "dispatch", "eval_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "clip", "budget", "curriculum"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not takes_weight_decay(self.optimizer):
            why = f"with optimizer {self.optimizer!r}"
            refuse_idle("weight_decay", self.weight_decay, Training.weight_decay, why)
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected more than 0, got {self.learning_rate}")
        if not 0 < self.solved <= 1:
            raise ValueError(f"solved: expected an accuracy in (0, 1], got {self.solved}")
        if self.budget:
            refuse_idle("steps", self.steps, Training.steps, f"with budget {self.budget:g}")
        if self.budget and self.depends_on_steps:
            raise ValueError(
                f"budget: expected 0 with schedule {self.schedule!r}, whose rates depend on the "
                f"number of steps; got {self.budget:g}"
            )
        if self.curriculum and self.carry:
            raise ValueError(f"curriculum: expected 0 with carry, got {self.curriculum}")
        scheduled = callable(self.rates)  # refuses an impossible schedule
        options = cast(Any, self.optimizer_options)
        check_optimizer(self.optimizer, options, self.weight_decay, scheduled)

    @property
    def as_compiled(self) -> Training:
        """What of it a program depends on.

        The learning rate is data (`TrainState.rate`), and so is where a seed ends. So all rates,
        budgets and, unless a schedule depends on them, numbers of steps share a program.
        """
        steps = self.steps if self.depends_on_steps else Training.steps
        return dataclasses.replace(self, learning_rate=1.0, steps=steps, budget=0.0, curriculum=0)

    @property
    def last_step(self) -> int:
        """The step at which a seed ends, unless its budget ends before."""
        return UNLIMITED if self.budget else self.steps

    @property
    def depends_on_steps(self) -> bool:
        """Whether the learning rate of a step depends on how many steps are taken in all."""
        return schedule_needs_end(self.schedule, cast(Any, self.schedule_options))

    @property
    def rates(self) -> float | Callable[[Any], Any]:
        """The learning rate: a number, or a function of the step."""
        options = cast(Any, self.schedule_options)
        return schedule(self.schedule, options, self.learning_rate, self.steps, self.warmup)

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The optimiser, for a model whose kernels and embeddings decay."""
        return self.transformation_of(by_name)

    def transformation_of(self, decays: Callable[[Params], Any]) -> optax.GradientTransformation:
        """The optimiser, as optax has it. Its updates are proportional to the learning rate.

        Args:
            decays: maps parameters to a tree of bools: which ones weight decay shrinks.
        """
        chosen = optimizer(
            self.optimizer,
            cast(Any, self.optimizer_options),
            self.rates,
            self.weight_decay,
            decays,
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), chosen) if self.clip else chosen

    def transformation_for(self, model: Model) -> optax.GradientTransformation:
        """The optimiser of a model, which says which of its parameters decay."""
        return self.transformation_of(lambda params: decay_mask(model, params))
