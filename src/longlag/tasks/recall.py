"""Multi-query associative recall: look values up by their keys."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, draw_distinct, sketch

__all__ = ["Recall"]

# Exponent of the gaps in the paper's code: p(g) ~ (g + 1)^(POWER - 1), close to 1 / (g + 1).
POWER = 0.01


class Recall(Task):
    """Multi-query associative recall (MQAR): after key-value pairs, give the value of each key.

    D = `pairs` different keys from 1..V/2-1, each with a value from V/2..V-1 that no other key has,
    fill the first 2D steps. Each key comes again once, 2 * gap steps after that block, and its
    value is to be said at that step. Gaps are different numbers from 0..(length - 2D)/2 - 1, drawn
    one after the other with chances that follow a power law, so early returns are common and late
    ones happen. Everything else is filler, token 0, which is no key: random filler, the default of
    the paper's code, repeats live keys without asking. With length=12, pairs=2, vocab=16, where
    filler is written `.`:

        inputs   2 10  3  8  2  .  .  .  .  .  3  .
        targets  .  .  .  . 10  .  .  .  .  .  8  .

    Floor: every value alike, ln(V - V//2) in loss and 1/(V - V//2) in accuracy. Choosing among the
    values of the sequence, without knowing which, reaches 1/D.

    Attributes:
        length: N of the paper, the number of steps.
        pairs: D, how many pairs are to be held at once; the hard part.
        vocab: V, the number of tokens.

    Raises:
        ValueError: if pairs < 1, length is odd or below 4 * pairs, the key space is too small for
            the pairs, or vocab <= length (a rule of the paper's code).

    Reference: Arora, Eyuboglu, et al. (2023), arXiv 2312.04927, with random_non_queries=False.
    """

    length: int = 32
    pairs: int = 4
    vocab: int = 256

    lag_field = "length"

    def __post_init__(self) -> None:
        N, D, V = self.length, self.pairs, self.vocab
        self.require(D >= 1, "pairs >= 1")
        self.require(N % 2 == 0, "an even length")
        self.require(N >= 4 * D, "length >= 4 * pairs")
        self.require(V // 2 > D, "vocab // 2 > pairs (key space too small for the pairs)")
        self.require(V > N, "vocab > length")

    @property
    def time_steps(self) -> int:
        """N, the length."""
        return self.length

    @property
    def in_features(self) -> int:
        """V: filler, keys, values."""
        return self.vocab

    @property
    def out_features(self) -> int:
        """V: values are the upper half, and never is any other token the answer."""
        return self.vocab

    @property
    def weighted_steps(self) -> int:
        """Every key once."""
        return self.pairs

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked where a key comes again."""
        B, N, D, V = batch_size, self.length, self.pairs, self.vocab
        of_keys, of_values, of_gaps = jax.random.split(key, 3)
        keys = 1 + draw_distinct(of_keys, B, V // 2 - 1, D)
        values = V // 2 + draw_distinct(of_values, B, V - V // 2, D)
        queries = 2 * D + 2 * power_law_gaps(of_gaps, B, N // 2 - D, D)
        pairs = jnp.stack([keys, values], axis=2).reshape(B, 2 * D)
        filler = jnp.zeros((B, N), jnp.int32)
        inputs = filler.at[:, : 2 * D].set(pairs)
        scored = jnp.put_along_axis(filler, queries, 1, axis=1, inplace=False)
        return Batch(
            inputs=jnp.put_along_axis(inputs, queries, keys, axis=1, inplace=False),
            targets=jnp.put_along_axis(filler, queries, values, axis=1, inplace=False),
            weights=scored.astype(jnp.float32),
            scored=scored.astype(bool),
            mask=None,
        )

    def floor(self) -> Floor:
        """Every value alike."""
        choices = self.vocab - self.vocab // 2
        return Floor(math.log(choices), 1 / choices, "any value")

    def picture(self) -> str:
        """Two pairs in 12 steps."""
        return sketch(Recall(length=12, pairs=2, vocab=16), seed=4, names={0: "."})


def power_law_gaps(key: jax.Array, batch_size: int, size: int, count: int) -> jax.Array:
    """Draws `count` different gaps from `0..size-1`, gap g with weight (g + 1)^(POWER - 1).

    Each draw takes a ticket; the tickets of a drawn gap are withdrawn. Tickets are whole numbers,
    so that the choice is the same on every machine; a top-k of perturbed log-probabilities is
    quicker by some milliseconds but depends on the last bit of a logarithm.

    Returns:
        `[batch_size, count]` int32, in the order drawn.
    """
    tickets = np.rint(2**20 * np.arange(1, size + 1) ** (POWER - 1)).astype(np.int32)
    gaps = jnp.arange(size, dtype=jnp.int32)[None]

    def draw(left: jax.Array, of_draw: jax.Array) -> tuple[jax.Array, jax.Array]:
        ends = jnp.cumsum(left, axis=1, dtype=jnp.int32)
        ticket = jax.random.randint(of_draw, (batch_size, 1), 0, ends[:, -1:], jnp.int32)
        gap = jnp.sum(ends <= ticket, axis=1, dtype=jnp.int32)
        return jnp.where(gaps == gap[:, None], 0, left), gap

    left = jnp.broadcast_to(jnp.asarray(tickets), (batch_size, size))
    return jax.lax.scan(draw, left, jax.random.split(key, count))[1].T
