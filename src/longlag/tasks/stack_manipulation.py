"""Stack manipulation: push and pop, then say what is left of a stack."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import LengthColumn, PRNGKey, TargetTokens, Tokens
from longlag.tasks.outputs import EndedTask, append_end, pick
from longlag.tasks.task import sketch

__all__ = ["StackManipulation"]

POP = 2


class StackManipulation(EndedTask):
    """Stack manipulation: after a stack of bits and operations, give the stack from its top.

    The length is uniform in min_length..max_length. Of that the stack, written from its bottom, has
    1..length - 1 tokens, all sizes alike, and the rest are actions, uniform among pop (2), push 0
    (3) and push 1 (4); to pop from an empty stack does nothing. A length of 1 is a stack alone.
    After the stack has been said comes an end token, 2, and zeros up to length + 1 output steps;
    the loss counts them all, accuracy up to the end token. The input of an output step is a token
    of its own, 5. Every sequence is padded to 2 * max_length + 1 under a false mask. With
    min_length=1, max_length=8, where to pop is written `x`, to push `+0` and `+1`, the output token
    `>`, the end token `$`, and `-` is padding:

        inputs   0  1  0 +1 +0  x  >  >  >  >  >  >  >  -  -  -  -
        targets  .  .  .  .  .  .  1  0  1  0  $  0  0  -  -  -  -

    Floor: the likeliest answer by the length and the place: among lengths 1..40 it has 0.6760 in
    loss and 0.4866 in accuracy, less than a coin, since the answer may end at any place.

    Attributes:
        min_length: the shortest string of stack and actions.
        max_length: the longest one; T = 2 * max_length + 1.

    Raises:
        ValueError: if min_length < 1 or max_length < min_length.

    Reference: Delétang et al. (2023), arXiv 2207.02098 (lengths 1..40, tested on 41..500).
    """

    @property
    def in_features(self) -> int:
        """Bits, three actions, output token."""
        return 6

    def output_length(self, length: Any) -> Any:
        """All that can be left, and the end token."""
        return length + 1

    def draw(self, key: PRNGKey, lengths: LengthColumn) -> tuple[Tokens, TargetTokens]:
        """Stacks and actions, and what is left."""
        of_size, of_bits, of_actions = jax.random.split(key, 3)
        shape = (len(lengths), self.max_length)
        most = jnp.maximum(lengths, 2)
        size = jax.random.randint(of_size, lengths.shape, 1, most, jnp.int32)
        bits = jax.random.randint(of_bits, shape, 0, 2, jnp.int32)
        actions = jax.random.randint(of_actions, shape, POP, POP + 3, jnp.int32)
        places = jnp.arange(self.max_length, dtype=jnp.int32)[None]
        tokens = jnp.where(places < size, bits, actions)

        def act(held: tuple[jax.Array, jax.Array], step: tuple[jax.Array, jax.Array]):
            (stack, depth), (token, real) = held, step
            push = token != POP  # a bit of the stack too
            stack = jnp.where((places == depth) & (push & real), token % 3, stack)
            change = jnp.where(push, 1, -jnp.minimum(depth, 1))
            return (stack, depth + jnp.where(real, change, 0)), None

        empty = jnp.zeros(shape, jnp.int32), jnp.zeros_like(lengths)
        steps = tokens.T[..., None], (places < lengths).T[..., None]
        stack, depth = jax.lax.scan(act, empty, steps)[0]
        from_the_top = jnp.arange(self.max_length + 1, dtype=jnp.int32)[None]
        return tokens, append_end(pick(stack, depth - 1 - from_the_top), depth)

    def chances(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """By how deep the stack is in the end; all bits are fair."""
        sizes = np.eye(length + 1)[1 : max(length, 2)]
        depth = sizes[0] if length == 1 else np.zeros(length + 1)
        for size in sizes[: length - 1]:  # one more action for every stack that is no larger
            depth = _act(depth + size)
        more = 1 - np.cumsum(depth) / len(sizes)
        return more / 2, more

    def picture(self) -> str:
        """One string of at most 8 tokens."""
        names = {2: "x", 3: "+0", 4: "+1", 5: ">"}
        task = StackManipulation(min_length=1, max_length=8)
        return sketch(task, seed=3, names=names, answers={2: "$"})


def _act(depth: np.ndarray) -> np.ndarray:
    """Chances of the depth after one more action: two pushes, and a pop unless it is empty."""
    after = np.append(0, depth[:-1]) * 2 / 3 + np.append(depth[1:], 0) / 3
    after[0] += depth[0] / 3
    return after
