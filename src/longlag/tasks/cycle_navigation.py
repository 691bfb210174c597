"""Cycle navigation: say where a walk on a circle ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey, Tokens
from longlag.tasks.strings import PrefixTask, prefix_sums
from longlag.tasks.task import Floor, sketch

__all__ = ["CycleNavigation"]


class CycleNavigation(PrefixTask):
    """Cycle navigation: at the last step of a walk on a circle of M places, give its end.

    Steps are back (token 0), stay (1) and forth (2), all alike, from place 0; the length is uniform
    in min_length..max_length and every sequence is padded to max_length under a false mask. With
    min_length=1, max_length=10, places=5, where `-` is padding:

        inputs   0  0 +1 +1  0 -1 +1 +1  -  -
        targets  .  .  .  .  .  .  .  3  -  -

    It is counting modulo M, where parity counts modulo two: a state of M values, none of which may
    be missed.

    Floor: the likeliest place after so many steps, which is the start as long as the walk is short:
    at lengths 1..40 with five places 1.5936 in loss and 0.2100 in accuracy, where all places alike
    give ln 5 = 1.6094 and the published chance of 0.2.

    Attributes:
        min_length: the shortest walk.
        max_length: the longest walk, T.
        places: M, the size of the circle.

    Raises:
        ValueError: if min_length < 1, max_length < min_length or places < 2.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (five places, lengths 1..40, tested on
    41..500).
    """

    places: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.places >= 2, "places >= 2")

    @property
    def in_features(self) -> int:
        """Back, stay, forth."""
        return 3

    @property
    def out_features(self) -> int:
        """The places."""
        return self.places

    def tokens(self, key: PRNGKey, batch_size: int) -> Tokens:
        """Uniform steps."""
        return jax.random.randint(key, (batch_size, self.max_length), 0, 3, jnp.int32)

    def answers(self, tokens: Tokens) -> Tokens:
        """The place after each step."""
        return prefix_sums(tokens - 1) % self.places

    def floor(self) -> Floor:
        """The likeliest place by the number of steps."""
        chances = [np.eye(self.places)[0]]
        for _ in range(self.max_length):
            chances.append(sum(np.roll(chances[-1], step) for step in (-1, 0, 1)) / 3)
        return Floor.of_chances(np.stack(chances[self.min_length :]), "likeliest place")

    def picture(self) -> str:
        """One walk of at most 10 steps."""
        task = CycleNavigation(min_length=1, max_length=10)
        places = {place: str(place) for place in range(5)}
        return sketch(task, seed=2, names={0: "-1", 1: "0", 2: "+1"}, answers=places)
