"""cuDNN's LSTM: all but the kernel runs here, on CPU, with jax's own reference in its place.

`jax.experimental.rnn.lstm_ref` takes the weights as `rnn.unpack_lstm_weights` takes the flat ones
apart, so what is packed is read by jax's code, not by ours.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import longlag as ll
from longlag.contrib import cudnn
from longlag.core.backends import BACKENDS
from longlag.core.options import ScanOptions

B, T, D, H = 3, 7, 4, 5
CELL = ll.LSTM(H)
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def reference(x, h0, c0, weights, lengths, *sizes):
    """What `rnn.lstm` computes, without CUDA; it differentiates by itself."""
    *sizes, precision = sizes
    assert precision in ("high", "highest") and lengths.dtype == jnp.int32
    unpacked = rnn.unpack_lstm_weights(weights, *sizes[:3], sizes[4])
    return rnn.lstm_ref(x, h0, c0, *unpacked, lengths, *sizes)


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cudnn, "has_cuda", lambda: True)
    monkeypatch.setattr(rnn, "lstm", reference)


def example(cell: Any = CELL):
    keys = jax.random.split(jax.random.key(0), 4)
    params = cell.init(keys[0], D)
    params["input"]["bias"] = jax.random.normal(keys[3], params["input"]["bias"].shape)
    if cell.learned_carry:
        params["carry"] = jax.tree.map(lambda leaf: leaf + 0.3, params["carry"])
    xs = jax.random.normal(keys[1], (B, T, D))
    carry = ll.LSTMCarry(*jax.random.normal(keys[2], (2, B, H)))
    return params, xs, carry


def assert_close(got: Any, want: Any):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, **CLOSE), got, want)


def values_and_gradients(method: Any, cell: Any = CELL, **options: Any):
    """The carry and outputs, and the pull of some cotangents in everything, compiled."""
    params, xs, carry = example(cell)
    if options.get("time_major"):
        xs = jnp.swapaxes(xs, 0, 1)

    def run(params, xs, carry):
        carry = None if cell.learned_carry else carry
        return ll.unroll(cell, params, xs, carry, method=method, **options)

    @jax.jit
    def both(*args):
        out, pull = jax.vjp(run, *args)
        return out, pull(jax.tree.map(lambda leaf: jnp.cos(3 * leaf), out))

    return both(params, xs, carry)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"time_major": True},
        {"reverse": True},
        {"remat": 3, "reverse": True, "time_major": True},
    ],
    ids=str,
)
def test_it_is_the_scan(options: dict[str, Any], on_cuda: None):
    """Values, last carry, and gradients in parameters, inputs and carry, compiled."""
    want = values_and_gradients("scan", **options)
    assert_close(values_and_gradients("cudnn", **options), want)


def test_a_first_state_is_learned(on_cuda: None):
    cell = dataclasses.replace(CELL, learned_carry=True)
    want = values_and_gradients("scan", cell)
    assert np.abs(want[1][0]["carry"].h).max() > 0
    assert_close(values_and_gradients("cudnn", cell), want)


def test_it_streams(on_cuda: None):
    params, xs, _ = example()
    carry, whole = ll.unroll(CELL, params, xs, method="cudnn")
    half, first = ll.unroll(CELL, params, xs[:, :3], method="cudnn")
    last, second = ll.unroll(CELL, params, xs[:, 3:], half, method="cudnn")
    assert_close((last, jnp.concatenate([first, second], 1)), (carry, whole))


def test_one_step_and_one_row(on_cuda: None):
    params, xs, _ = example()
    for part in (xs[:1], xs[:, :1], xs[:1, :1]):
        want = ll.unroll(CELL, params, part)
        assert_close(ll.unroll(CELL, params, part, method="cudnn"), want)


def test_packed_weights_are_those_of_jax():
    """Size and place of each array, by jax's own unpacking; gates in the order i, f, g, o."""
    params, _, _ = example()
    weights = cudnn.pack(params)
    assert weights.shape == (rnn.get_num_params_in_lstm(D, H, 1, False),)
    kernel, recurrent, bias, other = (
        w[0] for w in rnn.unpack_lstm_weights(weights, D, H, 1, False)
    )
    np.testing.assert_array_equal(kernel, params["input"]["kernel"].T)
    np.testing.assert_array_equal(recurrent, params["recurrent"]["kernel"].T)
    np.testing.assert_array_equal(bias, params["input"]["bias"])
    np.testing.assert_array_equal(other, 0)
    for gate, part in zip("ifgo", np.split(np.asarray(recurrent), 4)):
        np.testing.assert_array_equal(part.T, CELL.recurrent_kernel(params, gate))


def test_weights_make_the_round_trip():
    params, _, _ = example()
    back = cudnn.unpack(cudnn.pack(params), D, H)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_weights_of_jax_are_taken_over():
    """With two biases that are not zero: they are added."""
    _, xs, carry = example()
    weights = rnn.init_lstm_weight(jax.random.key(1), D, H, 1, False)
    lengths = jnp.full(B, T, jnp.int32)
    args = (xs, carry.h[None], carry.c[None], weights, lengths)
    ys, h, c = reference(*args, D, H, 1, 0.0, False, "highest")
    got = ll.unroll(CELL, cudnn.unpack(weights, D, H), xs, carry)
    assert_close(got, (ll.LSTMCarry(h[0], c[0]), ys))


def test_weights_of_another_size():
    with pytest.raises(
        ValueError, match=r"expected shape \(220,\) for D = 4 and H = 5; got \(3,\)"
    ):
        cudnn.unpack(jnp.zeros(3), D, H)


class Wider(ll.LSTM):
    """A type of its own, which might have another update."""


FLAGS = jnp.ones((B, T), bool)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mask": FLAGS}, r"mask: expected None: .* \(method 'cudnn'\); got shape \(7, 3\)"),
        ({"resets": FLAGS}, r"resets: expected None"),
        ({"carries": "all"}, r"carries: expected 'last'.*got 'all'"),
        ({"backward": "store"}, r"backward: expected 'auto'.*got 'store'"),
        ({"backward": "autodiff"}, r"backward: expected 'auto'.*got 'autodiff'"),
        ({"mask": FLAGS, "remat": 2}, r"mask: expected None"),
        ({"zoneout": 0.1}, r"zoneout: expected 0 for method 'cudnn'.*got 0.1"),
    ],
    ids=str,
)
def test_options_that_it_refuses(options: dict[str, Any], expected: str):
    """Before it asks for a device, so that the message is the same everywhere."""
    params, xs, _ = example()
    with pytest.raises(ValueError, match=expected):
        ll.unroll(CELL, params, xs, method="cudnn", **options)


@pytest.mark.parametrize("cell", [ll.GRU(H), ll.Elman(H), ll.MinGRU(H), Wider(H)], ids=str)
def test_cells_that_it_refuses(cell: ll.Cell):
    expected = rf"'cudnn' runs a cell of type LSTM; got a {type(cell).__name__}"
    with pytest.raises(ValueError, match=expected):
        ll.unroll(cell, cell.init(jax.random.key(0), D), jnp.ones((B, T, D)), method="cudnn")


def test_numbers_that_it_refuses():
    params, xs, carry = example()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, xs, carry))
    for name, args in {
        r"params\['input'\]\['bias'\]": (half[0], xs, carry),
        "xs": (params, half[1], carry),
        r"carry\.h": (params, xs, half[2]),
    }.items():
        with pytest.raises(ValueError, match=name + r": expected float32 .*; got bfloat16"):
            ll.unroll(CELL, *args, method="cudnn")


@pytest.mark.parametrize(("rows", "steps"), [(B, 0), (0, T)])
def test_nothing_to_run(rows: int, steps: int):
    params, _, _ = example()
    expected = rf"xs: expected at least one step and one row .*; got T = {steps}, B = {rows}"
    with pytest.raises(ValueError, match=expected):
        ll.unroll(CELL, params, jnp.zeros((rows, steps, D)), method="cudnn")


def test_no_cuda_device():
    if cudnn.has_cuda():
        pytest.skip("this is CUDA")
    params, xs, _ = example()
    run = jax.jit(lambda xs: ll.unroll(CELL, params, xs, method="cudnn"))
    with pytest.raises(ValueError, match="expected a CUDA device; got "):
        run.lower(xs)


@pytest.mark.parametrize(
    ("setting", "precision"),
    [(None, "high"), ("tensorfloat32", "high"), ("float32", "highest"), ("highest", "highest")],
)
def test_precision_is_what_jax_is_told(
    setting: str | None, precision: str, on_cuda: None, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    monkeypatch.setattr(rnn, "lstm", lambda *args: seen.append(args[-1]) or reference(*args))
    params, xs, _ = example()
    with jax.default_matmul_precision(setting):  # type: ignore[arg-type]
        jax.eval_shape(lambda xs: ll.unroll(CELL, params, xs, method="cudnn"), xs)
    assert seen == [precision]
    # What jax makes of the name: cuDNN may round to TF32, or not.
    assert rnn._lstm_cudnn_allow_tf32(precision) is (precision == "high")


def test_a_precision_that_it_lacks(on_cuda: None):
    params, xs, _ = example()
    expected = "jax_default_matmul_precision: expected one of None, default, .*; got bfloat16"
    with jax.default_matmul_precision("bfloat16"), pytest.raises(ValueError, match=expected):
        ll.unroll(CELL, params, xs, method="cudnn")


def last(params, xs):
    return ll.unroll(CELL, params, xs, method="cudnn")[1][:, -1].sum()


VMAPPED = {
    "inputs": lambda params, xs: jax.vmap(last, (None, 0))(params, xs),
    "seeds": lambda params, xs: jax.vmap(last, (0, None))(
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params), xs[0]
    ),
    "a gradient": lambda params, xs: jax.vmap(jax.grad(last), (None, 0))(params, xs),
    "inside a gradient": jax.grad(lambda params, xs: jax.vmap(last, (None, 0))(params, xs).sum()),
    "a compiled one": lambda params, xs: jax.vmap(jax.jit(last), (None, 0))(params, xs),
    "compiled": jax.jit(lambda params, xs: jax.vmap(last, (None, 0))(params, xs)),
    "a compiled gradient": lambda params, xs: jax.vmap(jax.jit(jax.grad(last)), (None, 0))(
        params, xs
    ),
    "a checkpoint": lambda params, xs: jax.vmap(jax.grad(jax.checkpoint(last)), (None, 0))(
        params, xs
    ),
    "the pullback": lambda params, xs: jax.jacrev(
        lambda params: ll.unroll(CELL, params, xs[0], method="cudnn")[1]
    )(params),
}


@pytest.mark.parametrize("where", VMAPPED)
def test_vmap_is_refused(where: str, on_cuda: None):
    params, xs, _ = example()
    expected = "vmap: expected none around method 'cudnn'.*got one of size"
    with pytest.raises(ValueError, match=expected):
        VMAPPED[where](params, jnp.stack([xs, xs]))


def test_seeds_one_after_another(on_cuda: None):
    params, xs, _ = example()
    seeds = jnp.stack([xs, -xs])
    both = jax.jit(lambda xs: jax.value_and_grad(last)(params, xs))
    got = jax.lax.map(both, seeds)
    each = [both(one) for one in seeds]
    assert_close(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))


def test_nothing_is_imported_unasked():
    code = "import sys, longlag; print('jax.experimental.rnn' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_kernel_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    """A name and a function are all that it takes, and every option reaches it."""
    seen = {}

    def gru(cell, params, carry, xs, options, **arrays):
        seen.update(arrays, options=options)
        options = dataclasses.replace(options, method="scan")
        return cell.scan(params, carry, xs, options, **arrays)

    monkeypatch.setitem(BACKENDS, "fused", {ll.GRU: gru})
    cell = ll.GRU(H)
    params, (_, xs, _) = cell.init(jax.random.key(0), D), example()
    method: Any = "fused"
    got = ll.unroll(cell, params, xs, mask=FLAGS, reverse=True, method=method)
    assert_close(got, ll.unroll(cell, params, xs, mask=FLAGS, reverse=True, method="scan"))
    assert seen["options"] == ScanOptions(reverse=True, method=method)
    assert seen["mask"].shape == (T, B)
    with pytest.raises(ValueError, match="'fused' runs a cell of type GRU; got a LSTM"):
        ll.unroll(CELL, example()[0], xs, method=method)


def test_a_name_that_does_not_exist():
    params, xs, _ = example()
    method: Any = "cudn"
    with pytest.raises(ValueError, match=r"scan, .*cudnn; got 'cudn'. Did you mean 'cudnn'"):
        ll.unroll(CELL, params, xs, method=method)
