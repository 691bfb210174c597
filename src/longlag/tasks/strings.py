"""Strings of varying length under a mask: what the tasks of formal languages share."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Self

import jax
import jax.numpy as jnp

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.core.batch import Batch
from longlag.tasks.task import Task

__all__ = ["AnswerTask", "BitTask", "PrefixTask", "StringTask", "prefix_sums"]


class StringTask(Task):
    """A task whose strings have a length that is uniform in min_length..max_length.

    `at_lag` gives a single length, to test beyond the training lengths.

    Class attributes:
        shortest: the least length of which something can be asked.
    """

    min_length: int = 1
    max_length: int = 40

    lag_field = "max_length"
    shortest: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.require(self.min_length >= self.shortest, f"min_length >= {self.shortest}")
        self.require(self.max_length >= self.min_length, "max_length >= min_length")

    def lengths(self, key: PRNGKey, batch_size: int) -> LengthColumn:
        """Draws a length for each string, `[B, 1]` int32."""
        shortest, longest = self.min_length, self.max_length
        return jax.random.randint(key, (batch_size, 1), shortest, longest + 1, jnp.int32)

    def at_lag(self, lag: int) -> Self:
        """Strings of exactly `lag` tokens; for the present lag the task itself, all lengths."""
        if lag == self.max_length:
            return self
        return dataclasses.replace(self, min_length=lag, max_length=lag)


class AnswerTask(StringTask):
    """A task with one answer, asked at the last token of a string.

    Strings are padded to max_length under a false mask.
    """

    @property
    def time_steps(self) -> int:
        """T, the longest string."""
        return self.max_length

    @property
    def weighted_steps(self) -> int | None:
        """The last token."""
        return 1

    @abc.abstractmethod
    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Draws strings of these lengths, and what is right.

        Args:
            key: a typed key.
            lengths: `[B, 1]` int32.

        Returns:
            Tokens `[B, T]` int32, whatever they are beyond the length, and answers, `[B, 1]` or one
            for each token.
        """

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last token or at every one."""
        of_tokens, of_lengths = jax.random.split(key)
        lengths = self.lengths(of_lengths, batch_size)
        steps = jnp.arange(self.max_length, dtype=jnp.int32)[None]
        mask, last = steps < lengths, steps == lengths - 1
        tokens, answers = self.draw(of_tokens, lengths)
        of_token = (batch_size, self.max_length)
        self._require_shape("tokens", tokens, of_token)
        self._require_shape("answers", answers, (batch_size, 1), of_token)
        weighted = mask if self.weighted_steps is None else last
        return Batch(
            inputs=jnp.where(mask, tokens, 0),
            targets=jnp.where(weighted, answers, 0),
            weights=weighted.astype(jnp.float32),
            scored=weighted,
            mask=mask,
        )

    def _require_shape(self, what: str, drawn: jax.Array, *shapes: tuple[int, ...]) -> None:
        """Else what broadcasts, or does not, would say so in words of another matter."""
        if jnp.shape(drawn) not in shapes:
            raise ValueError(
                f"{what} of {self}: expected the shape {' or '.join(map(str, shapes))}, got "
                f"{jnp.shape(drawn)}"
            )


class PrefixTask(AnswerTask):
    """A task whose answer exists after every token, as a function of the string so far.

    Class attributes:
        dense: asked at every token; otherwise at the last one only.
    """

    dense: ClassVar[bool] = False

    @property
    def weighted_steps(self) -> int | None:
        """The last token, or as many as there are."""
        return None if self.dense else 1

    @abc.abstractmethod
    def tokens(self, key: PRNGKey, batch_size: int) -> Tokens:
        """Draws strings of the full length, `[B, T]` int32."""

    @abc.abstractmethod
    def answers(self, tokens: Tokens) -> Tokens:
        """What is right after each token, `[B, T]` int32."""

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Strings of the full length, of which every prefix has its answer."""
        tokens = self.tokens(key, len(lengths))
        return tokens, self.answers(tokens)


class BitTask(PrefixTask):
    """A task of strings of uniform bits, with two answers."""

    @property
    def in_features(self) -> int:
        """The bits 0 and 1."""
        return 2

    @property
    def out_features(self) -> int:
        """The two answers."""
        return 2

    def tokens(self, key: PRNGKey, batch_size: int) -> Tokens:
        """Uniform bits."""
        return jax.random.randint(key, (batch_size, self.max_length), 0, 2, jnp.int32)


def prefix_sums(numbers: jax.Array) -> jax.Array:
    """Sums of each row so far, `[B, T]`; XLA:CPU makes of jnp.cumsum a window of T, T² in time."""
    return jax.lax.associative_scan(jnp.add, numbers, axis=1)
