"""Temporal order: say in which order a few symbols came, long ago."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["TemporalOrder"]

# Where the symbols lie, in hundredths of the length, ends included.
PLACES = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}
X, NOISE, START, END = 0, 2, 6, 7  # Y is 1, the noise 2..5


class TemporalOrder(Task):
    """Temporal order: give the order of two or three symbols, X or Y, that came in noise.

    A sequence begins with E and ends with B, at which the answer is asked; between them is noise,
    uniform among a, b, c, d, but for the symbols, X and Y alike. Of two symbols one lies in
    10..20 hundredths of the length and one in 50..60, of three in 10..20, 33..43 and 66..76, all
    ends included and rounded down. With T the dial `length`, sequences have T..T + T//10 steps, all
    alike, and are padded to the longest under a false mask. Classes are XX, XY, YX, YY, and so on
    for three. With length=15, symbols=2, where `-` is padding:

        inputs   E  b  Y  b  c  a  b  X  b  a  b  b  d  d  B  -
        targets  .  .  .  .  .  .  .  .  .  .  .  .  .  . YX  -

    What is to be kept comes seldom and looks like the noise around it; the time between does not
    matter, and since lengths vary it cannot be counted down.

    Floor: every class alike, ln 4 in loss and 1/4 in accuracy for two symbols, ln 8 and 1/8 for
    three.

    Attributes:
        length: T, the steps of the shortest sequence, from whose hundredths the places are taken.
        symbols: 2 or 3: four classes or eight.

    Raises:
        ValueError: if length < 10, or symbols is neither 2 nor 3.

    Reference: Hochreiter, Schmidhuber (1997), Neural Computation 9(8), experiments 6a and 6b, which
    have length=100; other lengths scale them.
    """

    length: int = 100
    symbols: int = 2

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.length >= 10, "length >= 10")
        self.require(self.symbols in PLACES, "symbols 2 or 3")

    @property
    def time_steps(self) -> int:
        """The longest sequence: T + T // 10."""
        return self.length + self.length // 10

    @property
    def in_features(self) -> int:
        """X, Y, four of noise, start, end."""
        return 8

    @property
    def out_features(self) -> int:
        """The orders: 2^symbols."""
        return 2**self.symbols

    @property
    def weighted_steps(self) -> int:
        """The last step."""
        return 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the end of each sequence."""
        B, T = batch_size, self.time_steps
        of_noise, of_lengths, of_symbols, of_places = jax.random.split(key, 4)
        lengths = jax.random.randint(of_lengths, (B, 1), self.length, T + 1, jnp.int32)
        symbols = jax.random.randint(of_symbols, (B, self.symbols), 0, 2, jnp.int32)
        steps = jnp.arange(T, dtype=jnp.int32)[None]
        mask, last = steps < lengths, steps == lengths - 1
        inputs = jax.random.randint(of_noise, (B, T), NOISE, START, jnp.int32)
        order = jnp.zeros((B, 1), jnp.int32)
        for i, (first, final) in enumerate(PLACES[self.symbols]):
            ends = first * self.length // 100, final * self.length // 100 + 1
            place = jax.random.randint(jax.random.fold_in(of_places, i), (B, 1), *ends, jnp.int32)
            inputs = jnp.where(steps == place, X + symbols[:, i : i + 1], inputs)
            order = 2 * order + symbols[:, i : i + 1]
        inputs = jnp.where(steps == 0, START, jnp.where(last, END, inputs))
        return Batch(
            inputs=jnp.where(mask, inputs, 0),
            targets=jnp.where(last, order, 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=mask,
        )

    def floor(self) -> Floor:
        """Every class alike."""
        classes = self.out_features
        return Floor(math.log(classes), 1 / classes, "any order")

    def picture(self) -> str:
        """Two symbols in 15 or 16 steps."""
        orders = map("".join, itertools.product("XY", repeat=2))
        names, answers = dict(enumerate("XYabcdEB")), dict(enumerate(orders))
        return sketch(TemporalOrder(length=15), seed=0, names=names, answers=answers)
