"""Compression: put a whole string into the state, then say its symbols in any order."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, draw_distinct, sketch

__all__ = ["Compression"]


class Compression(Task):
    """Compression: hold a string over a gap, then give the symbols of its places in random order.

    `items` symbols are drawn uniformly from 0..symbols-1. After `lag` steps of the token `symbols`
    come all the places of the string once, every order alike: place i is the token symbols + 1 + i,
    and the symbol that stands there is to be said at once. With lag=1, symbols=4, items=5, where
    symbols are written as letters, the token of the gap `|`, and places as numbers from 0:

        inputs  d a d b c | 0 3 1 4 2
        targets . . . . . . d b a c d

    Before the gap nothing tells which symbol will be wanted when, so the state at its end has to
    hold all of them, each to be had by its place. In `CopyMemory` they leave in the order in which
    they came, and a queue is enough.

    Floor: every symbol alike, ln(symbols) in loss and 1/symbols in accuracy.

    Attributes:
        lag: steps between the string and the first question; T = lag + 2 * items.
        symbols: how many different symbols there are.
        items: how many symbols are to be held; the hard part.

    Raises:
        ValueError: if lag < 1, symbols < 2 or items < 1.

    Reference: MAD, Poli et al. (2024), arXiv 2403.17844 (vocabulary 16, length 32: symbols=15,
    items=31, lag=1). There the string is decoded by a perceptron from the last step of the model
    alone and an embedding of the place; a task has no say in the model, so here the places come as
    inputs. A recurrence is put to the same question, its state being all that is left of the
    string; an attention may read the string again, and does not compress. MAD's last target, the
    token of the gap, is given away by the input, and its option of noise asks for the noise too,
    since its code returns the inputs in place of the masked targets; both are left out.
    """

    lag: int = 1  # pyright: ignore[reportIncompatibleMethodOverride]  # is Task.lag
    symbols: int = 15
    items: int = 31

    lag_field = "lag"

    def __post_init__(self) -> None:
        self.require(self.lag >= 1, "lag >= 1")
        self.require(self.symbols >= 2, "symbols >= 2")
        self.require(self.items >= 1, "items >= 1")

    @property
    def time_steps(self) -> int:
        """String, gap, places: lag + 2 * items."""
        return self.lag + 2 * self.items

    @property
    def in_features(self) -> int:
        """Symbols, the token of the gap, places."""
        return self.symbols + 1 + self.items

    @property
    def out_features(self) -> int:
        """The symbols."""
        return self.symbols

    @property
    def weighted_steps(self) -> int:
        """Every place once."""
        return self.items

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the places."""
        B, T, items = batch_size, self.time_steps, self.items
        of_string, of_order = jax.random.split(key)
        string = jax.random.randint(of_string, (B, items), 0, self.symbols, jnp.int32)
        places = draw_distinct(of_order, B, items, items)
        gap = jnp.full((B, self.lag), self.symbols, jnp.int32)
        answers = jnp.take_along_axis(string, places, axis=1)
        questions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32) >= T - items, (B, T))
        return Batch(
            inputs=jnp.concatenate([string, gap, self.symbols + 1 + places], axis=1),
            targets=jnp.pad(answers, [(0, 0), (T - items, 0)]),
            weights=questions.astype(jnp.float32),
            scored=questions,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every symbol alike."""
        return Floor(math.log(self.symbols), 1 / self.symbols, "any symbol")

    def picture(self) -> str:
        """Five letters out of four, and their places."""
        letters, places = dict(enumerate("abcd|")), {5 + i: str(i) for i in range(5)}
        return sketch(Compression(symbols=4, items=5), seed=2, names=letters | places)
