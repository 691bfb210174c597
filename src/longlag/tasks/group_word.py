"""Word problems of groups: say what the letters so far multiply to."""

from __future__ import annotations

import math
from typing import get_args

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, Tokens
from longlag.core.spec import choose
from longlag.tasks.groups import Group, multiplication_table, prefix_products
from longlag.tasks.strings import PrefixTask
from longlag.tasks.task import Floor, sketch

__all__ = ["GroupWord"]


class GroupWord(PrefixTask):
    """Word problem of a group: give the product of the letters so far, at every step.

    A letter is any element of the group, all alike; the length is uniform in
    min_length..max_length and every sequence is padded to max_length under a false mask. Elements
    are numbered as in `longlag.tasks.groups`, 0 is the identity. With min_length=1, max_length=10,
    group="s3", where `-` is padding:

        inputs  1 4 5 5 4 3 2 2 - -
        targets 1 5 0 5 2 5 4 5 - -

    It is state tracking as such: a finite machine whose every step can be undone reads words of a
    group. Of the groups, s3 is the smallest in which the order of the letters matters; z60
    (commutative), a4xz5 (solvable) and a5 (not solvable) have 60 elements each, and s5 has 120.
    Unless TC0 = NC1, neither attention nor a diagonal scan of fixed depth solves a5 or s5 at every
    length.

    Floor: every element alike, ln |G| in loss and 1/|G| in accuracy, since a uniform letter makes
    the product uniform. (Repeating the letter is right at the first step.)

    Attributes:
        min_length: the shortest word.
        max_length: the longest word, T.
        group: cyclic (z5, z60), symmetric (s3, s5), alternating (a5), or the product a4xz5.

    Raises:
        ValueError: if min_length < 1, max_length < min_length or the group is none of these.

    Reference: Merrill, Petty, Sabharwal (2024), arXiv 2404.08819 (a5, a4xz5, z60); for s5 also
    Grazzi et al. (2025), arXiv 2411.12537 (trained at length 32, tested to 500).
    """

    max_length: int = 16
    group: Group = "s3"

    dense = True

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.group, get_args(Group), "GroupWord.group")

    @property
    def in_features(self) -> int:
        """The elements of the group."""
        return len(multiplication_table(self.group))

    @property
    def out_features(self) -> int:
        """The elements of the group."""
        return self.in_features

    def tokens(self, key: PRNGKey, batch_size: int) -> Tokens:
        """Uniform elements."""
        shape = (batch_size, self.max_length)
        return jax.random.randint(key, shape, 0, self.in_features, jnp.int32)

    def answers(self, tokens: Tokens) -> Tokens:
        """The product so far."""
        return prefix_products(self.group, tokens)

    def floor(self) -> Floor:
        """Every element alike."""
        return Floor(math.log(self.out_features), 1 / self.out_features, "any element")

    def picture(self) -> str:
        """One word of at most 10 letters."""
        return sketch(GroupWord(min_length=1, max_length=10), seed=2)
