"""The contract of a model for training, evaluation and tables."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.array_types import Answers, AnswerSteps, PRNGKey
from longlag.core.batch import Batch
from longlag.core.checks import as_array
from longlag.core.ops import Params
from longlag.core.spec import Spec
from longlag.core.weight_decay import by_name

__all__ = ["Cost", "Model", "check_at"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Parameters, bytes of state and operations of a model.

    Attributes:
        parameters: number of parameters.
        recurrent_bytes: bytes of state of one sequence that do not grow with its length.
        cache_bytes: bytes of cached past of one sequence at the length asked for.
        flops_per_token: operations of one step at that length.
    """

    parameters: int
    recurrent_bytes: int
    cache_bytes: int
    flops_per_token: int

    @classmethod
    def of(cls, params: Any, state: Any, cache: Any, analysis: Any) -> Cost:
        """Counts.

        Args:
            params: of the model; as the others, arrays or their shapes.
            state: of one sequence.
            cache: the part of it that grows with the sequence.
            analysis: `cost_analysis()` of the program of one step.
        """
        growing = tree_bytes(cache)
        return cls(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
            recurrent_bytes=tree_bytes(state) - growing,
            cache_bytes=growing,
            flops_per_token=int(analysis["flops"]),
        )

    @property
    def state_bytes(self) -> int:
        """All bytes of state of one sequence."""
        return self.recurrent_bytes + self.cache_bytes


class Model(Spec, abc.ABC):
    """Parameters and answers to a batch: all that training needs."""

    @abc.abstractmethod
    def init(self, key: PRNGKey) -> Params:
        """Draws parameters."""

    def decays(self, params: Params) -> Any:
        """Which parameters weight decay shrinks: a tree of bools like `params`.

        By default kernels and embeddings, by their names (`core.weight_decay.by_name`). A model
        with parts asks each of them.

        Args:
            params: parameters, or their shapes.
        """
        return by_name(params)

    @abc.abstractmethod
    def answer(
        self,
        params: Params,
        batch: Batch,
        key: PRNGKey | None = None,
        at: AnswerSteps | None = None,
    ) -> Answers:
        """Answers to a batch, as training and evaluation want them.

        Args:
            params: parameters.
            batch: what is read, and, under teacher forcing, what is to be said.
            key: source of dropout while training.
            at: `[B, K]` int32, the steps whose answers are wanted; None: all.

        Returns:
            `[B, K or T, out_features]`.
        """

    @abc.abstractmethod
    def cost(self, length: int) -> Cost:
        """Counts parameters, bytes of state and operations, without computing anything.

        Args:
            length: T, the length at which a cache is counted.
        """


def tree_bytes(tree: Any) -> int:
    """Bytes of all leaves, arrays or their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_at(at: Any, batch: Batch) -> jax.Array | None:
    """The steps whose answers are wanted, as an array; None stays None.

    Raises:
        ValueError: they are no integers `[B, K]`.
    """
    if at is None:
        return None
    at, rows = as_array("at", at, "integers"), len(batch.inputs)
    if at.ndim != 2 or len(at) != rows:
        raise ValueError(f"at: expected integers of shape [{rows}, K], got shape {jnp.shape(at)}")
    return at
