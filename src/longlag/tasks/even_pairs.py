"""Even pairs: say whether neighbouring bits differ an even number of times."""

from __future__ import annotations

import math

from longlag.core.array_types import Tokens
from longlag.tasks.strings import BitTask
from longlag.tasks.task import Floor, sketch

__all__ = ["EvenPairs"]


class EvenPairs(BitTask):
    """Even pairs: is the number of pairs 01 and 10 in a bit string even? Asked at its last bit.

    Bits are uniform and the length is uniform in min_length..max_length; every sequence is padded
    to max_length under a false mask. The answer is 0 for even, 1 for odd. With min_length=1,
    max_length=10, where `-` is padding:

        inputs  1 0 1 1 0 1 0 0 - -
        targets . . . . . . . 1 - -

    A string ends as it began exactly if it changed an even number of times, so nothing has to be
    counted: the first bit is to be held and compared with the last. Which bit is the last one shows
    only when it is the last, so both answers must stand ready at every step.

    Floor: even at length 1, where it is always right, and both alike beyond: among lengths 1..40
    that is 39/40 ln 2 = 0.6758 in loss and 0.5125 in accuracy.

    Attributes:
        min_length: the shortest string.
        max_length: the longest string, T.

    Raises:
        ValueError: if min_length < 1 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500).
    """

    def answers(self, tokens: Tokens) -> Tokens:
        """Whether a bit is another than the first."""
        return tokens ^ tokens[:, :1]

    def floor(self) -> Floor:
        """Even at length 1, both answers alike beyond."""
        sure = (self.min_length == 1) / (self.max_length - self.min_length + 1)
        return Floor((1 - sure) * math.log(2), (1 + sure) / 2, "a coin")

    def picture(self) -> str:
        """One string of at most 10 bits."""
        return sketch(EvenPairs(min_length=1, max_length=10), seed=2)
