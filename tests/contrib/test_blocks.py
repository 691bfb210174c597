"""The blocks of the papers; `test_layers.py` has the equations of their mixers, and streaming."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import LSTM, unroll
from longlag.analysis.diagnostics import recurrences
from longlag.attention import DotProduct
from longlag.cells import MLSTM, RGLRU, S6, SLSTM, DeltaNet, GatedDeltaNet
from longlag.contrib.blocks import (
    GatedDeltaNetMixer,
    GriffinMixer,
    MambaMixer,
    gated_delta_net,
    griffin,
    griffin_attention,
    griffin_recurrent,
    mamba,
)
from longlag.contrib.blocks.xlstm_blocks import LAYER_NORM, MLSTMMixer, SLSTMMixer, mlstm, slstm
from longlag.models import SequenceModel
from longlag.nn import MLP, Block, Dense, Dropout, Norm, Recurrent, Repeated, Residual, Stack


def parameters(layer, width: int) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init(layer, width))))


def init(layer, width: int):
    return lambda: layer.init(jax.random.key(0), width)


def test_the_blocks_have_the_parameters_of_published_models():
    """Whole models whose number of parameters is known to the last one."""
    mamba_130m = Stack((Repeated(mamba(768), 24), Norm()))
    assert parameters(mamba_130m, 768) + 50_280 * 768 == 129_135_360
    # Their attention's last map has a bias.
    layers = griffin(2560, 26, heads=10, recurrent_features=2560, blocks=10)
    recurrent_gemma_2b = parameters(Stack((*layers, Norm())), 2560) + 8 * 2560
    assert recurrent_gemma_2b + 256_000 * 2560 == 2_682_862_080
    # "around 6 D² parameters" in the authors' code.
    of_delta_net = parameters(GatedDeltaNetMixer(2048, heads=6, key_features=256), 2048)
    assert of_delta_net == pytest.approx(6 * 2048**2, rel=0.01)


def test_what_stands_around_a_mixer():
    recurrent = Stack((Residual(GriffinMixer(8)), Residual(MLP(24, gated=True))))
    attention = DotProduct(8, heads=2, kv_heads=1, window=5)
    attention = Stack((Residual(attention), Residual(MLP(24, gated=True))))
    assert griffin_recurrent(8) == recurrent and griffin_attention(8, 2, 5) == attention
    turn = Stack((recurrent, recurrent, attention))
    assert griffin(8, 8, 2, 5) == (Repeated(turn, 2), recurrent, recurrent)
    assert griffin(8, 2, 2, 5) == (recurrent, recurrent)
    assert griffin(8, 4, 2, 5) == (turn, recurrent)
    assert mamba(8, state=3) == Residual(MambaMixer(8, state=3))
    assert mlstm(8) == Residual(MLSTMMixer(8), LAYER_NORM)
    after = Residual(MLP(11, gated=True, bias=False), LAYER_NORM)
    assert slstm(8) == Stack((Residual(SLSTMMixer(8), LAYER_NORM), after))
    delta = Residual(GatedDeltaNetMixer(16))
    assert gated_delta_net(16) == Stack((delta, Residual(MLP(43, "silu", gated=True, bias=False))))


def test_default_widths():
    assert GriffinMixer(96).width == 128 and GriffinMixer(64).width == 96  # a multiple of 16
    params = jax.eval_shape(init(MambaMixer(64), 64))
    assert params["s6"]["step"]["kernel"].shape == (4, 128)  # ⌈64 / 16⌉, not ⌈128 / 16⌉
    params = jax.eval_shape(init(GatedDeltaNetMixer(64), 64))
    assert params["out"]["kernel"].shape == (96, 64)


def test_a_model_of_blocks_is_accounted_for():
    model = SequenceModel("tokens", 5, 8, griffin(8, 4, 2, window=3, blocks=2), 5)
    found = model.cost(9)
    # Of each recurrent block 12 numbers of state and 3 inputs of 12; one key and value of 4 in 3.
    assert found.recurrent_bytes == 4 * 3 * (12 + 3 * 12)
    assert found.cache_bytes == 4 * (3 * (2 * 4 + 1) + 1)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    paths = [path for path, cell, _ in recurrences(model, params) if cell.features == 12]
    assert paths == [f"{at}/0/inner/rg_lru/" for at in ("0/0", "0/1", "1")]


class Twice(Block):
    """A part that is run twice, or noise and a recurrence."""

    again: bool = False

    @property
    def parts(self):
        return {"lstm": Recurrent(LSTM(self.features)), "drop": Dropout(0.5)}

    def equation(self, run, xs):
        ys = run("drop", run("lstm", xs))
        return run("lstm", ys) if self.again else 2 * ys


def test_a_block_of_ones_own_has_probes_noise_and_names():
    block = Twice(3)
    params, xs = block.init(jax.random.key(0), 3), jnp.ones((4, 2, 3))
    assert set(params) == {"lstm", "drop"}
    _, ys = unroll(LSTM(3), params["lstm"], xs, time_major=True)
    found = block.probe(params, xs)
    assert set(found) == {"lstm/inputs", "lstm/outputs", "drop/outputs", "outputs"}
    np.testing.assert_array_equal(found["outputs"], 2 * ys)
    noisy = block.apply(params, xs, key=jax.random.key(1))[1]
    assert np.any(noisy == 0) and np.any(noisy != 0)
    state = block.init_state(params, (2,), 5)
    assert set(state) == {"lstm", "drop"} and block.cache_of(state) == {"lstm": (), "drop": ()}
    with pytest.raises(ValueError, match="state: expected one of lstm, drop; got list"):
        block.apply(params, xs, [state])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Twice(3, again=True).init(None, 3), "each part to be run once; 'lstm' is twice"),
        (lambda: MambaMixer(8).init(None, 6), "MambaMixer.features: expected .*, 6; got 8"),
        (lambda: MambaMixer(0), "MambaMixer.features: expected at least 1, got 0"),
        (lambda: MambaMixer(8, state=0), "S6.state: expected at least 1, got 0"),
        (lambda: GriffinMixer(8, blocks=0), "GriffinMixer.blocks: expected at least 1, got 0"),
        (lambda: GriffinMixer(8, 9, 2).init(jax.random.key(0), 8), "a divisor of 9 and 9"),
        (lambda: MLSTMMixer(6, block=5), "MLSTMMixer.block: expected a divisor of 12 .*got 5"),
        (lambda: MLSTMMixer(6, heads=5), "MLSTM.heads: expected a divisor of features = 12, got 5"),
        (lambda: SLSTMMixer(6), "SLSTM.heads: expected a divisor of features = 6, got 4"),
        (lambda: GatedDeltaNetMixer(10), "key_features: expected a number, .*got None"),
        (lambda: griffin(8, 0), "griffin depth: expected at least 1, got 0"),
        (lambda: MLSTM(8, input_kernel=False), "MLSTM: expected output_gate=False"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_impossible_block_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("cell", "width"),
    [
        (RGLRU(4, input_kernel=False), 12),
        (S6(4, input_kernel=False), 4),
        (SLSTM(4, input_kernel=False), 16),
        (MLSTM(4, input_kernel=False, output_gate=False), 20),
        (DeltaNet(4, input_kernel=False), 16),
        (GatedDeltaNet(4, input_kernel=False), 20),
    ],
    ids=repr,
)
def test_a_cell_without_an_input_kernel_says_what_it_wants(cell, width):
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), width))
    assert "kernel" not in params.get("input", {})
    with pytest.raises(ValueError, match=f"expected {width} features, the parts of .*; got 3"):
        cell.init(jax.random.key(0), 3)
    with pytest.raises(ValueError):
        jax.eval_shape(lambda p: unroll(cell, p, jnp.ones((1, 2, 3))), params)
    low = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), params)
    xs = jax.ShapeDtypeStruct((1, 2, width), jnp.bfloat16)
    assert jax.eval_shape(lambda p, x: unroll(cell, p, x), low, xs)[1].dtype == jnp.float32


def test_dense_blocks_keep_the_variance():
    kernel = Dense(400, blocks=4).init(jax.random.key(0), 400)["kernel"]
    assert kernel.shape == (4, 100, 100)
    assert np.std(kernel) == pytest.approx(100**-0.5, rel=0.05)
