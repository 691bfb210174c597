"""A cell and a task of a user's own."""

import jax
import jax.numpy as jnp

import longlag as ll
from longlag.tasks import Batch, Task
from longlag.tasks.task import Floor


class Leaky(ll.DenseCell):
    gates = ("n",)
    rate: float = 0.5

    def update(self, params, carry, z):
        h = carry.h + self.rate * (jnp.tanh(z[0]) - carry.h)
        return ll.Carry(h), h


class LastOne(Task):
    length: int = 6
    lag_field = "length"
    time_steps = property(lambda self: self.length)
    in_features = property(lambda self: 2)
    out_features = property(lambda self: 2)

    def sample(self, key, batch_size):
        inputs = jax.random.bernoulli(key, 0.5, (batch_size, self.length)).astype(jnp.int32)
        last = jnp.arange(self.length) == self.length - 1
        last = jnp.broadcast_to(last, inputs.shape)
        targets = jnp.where(last, inputs[:, :1], 0)
        return Batch(inputs, targets, last.astype(jnp.float32), last, None)

    def floor(self):
        return Floor(0.6931, 0.5, "a coin")

    def picture(self):
        return "1 0 0 -> 1"
