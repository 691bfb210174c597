"""Selective copying: keep the few tokens that matter, in order, and drop the noise."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, draw_distinct, sketch

__all__ = ["SelectiveCopy"]


class SelectiveCopy(Task):
    """Selective copying: give the data tokens that stood at random places among noise, in order.

    `items` of the first `length` steps, every set of places alike, hold a data token drawn
    uniformly from 1..vocab-1; the others hold noise, 0. Then come `items` output steps whose input
    is one more token, `vocab`. With length=12, items=4, vocab=8, where noise is written `.`, data
    as letters and the output token `>`:

        inputs  f . . . . f e . g . . . > > > >
        targets . . . . . . . . . . . . f f e g

    With marker_once, the output token comes once, in a step of its own that asks for nothing, and
    the input of the output steps is noise: only who has seen the marker, and counts from it, knows
    what to say.

    The last data token may lie anywhere up to the last place (in MAD's generator it always touches
    the output steps, which gives one answer away).

    Floor: every data token alike, ln(vocab - 1) in loss and 1/(vocab - 1) in accuracy.

    Attributes:
        length: L of the papers, the steps before the output; T = length + items + marker_once.
        items: how many data tokens are to be kept. Their order is the hard part.
        vocab: number of tokens, noise among them, the output token not.
        marker_once: whether the output token comes once, or at every output step.

    Raises:
        ValueError: if items < 1, length < items or vocab < 3.

    Reference: Gu, Dao (2023), arXiv 2312.00752, appendix E.1 (length 4096, 16 items, vocab 16).
    The published description leaves the output token open; the one here is ours. It makes the task
    the `variable` copy of the S4 repository, whose L, M and A are length=L+M, items=M, vocab=A-1.
    With marker_once it is the denoising task of Jing et al. (2017), arXiv 1706.02761 (10 items of 8
    symbols: items=10, vocab=9; their loss asks for blanks too, as that of `CopyMemory`), and the
    selective copy of MAD, Poli et al. (2024), arXiv 2403.17844 (16 tokens, 256 steps: length=239,
    items=16, vocab=15), but for its places, of which not every set is as likely there, and which
    are drawn by a global generator that no seed reaches.
    """

    length: int = 32
    items: int = 4
    vocab: int = 8
    marker_once: bool = False

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.items >= 1, "items >= 1")
        self.require(self.length >= self.items, "length >= items")
        self.require(self.vocab >= 3, "vocab >= 3 (noise and two data tokens)")

    @property
    def time_steps(self) -> int:
        """The stream, a lone marker if there is one, and the output steps."""
        return self.length + self.marker_once + self.items

    @property
    def in_features(self) -> int:
        """Noise, data tokens, output token."""
        return self.vocab + 1

    @property
    def out_features(self) -> int:
        """The same without the output token; noise is never the answer."""
        return self.vocab

    @property
    def weighted_steps(self) -> int:
        """The output steps."""
        return self.items

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the output steps."""
        B, T, V = batch_size, self.time_steps, self.vocab
        of_places, of_data = jax.random.split(key)
        places = jnp.sort(draw_distinct(of_places, B, self.length, self.items), axis=1)
        data = jax.random.randint(of_data, (B, self.items), 1, V, jnp.int32)
        noise = jnp.zeros((B, self.length), jnp.int32)
        stream = jnp.put_along_axis(noise, places, data, axis=1, inplace=False)
        slots = [V] + [0] * self.items if self.marker_once else [V] * self.items
        slots = jnp.broadcast_to(jnp.array(slots, jnp.int32), (B, len(slots)))
        output = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32) >= T - self.items, (B, T))
        return Batch(
            inputs=jnp.concatenate([stream, slots], 1),
            targets=jnp.pad(data, [(0, 0), (T - self.items, 0)]),
            weights=output.astype(jnp.float32),
            scored=output,
            mask=None,
        )

    def floor(self) -> Floor:
        """Every data token alike."""
        choices = self.vocab - 1
        return Floor(math.log(choices), 1 / choices, "any data token")

    def picture(self) -> str:
        """Four data tokens, as letters, in a stream of 12."""
        names = dict(enumerate(".abcdefg>"))
        return sketch(SelectiveCopy(length=12, items=4, vocab=8), seed=0, names=names)
