"""Induction heads: say what followed the trigger the first time."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["InductionHeads"]


class InductionHeads(Task):
    """Induction heads: when the trigger returns at the end, give what followed it before.

    N - 1 tokens are drawn uniformly from 0..vocab-2; one of them, at a place that is uniform in
    0..N-3, is replaced by the trigger, vocab-1, and the trigger comes once more as the last token.
    With length=16, vocab=16, where the trigger is written `S` and the others as letters:

        inputs  b l h h b e h h n a k k S j i S
        targets . . . . . . . . . . . . . . . j

    Only one token has to be kept, but it is known by its neighbour alone: a read by content, over
    any distance. For an attention to find it, each position must know what stood before it, which
    takes something below: another attention, a recurrence or a short convolution.

    Floor: every token alike, ln(vocab - 1) in loss and 1/(vocab - 1) in accuracy.

    Attributes:
        length: N, the number of steps.
        vocab: number of tokens, the trigger among them.

    Raises:
        ValueError: if length < 3 or vocab < 3.

    Reference: Gu, Dao (2023), arXiv 2312.00752, section 4.1 (vocab 16, trained at 256, tested from
    2^6 to 2^20), after Olsson et al. (2022), arXiv 2209.11895. Whether the published vocabulary
    counts the trigger is left open there.
    """

    length: int = 256
    vocab: int = 16

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.length >= 3, "length >= 3")
        self.require(self.vocab >= 3, "vocab >= 3 (the trigger and two others)")

    @property
    def time_steps(self) -> int:
        """N, the length."""
        return self.length

    @property
    def in_features(self) -> int:
        """The tokens, the trigger last."""
        return self.vocab

    @property
    def out_features(self) -> int:
        """The tokens without the trigger."""
        return self.vocab - 1

    @property
    def weighted_steps(self) -> int:
        """The last step."""
        return 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last step."""
        B, N, V = batch_size, self.length, self.vocab
        of_tokens, of_place = jax.random.split(key)
        tokens = jax.random.randint(of_tokens, (B, N), 0, V - 1, jnp.int32)
        place = jax.random.randint(of_place, (B, 1), 0, N - 2, jnp.int32)
        steps = jnp.arange(N, dtype=jnp.int32)[None]
        last = jnp.broadcast_to(steps == N - 1, (B, N))
        followed = jnp.take_along_axis(tokens, place + 1, axis=1)
        return Batch(
            inputs=jnp.where((steps == place) | last, V - 1, tokens),
            targets=jnp.where(last, followed, 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every token alike."""
        choices = self.vocab - 1
        return Floor(math.log(choices), 1 / choices, "any token")

    def picture(self) -> str:
        """Sixteen steps: letters and the trigger."""
        return sketch(InductionHeads(16), seed=0, names=dict(enumerate("abcdefghijklmnoS")))
