"""Cells as a user would write them, from public names only, to see where the contract breaks."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag as ll
from longlag.testing.cells import check_cell


class MGU(ll.DenseCell):
    """The minimal gated unit (Zhou et al. 2016): two products in a row.

    f = σ(W_f x + b_f + U_f h)
    n = tanh(W_n x + b_n + U_n (f ⊙ h))
    h' = (1 - f) ⊙ h + f ⊙ n
    """

    gates = ("f", "n")

    def mix(self, params, carry, u):
        f = jax.nn.sigmoid(u[0] + ll.dot(carry.h, self.recurrent_kernel(params, "f")))
        return f, u[1] + ll.dot(f * carry.h, self.recurrent_kernel(params, "n"))

    def update(self, params, carry, z):
        f, n = z[0], jnp.tanh(z[1])
        h = (1 - f) * carry.h + f * n
        return ll.Carry(h), h


@flax.struct.dataclass
class Oscillator:
    y: jax.Array
    z: jax.Array


class CoRNN(ll.DenseCell[Oscillator]):
    """The coupled oscillatory network (Rusch and Mishra 2021): two kernels, one per state.

    z' = z + Δt (tanh(V x + b + W y + Z z) - γ y - ε z)
    y' = y + Δt z'
    """

    dt: float = 0.1
    gamma: float = 1.0
    epsilon: float = 0.5

    gates = ("force",)

    def init(self, key, in_features):
        first, second = jax.random.split(key)
        params = super().init(first, in_features)
        params["velocity"] = {"kernel": super().init(second, in_features)["recurrent"]["kernel"]}
        return params

    def zero_carry(self, batch_shape, dtype):
        zeros = jnp.zeros((*batch_shape, self.features), dtype)
        return Oscillator(zeros, zeros)

    def mix(self, params, carry, u):
        (force,) = super().mix(params, carry, u)
        return (force + ll.dot(carry.z, params["velocity"]["kernel"]),)

    def update(self, params, carry, z):
        force = jnp.tanh(z[0]) - self.gamma * carry.y - self.epsilon * carry.z
        velocity = carry.z + self.dt * force
        y = carry.y + self.dt * velocity
        return Oscillator(y, velocity), y


class ProjectedLSTM(ll.DenseCell[ll.LSTMCarry]):
    """The LSTM with a recurrent projection (Sak et al. 2014): h has another width than the gates.

    m = o ⊙ tanh(c'),  h' = P m
    """

    projection: int = 2

    gates = ("i", "f", "g", "o")

    def init(self, key, in_features):
        first, second = jax.random.split(key)
        params = super().init(first, in_features)
        kernel = params["recurrent"]["kernel"][: self.projection]
        params["recurrent"] = {"kernel": kernel}
        shape = (self.features, self.projection)
        params["projection"] = {"kernel": jax.nn.initializers.lecun_normal()(second, shape)}
        return params

    def zero_carry(self, batch_shape, dtype):
        return ll.LSTMCarry(
            h=jnp.zeros((*batch_shape, self.projection), dtype),
            c=jnp.zeros((*batch_shape, self.features), dtype),
        )

    def update(self, params, carry, z):
        i, f, g, o = z
        c = jax.nn.sigmoid(f) * carry.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = ll.dot(jax.nn.sigmoid(o) * jnp.tanh(c), params["projection"]["kernel"])
        return ll.LSTMCarry(h, c), h


class S6(ll.LinearCell):
    """The selective state space (Gu and Dao 2023), one state of N for each of its H inputs.

    Δ = softplus(W_Δ x + b),  B = W_B x,  C = W_C x
    h' = exp(-Δ A) h + Δ B x        [H, N]
    y = Σ_n C_n h'_n + D x
    """

    states: int = 4

    gates = ("dt",)

    def init(self, key, in_features):
        if in_features != self.features:
            raise ValueError(f"S6: expected {self.features} input features, got {in_features}")
        first, second = jax.random.split(key)
        params = super().init(first, in_features)
        shape = (in_features, 2 * self.states)
        params["select"] = {"kernel": jax.nn.initializers.lecun_normal()(second, shape)}
        log_decay = jnp.log(jnp.arange(1.0, self.states + 1))
        params["log_decay"] = jnp.tile(log_decay, (self.features, 1))
        params["skip"] = jnp.ones(self.features)
        return params

    def zero_carry(self, batch_shape, dtype):
        return ll.Carry(jnp.zeros((*batch_shape, self.features, self.states), dtype))

    def project(self, params, xs, *, key=None):
        (dt,) = ll.gate_projection(params["input"], xs, 1)
        dt = jax.nn.softplus(dt)[..., None]
        B, C = jnp.split(ll.dot(xs, params["select"]["kernel"]), 2, axis=-1)
        decay = jnp.exp(-dt * jnp.exp(params["log_decay"]))
        return decay, dt * B[..., None, :] * xs[..., None], (C, xs)

    def readout(self, params, h, aux):
        C, xs = aux
        return (h * C[..., None, :]).sum(-1) + params["skip"] * xs


@flax.struct.dataclass
class Odd:
    """Every kind of leaf that a carry may have."""

    h: jax.Array
    count: jax.Array
    seen: jax.Array
    key: jax.Array
    nothing: None = None


class OddCell(ll.Cell[Odd]):
    """A noisy cell that counts its steps; it knows whether its last input was positive."""

    features: int

    def init(self, key, in_features):
        first, second = jax.random.split(key)
        normal = jax.nn.initializers.normal(0.5)
        return {
            "input": {"kernel": normal(first, (in_features, self.features))},
            "recurrent": {"kernel": normal(second, (self.features, self.features))},
        }

    def initial_carry(self, params, batch_shape=()):
        return Odd(
            h=jnp.zeros(
                (*batch_shape, self.features),
                jnp.promote_types(params["input"]["kernel"].dtype, jnp.float32),
            ),
            count=jnp.zeros(batch_shape, jnp.int32),
            seen=jnp.zeros(batch_shape, bool),
            key=jnp.broadcast_to(jax.random.key(3), batch_shape),
        )

    def project(self, params, xs, *, key=None):
        return ll.dot(xs, params["input"]["kernel"])

    def step(self, params, carry, z):
        @jnp.vectorize
        def renewed(key):
            return jax.random.fold_in(key, 1)

        noise = jnp.vectorize(
            lambda key: jax.random.normal(key, (self.features,), z.dtype), signature="()->(h)"
        )(carry.key)
        h = jnp.where(carry.seen[..., None], carry.h, 0.5 * carry.h)
        h = jnp.tanh(z + ll.dot(h, params["recurrent"]["kernel"]) + 0.1 * noise)
        h = h / (1 + carry.count[..., None].astype(h.dtype))
        return Odd(h, carry.count + 1, z[..., 0] > 0, renewed(carry.key)), h


@pytest.mark.parametrize(
    "cell",
    [
        MGU(3),
        CoRNN(3, learned_carry=True),
        ProjectedLSTM(3, learned_carry=True),
        S6(2, learned_carry=True),
        OddCell(3),
    ],
    ids=repr,
)
def test_keeps_the_contract(cell):
    check_cell(cell)


def test_a_counter_counts_live_steps_since_the_reset():
    cell = OddCell(3)
    params = cell.init(jax.random.key(0), 2)
    mask = np.array([[1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0]], bool)
    resets = np.array([[0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0]], bool)
    carries, _ = ll.unroll(
        cell, params, jnp.ones((2, 6, 2)), mask=mask, resets=resets, carries="all"
    )
    np.testing.assert_array_equal(carries.count, [[1, 1, 2, 1, 1, 2], [0] * 6])
    assert carries.count.dtype == jnp.int32
    assert carries.seen.dtype == bool
    assert carries.nothing is None
    first: Any = jax.random.key(3)
    keys = [
        first,
        jax.random.fold_in(first, 1),
        jax.random.fold_in(jax.random.fold_in(first, 1), 1),
    ]
    for time, count in enumerate([1, 1, 2, 1, 1, 2]):
        assert carries.key[0, time] == keys[count]
