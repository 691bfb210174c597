"""Memorization: facts that stand in no sequence, to be learned once and for all."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, draw_distinct, sketch

__all__ = ["Memorization"]


class Memorization(Task):
    """Memorization: learn values of keys that are fixed and appear in no sequence.

    A key, uniform in 0..facts-1, is followed by a step whose input is one more token, `facts`; its
    value is to be said there. Which value a key has, a permutation of 0..facts-1, is drawn once
    from `map_seed`. With length=10, facts=6, where the token of the value is written `?`:

        inputs  1 ? 0 ? 2 ? 1 ? 5 ?
        targets . 0 . 1 . 4 . 0 . 5

    What is held over time is one key for one step. The rest is a memory of the parameters: a cell
    that fails here has too few of them, or learns too slowly, and lacks no reach. Data to test on
    are of the same map; another `map_seed` is another task, of which nothing can be known.

    Floor: every value alike, ln(facts) in loss and 1/facts in accuracy.

    Attributes:
        length: N, the number of steps, two for each fact that is asked.
        facts: how many keys there are, and as many values.
        map_seed: which map from keys to values.

    Raises:
        ValueError: if length is odd or below 2, facts < 2 or map_seed < 0.

    Reference: MAD, Poli et al. (2024), arXiv 2403.17844 (vocabulary 256, length 32: facts=127).
    There values have tokens of their own, which are never read, and one value more than there are
    keys; its option of noise, which no setting of the paper turns on, is left out.
    """

    length: int = 32
    facts: int = 127
    map_seed: int = 0

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.length >= 2 and self.length % 2 == 0, "an even length >= 2")
        self.require(self.facts >= 2, "facts >= 2")
        self.require(self.map_seed >= 0, "map_seed >= 0")

    @property
    def time_steps(self) -> int:
        """N, the length."""
        return self.length

    @property
    def in_features(self) -> int:
        """Keys, and the token at whose step a value is said."""
        return self.facts + 1

    @property
    def out_features(self) -> int:
        """Values."""
        return self.facts

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at every second step."""
        B, N = batch_size, self.length
        value_of = draw_distinct(jax.random.key(self.map_seed), 1, self.facts, self.facts)[0]
        keys = jax.random.randint(key, (B, N // 2), 0, self.facts, jnp.int32)
        asking = jnp.full_like(keys, self.facts)
        weighted = jnp.broadcast_to(jnp.arange(N, dtype=jnp.int32) % 2 == 1, (B, N))
        return Batch(
            inputs=jnp.stack([keys, asking], axis=2).reshape(B, N),
            targets=jnp.stack([jnp.zeros_like(keys), value_of[keys]], axis=2).reshape(B, N),
            weights=weighted.astype(jnp.float32),
            scored=weighted,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every value alike."""
        return Floor(math.log(self.facts), 1 / self.facts, "any value")

    def picture(self) -> str:
        """Five questions about six facts."""
        return sketch(Memorization(length=10, facts=6), seed=0, names={6: "?"}, answers={})
