"""One compiled sampler per task, shared by the tests of this folder."""

import functools

import jax
import numpy as np
import pytest

from longlag.tasks import Batch, Task
from longlag.testing.tasks import SEQUENCES, sample


@functools.cache
def sampler(task: Task, batch_size: int):
    if batch_size == SEQUENCES:  # the program that `check_task` has
        return functools.partial(sample, task)
    return jax.jit(lambda key: task.sample(key, batch_size))


@pytest.fixture(scope="module", autouse=True)
def quick_compiles():
    """These tests compile much and run little: level 0 halves their time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def draw():
    """`draw(task, batch_size=…, seed=…)`: NumPy arrays, compiled once per task and size."""

    def draw(task: Task, batch_size: int = 64, seed: int = 0) -> Batch:
        return jax.tree.map(np.asarray, sampler(task, batch_size)(jax.random.key(seed)))

    return draw


@pytest.fixture(scope="session")
def even():
    """`even(counts, chances)`: counts agree with the chances, to five standard deviations each."""

    def even(counts, chances=None) -> None:
        counts = np.asarray(counts, float)
        chances = np.full(counts.shape, 1 / counts.size) if chances is None else np.asarray(chances)
        n = counts.sum()
        far = np.abs(counts - n * chances) / np.sqrt(n * chances * (1 - chances) + 1e-9)
        assert np.all(far < 5), f"{far.max():.1f} standard deviations from the expected count"

    return even
