"""Strings that are answered by strings: after the input come steps at which the answer is said."""

from __future__ import annotations

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import LengthColumn, Places, PRNGKey, TargetTokens, Tokens
from longlag.core.batch import Batch
from longlag.tasks.strings import StringTask
from longlag.tasks.task import Floor

__all__ = ["END", "EndedTask", "OutputTask", "SymbolTask", "append_end", "pick"]

END = 2  # the answer after the last bit of an `EndedTask`


class OutputTask(StringTask):
    """A task whose answer is a string: after the input come output steps, at which it is said.

    The input of an output step is one more token, the last one. Sequences are padded to the longest
    under a false mask.
    """

    @property
    def time_steps(self) -> int:
        """The longest string and its output steps."""
        return self.max_length + self.output_length(self.max_length)

    def output_length(self, length: Any) -> Any:
        """How many output steps come after a string, from an integer or an array of them."""
        return length

    @abc.abstractmethod
    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Draws strings of these lengths, and what is to be said.

        Args:
            key: a typed key.
            lengths: `[B, 1]` int32.

        Returns:
            Tokens, int32, for max_length places or more, and answers for as many as it has output
            steps; those beyond the length of a row may be anything.
        """

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the output steps."""
        of_string, of_lengths = jax.random.split(key)
        lengths = self.lengths(of_lengths, batch_size)
        tokens, answers = self.draw(of_string, lengths)
        beyond = self.time_steps - self.max_length
        tokens = jnp.pad(tokens[:, : self.max_length], ((0, 0), (0, beyond)))
        place = jnp.arange(self.time_steps, dtype=jnp.int32)[None] - lengths
        mask = place < self.output_length(lengths)
        output = mask & (place >= 0)
        return Batch(
            inputs=jnp.where(output, self.in_features - 1, jnp.where(mask, tokens, 0)),
            targets=jnp.where(output, pick(answers, place), 0),
            weights=output.astype(jnp.float32),
            scored=output,
            mask=mask,
        )


class SymbolTask(OutputTask):
    """Strings of uniform symbols, answered by strings of the same symbols."""

    symbols: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.symbols >= 2, "symbols >= 2")

    @property
    def in_features(self) -> int:
        """Symbols, output token."""
        return self.symbols + 1

    @property
    def out_features(self) -> int:
        """Symbols."""
        return self.symbols

    @abc.abstractmethod
    def answers(self, symbols: Tokens, lengths: LengthColumn, places: Places) -> TargetTokens:
        """What is said at each place of the output, `[B, places]` int32.

        Args:
            symbols: `[B, T]` int32, of which the first are the string.
            lengths: `[B, 1]` int32.
            places: `[1, places]` int32: 0, 1, ..., as many as the longest string has output steps.
        """

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Uniform symbols, and what the task makes of them."""
        # More than there are places: the frozen data of Reverse have a symbol for every step.
        shape = (len(lengths), self.time_steps)
        symbols = jax.random.randint(key, shape, 0, self.symbols, jnp.int32)
        places = jnp.arange(self.output_length(self.max_length), dtype=jnp.int32)[None]
        return symbols, self.answers(symbols, lengths, places)

    def floor(self) -> Floor:
        """Every symbol alike."""
        return Floor(math.log(self.symbols), 1 / self.symbols, "any symbol")


class EndedTask(OutputTask):
    """Answers of any number of bits, then END, then zeros up to the last output step.

    The loss counts every output step and accuracy those up to END, as in the code of Delétang et
    al. (2023): the zeros are easy.
    """

    @property
    def out_features(self) -> int:
        """Bits and END."""
        return 3

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the output steps, scored up to END."""
        batch = super().sample(key, batch_size)
        steps = jnp.arange(self.time_steps, dtype=jnp.int32)[None]
        end = jax.lax.argmax(batch.targets == END, 1, jnp.int32)[:, None]
        return batch.replace(scored=batch.scored & (steps <= end))  # type: ignore[attr-defined]

    @abc.abstractmethod
    def chances(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """How likely the answer has a one there, and has a bit there, for each output step."""

    def floor(self) -> Floor:
        """The likeliest answer by the length and the place."""
        cases = []
        for length in range(self.min_length, self.max_length + 1):
            one, more = self.chances(length)
            reached = np.append(1.0, more[:-1])
            cases.append(np.stack([more - one, one, reached - more], axis=1))
        scored = np.concatenate(cases)
        after = np.maximum(1 - scored.sum(axis=1), 0)
        loss = Floor.of_chances(scored + np.outer(after, [1, 0, 0]), "").loss
        accuracy = scored.max(axis=1).sum() / scored.sum()
        return Floor(loss, float(accuracy), "likeliest at each place")


def append_end(bits: jax.Array, counts: jax.Array) -> jax.Array:
    """The first `counts [B, 1]` bits of each row `[B, N]`, then END, then zeros."""
    places = jnp.arange(bits.shape[1], dtype=jnp.int32)[None]
    return jnp.where(places < counts, bits, jnp.where(places == counts, END, 0))


def pick(rows: jax.Array, places: jax.Array) -> jax.Array:
    """What each row `[B, N]` has at its places `[B, K]`; a place outside gives the nearest."""
    return jnp.take_along_axis(rows, places, axis=1, mode="clip")
