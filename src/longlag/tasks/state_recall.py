"""State recall: track a state, then look up the value of the key that it selects."""

from __future__ import annotations

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.core.spec import choose
from longlag.tasks.groups import Group, multiplication_table, prefix_products
from longlag.tasks.strings import StringTask
from longlag.tasks.task import Floor, draw_distinct, sketch

__all__ = ["StateRecall"]


class StateRecall(StringTask):
    """State recall: after pairs and a word, give the value whose key the word selects.

    All D = `pairs` keys come once, in any order, each with a value that no other key has, out of
    `values`. Then comes a word of the group, uniform in its letters and in its length,
    min_length..max_length, whose product is the state; then the query. State g selects key number
    g mod D, whose value is the answer. Tokens are the values, the keys, the letters (numbered as in
    `longlag.tasks.groups`) and the query, in this order; every sequence is padded to the longest
    under a false mask. With min_length=1, max_length=4, group="z5", pairs=5, values=10, where keys
    are written as capitals, A first, and `-` is padding:

        inputs   A  9  C  2  E  4  B  7  D  3 +4 +4 +3 +0  ?
        targets  .  .  .  .  .  .  .  .  .  .  .  .  .  .  7

    It asks for two things at once which `GroupWord` and `Recall` ask for one by one: a state that
    changes with every letter, and a memory by content that outlasts them. What the query needs is
    written nowhere in the sequence.

    Floor: every value alike, ln(values) in loss and 1/values in accuracy. Two more floors are rows
    of the table (`floors`): who knows the state but cannot look up is left with the D values of the
    sequence, 1/D; who can look up but does not know the state, with the key that most states
    select, 1/min(D, |G|) where the smaller number divides |G|.

    Attributes:
        min_length: the shortest word.
        max_length: the longest word; T = 2 * pairs + max_length + 1.
        group: cyclic (z5, z60), symmetric (s3, s5), alternating (a5), or the product a4xz5.
        pairs: D. With fewer than |G|, several states select one key; with more, the keys beyond are
            never asked for.
        values: how many different values there are.

    Raises:
        ValueError: if min_length < 1, max_length < min_length, the group is none of these,
            pairs < 2 or values < pairs.

    Reference: ours; FactWorld composes state and recall too.
    """

    max_length: int = 16
    group: Group = "z5"
    pairs: int = 5
    values: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.group, get_args(Group), "StateRecall.group")
        self.require(self.pairs >= 2, "pairs >= 2")
        self.require(self.values >= self.pairs, "values >= pairs")

    @property
    def time_steps(self) -> int:
        """Pairs, word, query: 2 * pairs + max_length + 1."""
        return 2 * self.pairs + self.max_length + 1

    @property
    def in_features(self) -> int:
        """Values, keys, letters, query."""
        return self.values + self.pairs + len(multiplication_table(self.group)) + 1

    @property
    def out_features(self) -> int:
        """Values."""
        return self.values

    @property
    def weighted_steps(self) -> int:
        """The query."""
        return 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the query."""
        B, D, V = batch_size, self.pairs, self.values
        of_order, of_values, of_word, of_lengths = jax.random.split(key, 4)
        order = draw_distinct(of_order, B, D, D)
        values = draw_distinct(of_values, B, V, D)  # by the number of their key
        pairs = jnp.stack([V + order, jnp.take_along_axis(values, order, axis=1)], axis=2)

        size = len(multiplication_table(self.group))
        word = jax.random.randint(of_word, (B, self.max_length + 1), 0, size, jnp.int32)
        lengths = self.lengths(of_lengths, B)
        states = jnp.take_along_axis(prefix_products(self.group, word), lengths - 1, axis=1)
        answer = jnp.take_along_axis(values, states % D, axis=1)

        steps = jnp.arange(self.time_steps, dtype=jnp.int32)[None]
        mask, query = steps <= 2 * D + lengths, steps == 2 * D + lengths
        stream = jnp.concatenate([pairs.reshape(B, 2 * D), V + D + word], axis=1)
        stream = jnp.where(query, V + D + size, stream)
        return Batch(
            inputs=jnp.where(mask, stream, 0),
            targets=jnp.where(query, answer, 0),
            weights=query.astype(jnp.float32),
            scored=query,
            mask=mask,
        )

    def floor(self) -> Floor:
        """Every value alike."""
        return Floor(math.log(self.values), 1 / self.values, "any value")

    def floors(self) -> tuple[Floor, ...]:
        """Every value alike; the state without the lookup; the lookup without the state."""
        states = len(multiplication_table(self.group))
        selected = np.bincount(np.arange(states) % self.pairs) / states
        return (
            self.floor(),
            Floor(math.log(self.pairs), 1 / self.pairs, "state, no lookup"),
            Floor.of_chances(selected[None], "lookup, no state"),
        )

    def picture(self) -> str:
        """Five pairs of ten values, at most four letters of z5."""
        names = dict(enumerate("ABCDE", 10)) | {15 + i: f"+{i}" for i in range(5)} | {20: "?"}
        return sketch(StateRecall(max_length=4, values=10), seed=0, names=names)
