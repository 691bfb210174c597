"""Missing duplicate: a string comes twice with a hole in it; say what is missing."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.tasks.outputs import pick
from longlag.tasks.strings import AnswerTask
from longlag.tasks.task import Floor, sketch

__all__ = ["MissingDuplicate"]

HOLE, EMPTY = 2, 3


class MissingDuplicate(AnswerTask):
    """Missing duplicate: at the end of a bit string that comes twice, give its one missing bit.

    Bits are uniform, and so is the place of the hole, a token of its own, in either copy. The
    length is uniform in min_length..max_length; an odd one ends with one more token, which means
    nothing. Every sequence is padded to max_length under a false mask. With min_length=2,
    max_length=11, where the hole is written `?`, the token that means nothing `_` and `-` is
    padding:

        inputs  1 0 0 1 1 0 ? 1 _ - -
        targets . . . . . . . . 0 - -

    Where the first copy ends is written nowhere: the bit that is missing stands half the length
    away from the hole.

    Floor: both answers alike, ln 2 in loss and 1/2 in accuracy.

    Attributes:
        min_length: the shortest string, both copies together.
        max_length: the longest string, T.

    Raises:
        ValueError: if min_length < 2 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500), whose
    code asks at an output token after the string, and has strings of length 1 too, which are one
    arbitrary token with one arbitrary answer.
    """

    min_length: int = 2

    shortest = 2

    @property
    def in_features(self) -> int:
        """Bits, the hole, the token that means nothing."""
        return 4

    @property
    def out_features(self) -> int:
        """Bits."""
        return 2

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Two copies with a hole, and the bit that would be there."""
        of_bits, of_hole = jax.random.split(key)
        half = lengths // 2
        hole = jax.random.randint(of_hole, lengths.shape, 0, 2 * half, jnp.int32)
        longest = max(self.max_length // 2, 1)
        bits = jax.random.randint(of_bits, (len(lengths), longest), 0, 2, jnp.int32)
        places = jnp.arange(self.max_length, dtype=jnp.int32)[None]
        tokens = jnp.where(places < 2 * half, pick(bits, places % half), EMPTY)
        return jnp.where(places == hole, HOLE, tokens), pick(bits, hole % half)

    def floor(self) -> Floor:
        """Both answers alike."""
        return Floor(math.log(2), 0.5, "a coin")

    def picture(self) -> str:
        """One string of at most 11 tokens."""
        task = MissingDuplicate(min_length=2, max_length=11)
        return sketch(task, seed=2, names={HOLE: "?", EMPTY: "_"})
