"""Weights from and to others, where `tests/peers/test_agreement.py` does not run the two sides."""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from longlag import GRU, LSTM, Elman, interop, unroll
from longlag.cells import MGU, ProjectedLSTM
from longlag.interop.linen import LinenCell, OfLinen
from longlag.interop.nnx import NNXRecurrent
from longlag.testing.running import assert_close, random_like

B, T, D, H = 2, 5, 3, 4
XS = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)


def weights(cell):
    """Random parameters, so that every bias counts."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    return random_like(shapes, 1)


def ours(cell, params):
    return np.asarray(unroll(cell, params, XS)[1])


def close(got, expected):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=2e-5, atol=2e-6)


# Not ours to mend: torch says which kernel it takes.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


# --- torch: layers, directions, projections -----------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both ways"])
@pytest.mark.parametrize(
    ("cell", "kind", "options"),
    [
        (Elman(H), "RNN", {}),
        (LSTM(H), "LSTM", {}),
        (GRU(H), "GRU", {}),
        (ProjectedLSTM(H, projection=2), "LSTM", {"proj_size": 2}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | dict) else "",
)
def test_torch_of_two_layers(cell, kind, options, bidirectional):
    torch.manual_seed(0)
    rnn = getattr(torch.nn, kind)(D, H, 2, batch_first=True, bidirectional=bidirectional, **options)
    state = {name: value.detach().numpy() for name, value in rnn.state_dict().items()}
    params = interop.from_torch(cell, state)
    xs, each = jnp.asarray(XS), iter(params)
    for _ in range(2):
        ways = [unroll(cell, next(each), xs)[1]]
        if bidirectional:
            ways.append(unroll(cell, next(each), xs, reverse=True)[1])
        xs = jnp.concatenate(ways, axis=-1)
    with torch.no_grad():
        close(xs, rnn(torch.tensor(XS))[0].numpy())
    there = interop.to_torch(cell, params, bidirectional=bidirectional)
    assert there.keys() == state.keys()
    rnn.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in there.items()})
    with torch.no_grad():
        close(xs, rnn(torch.tensor(XS))[0].numpy())


def test_torch_without_biases():
    rnn = torch.nn.GRU(D, H, batch_first=True, bias=False)
    (params,) = interop.from_torch(GRU(H), {k: v.detach() for k, v in rnn.state_dict().items()})
    with torch.no_grad():
        close(ours(GRU(H), params), rnn(torch.tensor(XS))[0].numpy())


# --- what a pair does not have ------------------------------------------------------------------


def test_an_equinox_module_is_read_as_its_arrays_are():
    module = eqx.nn.GRUCell(D, H, key=jax.random.key(0))
    arrays = {name: getattr(module, name) for name in ("weight_ih", "weight_hh", "bias", "bias_n")}
    read = interop.from_equinox(GRU(H), module)
    assert_close(read, interop.from_equinox(GRU(H), arrays), "equinox", 0)
    bare = eqx.nn.LSTMCell(D, H, use_bias=False, key=jax.random.key(0))
    assert not np.any(interop.from_equinox(LSTM(H), bare)["input"]["bias"])


def test_an_mgu_of_flax_comes_in_as_a_gru_and_only_with_its_reset():
    shapes = jax.eval_shape(
        nn.MGUCell(H, reset_gate=False).init, jax.random.key(0), jnp.zeros((B, H)), XS[:, 0]
    )
    with pytest.raises(ValueError, match="expected an MGUCell with reset_gate=True"):
        interop.from_linen(GRU(H), random_like(shapes["params"], 2))


# --- cells inside each other's loops ------------------------------------------------------------


def test_our_cell_inside_flax_linen():
    for cell in (LSTM(H), MGU(H)):
        rnn = nn.RNN(LinenCell(cell))
        variables = rnn.init(jax.random.key(1), XS)
        params = variables["params"]["cell"]["cell"]
        close(rnn.apply(variables, XS), ours(cell, params))
    with pytest.raises(ValueError, match="expected a cell without a learned first state"):
        nn.RNN(LinenCell(GRU(H, learned_carry=True))).init(jax.random.key(0), XS)


def test_a_flax_cell_inside_unroll():
    inner = nn.MGUCell(H)
    cell = OfLinen(inner)
    params = random_like(cell.init(jax.random.key(0), D), 3)
    expected = nn.RNN(inner).apply({"params": {"cell": params["params"]}}, XS)
    close(unroll(cell, params, XS)[1], expected)
    mask = np.ones((B, T), bool)
    mask[0, 2] = False
    carry, ys = unroll(cell, params, XS, mask=mask)
    assert not np.any(ys[0, 2])
    assert carry.shape == (B, H)


def test_our_cell_as_an_nnx_module():
    module = NNXRecurrent(LSTM(H), D, rngs=nnx.Rngs(1))
    params = jax.tree.map(
        lambda leaf: leaf[...], module.params, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)
    )
    close(module(XS)[1], ours(LSTM(H), params))
    loss = lambda m: (m(XS)[1] ** 2).sum()  # noqa: E731
    gradient = nnx.to_pure_dict(nnx.grad(loss)(module))
    expected = jax.grad(lambda p: (unroll(LSTM(H), p, XS)[1] ** 2).sum())(params)
    assert_close(gradient["params"], expected, "nnx", 1e-5)


# --- files --------------------------------------------------------------------------------------


def test_a_file_keeps_every_bit_and_says_what_it_is_not(tmp_path: Path):
    params = LSTM(H, learned_carry=False).init(jax.random.key(0), D)
    params["input"]["bias"] = params["input"]["bias"].astype(jnp.bfloat16)
    interop.save_safetensors(tmp_path / "lstm.safetensors", params)
    assert_close(interop.load_safetensors(tmp_path / "lstm.safetensors"), params, "file", 0)
    (tmp_path / "no.safetensors").write_text("no")
    for name in ("no.safetensors", "missing.safetensors"):
        with pytest.raises(ValueError, match="expected a safetensors file at"):
            interop.load_safetensors(tmp_path / name)
    for bad, message in (({"a.b": XS}, "names without a dot"), ({"a": [1]}, "an array at 'a'")):
        with pytest.raises(ValueError, match=message):
            interop.save_safetensors(tmp_path / "bad", bad)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: interop.to_linen(MGU(H), {}), r"expected a cell that flax linen has too: .*MGU"),
        (lambda: interop.to_linen(GRU(H, reset="before"), {}), r"GRU\(reset='after'\); got GRU"),
        (lambda: interop.to_haiku(Elman(H), {}), r"Elman\(activation='relu'\)"),
        (lambda: interop.to_equinox(Elman(H), {}), "LSTM or GRU; got Elman"),
        (lambda: interop.to_keras(LSTM(H, learned_carry=True), {}), "no learned first state"),
        (lambda: interop.to_nnx(GRU(H), weights(GRU(H))), "recurrent.bias: expected zeros"),
        (
            lambda: interop.from_keras(GRU(H), [XS, XS, np.zeros(3 * H)]),
            r"a bias of shape \[2, 3H\]",
        ),
        (
            lambda: interop.from_keras(GRU(H, reset="before"), [XS, XS, np.zeros((2, 3 * H))]),
            r"a bias of shape \[3H\], from a GRU with reset_after=False",
        ),
        (
            lambda: interop.to_torch(LSTM(H), [{}] * 3, bidirectional=True),
            "expected two for each bidirectional layer, got 3",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_there_on_both_sides_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
