"""From equal weights our cells equal flax's and torch's, values and gradients, in float64.

The weights of a peer are made from ours inside what is differentiated, so that both sides give
gradients in our parameters.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from longlag import GRU, LSTM, Carry, Elman, LSTMCarry, unroll
from longlag.interop import to_linen
from tests.contract import assert_close
from tests.test_cells import random_params

B, T, D, H = 2, 5, 3, 4


@pytest.fixture(autouse=True)
def double_precision(x64):
    """Peers agree within 1e-10 or not at all."""


def draw(cell, rng):
    """Parameters, inputs, first carry, and weights for outputs and last carry."""
    params, xs = random_params(cell, D, rng), rng.normal(size=(B, T, D))
    kind, parts = (LSTMCarry, 2) if isinstance(cell, LSTM) else (Carry, 1)
    carry, last = (kind(*rng.normal(size=(parts, B, H))) for _ in range(2))
    return (params, xs, carry), (last, rng.normal(size=(B, T, H)))


def results(run, arguments, weights):
    out, pull = jax.vjp(run, *arguments)
    return out, pull(weights)


@functools.partial(jax.jit, static_argnums=0)
def ours(cell, arguments, weights):
    return results(functools.partial(unroll, cell), arguments, weights)


# --- flax ---------------------------------------------------------------------------------------


LINEN = [
    (Elman(H), nn.SimpleCell),
    (LSTM(H), nn.LSTMCell),
    (LSTM(H), nn.OptimizedLSTMCell),
    (GRU(H), nn.GRUCell),
]


@pytest.mark.parametrize(
    ("cell", "peer"), LINEN, ids=lambda value: getattr(value, "__name__", repr(value))
)
def test_equals_flax_linen(cell, peer, rng):
    rnn = nn.RNN(peer(H, param_dtype=jnp.float64), return_carry=True)
    arguments, weights = draw(cell, rng)

    def theirs(params, xs, carry):
        first = (carry.c, carry.h) if isinstance(cell, LSTM) else carry.h
        variables = {"params": {"cell": to_linen(cell, params)}}
        last, ys = rnn.apply(variables, xs, initial_carry=first)
        last = LSTMCarry(h=last[1], c=last[0]) if isinstance(cell, LSTM) else Carry(last)
        return last, ys

    expected = jax.jit(functools.partial(results, theirs))(arguments, weights)
    assert_close(ours(cell, arguments, weights), expected, f"{cell} and {peer.__name__}")


# --- torch --------------------------------------------------------------------------------------

TORCH = [
    (Elman(H), "RNN", {}),
    (Elman(H, activation="relu"), "RNN", {"nonlinearity": "relu"}),
    (LSTM(H), "LSTM", {}),
    (GRU(H), "GRU", {}),
]


def torch_weights(torch, params):
    """Torch keeps kernels as `[out, in]`, gates in our order, and a second bias.

    The second bias is the candidate's own in a GRU; where both are only added, it stays zero.
    """
    second = torch.zeros_like(params["input"]["bias"])
    if "bias" in params["recurrent"]:
        second = torch.cat([second[: 2 * H], params["recurrent"]["bias"]])
    return {
        "weight_ih_l0": params["input"]["kernel"].T,
        "weight_hh_l0": params["recurrent"]["kernel"].T,
        "bias_ih_l0": params["input"]["bias"],
        "bias_hh_l0": second,
    }


@pytest.mark.parametrize(("cell", "peer", "options"), TORCH, ids=str)
def test_equals_torch(cell, peer, options, rng):
    torch = pytest.importorskip("torch")
    rnn = getattr(torch.nn, peer)(D, H, batch_first=True, **options).double()
    arguments, weights = draw(cell, rng)
    leaves = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), arguments)
    params, xs, carry = leaves
    first = tuple(leaf[None] for leaf in jax.tree.leaves(carry))
    first = first if isinstance(cell, LSTM) else first[0]
    ys, last = torch.func.functional_call(rnn, torch_weights(torch, params), (xs, first))
    last = [leaf[0] for leaf in (last if isinstance(cell, LSTM) else [last])]
    last = jax.tree.unflatten(jax.tree.structure(carry), last)
    torch.autograd.backward(
        jax.tree.leaves((last, ys)), list(map(torch.tensor, jax.tree.leaves(weights)))
    )
    gradients = jax.tree.map(lambda leaf: leaf.grad, leaves)
    expected = jax.tree.map(lambda leaf: leaf.detach().numpy(), ((last, ys), gradients))
    assert_close(ours(cell, arguments, weights), expected, f"{cell} and torch.nn.{peer}")
