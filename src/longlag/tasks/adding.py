"""Adding: the sum of two marked numbers in a long stream."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["Adding"]


class Adding(Task):
    """The adding problem: give the sum of the two marked numbers among T, at the last step.

    Numbers are uniform in [0, 1). One marker falls uniformly in the first half, 0..T//2-1, the
    other in the second, T//2..T-1. Two real features per step, number above marker; length=10:

        inputs  0.87 0.71 0.87 0.93 0.34  0.9 0.81 0.95 0.18 0.18
                   0    0    1    0    0    0    0    1    0    0
        targets    .    .    .    .    .    .    .    .    . 1.82

    Floor: always 1, the mean of the sum, whose squared error is the variance of two uniform
    numbers, 2/12 = 1/6. The sum has density 1 - |s - 1|, so an answer of 1 is within r of it with
    probability r (2 - r): 0.0784 at the tolerance of 0.04. (Reading the last step alone would
    gain 1/12 in the few sequences where it is marked; the published floor leaves that out.)

    Attributes:
        length: T, the number of steps; the first number is held for 3T/4 steps on average.

    Raises:
        ValueError: if length < 2.

    Reference: Hochreiter, Schmidhuber (1997), Neural Computation 9(8), in the form of Arjovsky,
    Shah, Bengio (2016), arXiv 1511.06464. The tolerance is that of 1997, whose target is scaled to
    [0, 1], so here it is twice as strict. With both markers anywhere (TCN, arXiv 1803.01271) the
    task is another, easier one.
    """

    length: int = 100

    inputs_kind = "features"
    targets_kind = "values"
    tolerance = 0.04
    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.length >= 2, "length >= 2")

    @property
    def time_steps(self) -> int:
        """The number of steps, T."""
        return self.length

    @property
    def in_features(self) -> int:
        """Input features: number and marker."""
        return 2

    @property
    def out_features(self) -> int:
        """Output features: the sum."""
        return 1

    @property
    def weighted_steps(self) -> int:
        """The last step."""
        return 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs `[B, T, 2]` and targets `[B, T, 1]`, float32, asked at the last step."""
        B, T = batch_size, self.length
        of_numbers, of_first, of_second = jax.random.split(key, 3)
        numbers = jax.random.uniform(of_numbers, (B, T), jnp.float32)
        first = jax.random.randint(of_first, (B, 1), 0, T // 2, jnp.int32)
        second = jax.random.randint(of_second, (B, 1), T // 2, T, jnp.int32)
        steps = jnp.arange(T, dtype=jnp.int32)[None]
        markers = ((steps == first) | (steps == second)).astype(jnp.float32)
        last = jnp.broadcast_to(steps == T - 1, (B, T))
        total = jnp.sum(numbers * markers, axis=1, keepdims=True)
        return Batch(
            inputs=jnp.stack([numbers, markers], axis=2),
            targets=jnp.where(last, total, 0.0)[..., None],
            weights=last.astype(jnp.float32),
            scored=last,
            mask=None,
        )

    def floor(self) -> Floor:
        """The mean of the sum, whatever was read."""
        return Floor(1 / 6, self.tolerance * (2 - self.tolerance), "always 1")

    def picture(self) -> str:
        """Ten steps: numbers above markers."""
        return sketch(Adding(length=10), seed=10)
