"""The smallest experiments that are still whole, shared so that their programs compile once."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag import LSTM
from longlag.core.spec import Spec
from longlag.runs import Architecture, Experiment
from longlag.tasks import Batch, Parity, Task
from longlag.tasks.task import Floor
from longlag.training import Training

TRAINING = Training(
    steps=20, dispatch=5, batch_size=4, eval_size=16, stop_when_solved=False, learning_rate=1e-2
)
PARITY = Experiment(
    task=Parity(1, 8),
    cell=LSTM(8),
    architecture=Architecture(width=8, depth=1),
    training=TRAINING,
    seeds=2,
    test_lags=(16,),
)
# The same on the command line.
OPTIONS = (
    *("--task", "parity", "--task.max-length", "8", "--cell", "lstm", "--width", "8"),
    *("--depth", "1", "--steps", "20", "--dispatch", "5", "--batch-size", "4", "--eval-size", "16"),
    *("--no-stop-when-solved", "--learning-rate", "1e-2", "--seeds", "2", "--test-lags", "16"),
)


class Sums(Task):
    """Two numbers in, their sum out; the first step is not asked, and its target is NaN.

    The batch of one seed at one step may be a trap, of which no finite loss can be made.

    Attributes:
        length: T.
        trap_seed: the seed that meets a trap, or -1.
        trap_step: at this step.
        within: an answer this near counts as right.
    """

    length: int = 3
    trap_seed: int = -1
    trap_step: int = 0

    inputs_kind = "features"
    targets_kind = "values"
    tolerance = 1e6  # every answer is right
    lag_field = "length"

    time_steps = property(lambda self: self.length)
    in_features = property(lambda self: 2)
    out_features = property(lambda self: 1)

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        inputs = jax.random.uniform(key, (batch_size, self.length, 2), jnp.float32)
        if self.trap_seed >= 0:
            trap = jax.random.key_data(data_key(self.trap_seed, self.trap_step))
            sprung = (jax.random.key_data(key) == trap).all()
            inputs = jnp.where(sprung, jnp.inf, inputs)
        asked = jnp.broadcast_to(jnp.arange(self.length) > 0, inputs.shape[:2])
        return Batch(
            inputs=inputs,
            targets=jnp.where(asked[..., None], inputs.sum(-1, keepdims=True), jnp.nan),
            weights=jnp.where(asked, jnp.arange(self.length, dtype=jnp.float32), 0),
            scored=asked,
            mask=None,
        )

    def floor(self) -> Floor:
        return Floor(1 / 6, 1.0, "always 1")

    def picture(self) -> str:
        return ""


def checksum(batch: Batch) -> str:
    """Of all that a batch holds, dtypes and shapes too."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(batch):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]


def data_key(seed: int, step: int) -> jax.Array:
    """Where the batch of a step comes from. Another number here changes every recorded result."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)


def dropout_key(seed: int, step: int) -> jax.Array:
    """Where the dropout of a step comes from."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step)


class Affine(Spec):
    """A model with the interface of `SequenceModel`; while training, noise is in its answers."""

    features: int = 2

    def init(self, key: jax.Array) -> Any:
        return {"w": jax.random.normal(key, (self.features, 1)), "b": jnp.zeros(1)}

    def apply(self, params, inputs, state=None, *, mask=None, resets=None, key=None):
        answers = inputs @ params["w"] + params["b"]
        if key is not None:
            answers = answers + 0.1 * jax.random.normal(key, answers.shape)
        return state, answers

    def answer(self, params, batch, key=None, at=None):
        assert at is None  # `Sums` does not say how many steps it asks
        return self.apply(params, batch.inputs, key=key)[1]


class Canned(Spec):
    """A model whose parameters are its answers."""

    def answer(self, params, batch, key=None, at=None):
        return params if at is None else jnp.take_along_axis(params, at[..., None], axis=1)
