from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.attention import Additive, DotProduct, Multiplicative
from longlag.attention.read import Read
from longlag.cells import GRU, LSTM, FeedForward
from longlag.models import SequenceModel, build
from longlag.nn import MLP, Dense, Dropout, Recurrent, Repeated, Residual, ShortConvolution, Stack
from longlag.testing.running import jit
from tests.helpers.layer_oracle import answers
from tests.helpers.streams import CHUNK, B, T, close, drawn_like, flags, same

V, H = 7, 6


def build_small(attention: str = "none", **options):
    """One head, where there are any: two need an even width each."""
    heads = {"heads": 1} if attention in ("window", "full") else {}
    small = {"inputs": "tokens", "in_features": V, "out_features": 5, "width": H}
    return build(attention=attention, **(small | heads | options))


MODELS = {
    "lstm-additive": build_small(cell=LSTM(H), attention="additive"),
    "lstm-full": build_small(cell=LSTM(H), attention="full"),
    "lstm-window": build_small(cell=LSTM(4), attention="window", window=3, mlp=4),
    "full-full": build_small(cell=None, attention="full"),
    # The arm without memory on a fixed window of the inputs.
    "inputs": build_small(inputs="features", in_features=3, cell=FeedForward(H, window=4)),
}


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


def parameters(model: SequenceModel, seed: int = 0):
    return drawn_like(jax.eval_shape(model.init, jax.random.key(0)), np.random.default_rng(seed))


def drawn(model: SequenceModel):
    """Parameters, inputs and the gradient that comes back."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, V, (B, T)).astype(np.int32)
    inputs = tokens if model.inputs == "tokens" else rng.normal(size=(B, T, model.in_features))
    return parameters(model), inputs, rng.normal(size=(B, T, model.out_features))


def batch_flags():
    mask, resets = flags()
    return mask.T, resets.T


@functools.cache
def program(model: SequenceModel, size: int | None, with_gradients: bool):
    """One compiled program: answers, last state, gradients; whole or chunk after chunk."""

    def outputs(params, inputs, mask, resets):
        if size is None:
            state, ys = model.apply(params, inputs, mask=mask, resets=resets)
            assert state is None
            return ys, state

        def cut(x):
            return jnp.swapaxes(x.reshape(B, -1, size, *x.shape[2:]), 0, 1)

        def body(state, chunk):
            return model.apply(params, chunk[0], state, mask=chunk[1], resets=chunk[2])

        state = model.init_state(params, B, T)
        state, ys = jax.lax.scan(body, state, jax.tree.map(cut, (inputs, mask, resets)))
        return jnp.swapaxes(ys, 0, 1).reshape(B, T, -1), state

    @jit
    def run(params, inputs, mask, resets, gradient):
        if not with_gradients:
            return *outputs(params, inputs, mask, resets), None
        ys, pull, state = jax.vjp(lambda p: outputs(p, inputs, mask, resets), params, has_aux=True)
        return ys, state, pull(gradient)[0]

    return run


def with_gradients(name: str, size: int | None) -> bool:
    """Which programs have gradients; they compile slowly, and the rest is left to deep tests."""
    return name in ("lstm-additive", "inputs") and size == CHUNK


def slopes(model, params, inputs, mask, resets, gradient) -> list:
    """A random direction for every leaf, and the derivative along it by the complex step."""
    rng = np.random.default_rng(2)
    leaves, structure = jax.tree.flatten(params)
    found = []
    for i, leaf in enumerate(leaves):
        direction = rng.normal(size=leaf.shape)
        moved = [*leaves[:i], leaf + 1e-30j * direction, *leaves[i + 1 :]]
        ys = answers(model, jax.tree.unflatten(structure, moved), inputs, mask, resets)
        found.append((direction, np.sum(ys.imag * gradient) / 1e-30))
    return found


def check(name: str, sizes, gradients_of) -> None:
    model = MODELS[name]
    params, inputs, gradient = drawn(model)
    mask, resets = batch_flags()
    expected = answers(model, params, inputs, mask, resets)
    states = []
    for size in sizes:
        run = program(model, size, gradients_of(name, size))
        ys, state, gradients = run(params, inputs, mask, resets, gradient)
        close(ys, expected)
        if size is not None:
            states.append(state)
        if gradients is not None:
            lines = slopes(model, params, inputs, mask, resets, gradient)
            for got, (direction, slope) in zip(jax.tree.leaves(gradients), lines):
                np.testing.assert_allclose(np.sum(got * direction), slope, 1e-9, 1e-9)
    for state in states[1:]:
        close(state, states[0])


def test_whole_chunks_and_steps_equal_the_oracle(name, x64):
    check(name, (None, CHUNK, 1), with_gradients)


@pytest.mark.deep
def test_all_gradients_equal_the_oracle(name, x64):
    check(name, (None, CHUNK, 3, 1), lambda name, size: True)


def test_what_is_masked_reaches_nothing(name, x64):
    model = MODELS[name]
    params, inputs, gradient = drawn(model)
    mask, resets = batch_flags()
    hidden = inputs.copy()
    hidden[~mask] = 99 if model.inputs == "tokens" else np.nan
    for size in (None, CHUNK):
        run = program(model, size, with_gradients(name, size))
        clean = run(params, inputs, mask, resets, gradient)
        same(run(params, hidden, mask, resets, gradient), clean)


def test_a_token_outside_the_table_gives_nan_from_there_on(name, x64):
    model = MODELS[name]
    params, inputs, gradient = drawn(model)
    mask, resets = batch_flags()
    if model.inputs == "tokens":
        inputs[:4, 6], inputs[4:, 6] = V, -1
    else:
        inputs[:, 6] = np.nan
    expected = answers(model, params, inputs, mask, resets)
    assert np.isnan(expected[0, 6]).all() and not np.isnan(expected[:, :6]).any()
    for size in (None, CHUNK, 1):
        run = program(model, size, with_gradients(name, size))
        close(run(params, inputs, mask, resets, gradient)[0], expected)


def test_probes_show_where_the_attention_looks(x64):
    model = MODELS["lstm-additive"]
    params, inputs, _ = drawn(model)
    mask, resets = batch_flags()
    found = jit(model.probe)(params, inputs, mask=mask, resets=resets)
    weights = np.asarray(found["1/inner/inner/weights"])
    close(weights.sum(axis=-1), mask.astype(float))
    assert not np.any(np.triu(weights, 1))
    head = params["head"]
    ys = np.swapaxes(found["outputs"], 0, 1) @ head["kernel"] + head["bias"]
    close(np.where(mask[..., None], ys, 0), answers(model, params, inputs, mask, resets))


# Parameters, seeds and compilation


def test_seeds_side_by_side_equal_seeds_apart(x64):
    model = MODELS["full-full"]
    fresh = jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), 3))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(fresh["head"]))
    table = np.asarray(fresh["embed"]["embedding"])
    assert table.shape == (3, V, H) and np.all(table[0] != table[1])

    _, inputs, gradient = drawn(model)
    flags = batch_flags()
    apart = [parameters(model, seed) for seed in range(3)]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *apart)
    apply = jit(jax.vmap(lambda p: model.apply(p, inputs, mask=flags[0], resets=flags[1])[1]))
    for ys, params in zip(apply(together), apart):
        close(ys, program(model, None, False)(params, inputs, *flags, gradient)[0])


def test_equal_models_built_apart_are_one_static_argument():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def width(model, x):
        traced.append(model)
        return x * model.width

    for _ in range(3):
        width(build_small(cell=LSTM(H), attention="full"), 1.0)
    assert len(traced) == 1
    width(build_small(cell=LSTM(H), attention="window"), 1.0)
    width(build_small(cell=LSTM(H, forget_bias=2.0), attention="full"), 1.0)
    assert len(traced) == 3


# How a model is put together


def spread(layers):
    """One block after another, also where equal ones are one layer."""
    return [
        block
        for layer in layers
        for block in ([layer.inner] * layer.count if isinstance(layer, Repeated) else [layer])
    ]


def test_the_attention_takes_the_place_of_the_middle_block_or_of_every_second():
    lstm = Residual(Recurrent(LSTM(H)))
    full = Residual(DotProduct(H, heads=1))
    for depth, middle in ((2, 1), (3, 1), (4, 2), (5, 2)):
        model = build_small(cell=LSTM(H), attention="full", depth=depth)
        assert spread(model.layers) == [*[lstm] * middle, full, *[lstm] * (depth - middle - 1)]
        turns = build_small(cell=LSTM(H), attention="full", depth=depth, pattern="interleaved")
        assert turns.layers == ((lstm, full) * depth)[:depth]
        assert build_small(cell=LSTM(H), depth=depth).layers == (Repeated(lstm, depth),)
        with pytest.raises(ValueError, match=r"model pattern: expected 'middle', since .* a cell"):
            build_small(cell=None, attention="full", depth=depth, pattern="interleaved")
        alone = build_small(cell=None, attention="full", depth=depth)
        assert alone.layers == (Repeated(full, depth),)
    assert build_small(cell=None, attention="full", depth=1).layers == (full,)


def test_the_kinds_of_attention_and_their_placements():
    def second(attention, **options):
        return build_small(cell=GRU(H), attention=attention, **options).layers[1].inner

    additive, full = Additive(H), DotProduct(H, heads=1)
    assert second("additive") == second("additive", placement="read") == Read(additive)
    assert second("additive", placement="block") == additive
    assert second("full") == second("full", placement="block") == full
    assert second("full", placement="read") == Read(full)
    assert second("multiplicative") == Read(Multiplicative(H))
    assert second("window", window=9) == DotProduct(H, heads=1, window=9)
    assert second("full", heads=2, positions="none").positions == "none"


def test_what_stands_around_a_mixer():
    wide = build_small(cell=LSTM(10), mlp=8, dropout=0.1, depth=1)
    mixer = Stack((Recurrent(LSTM(10)), Dense(H), Dropout(0.1)))
    assert wide.layers == (Stack((Residual(mixer), Residual(Stack((MLP(8), Dropout(0.1)))))),)
    conv = build_small(cell=LSTM(H), convolution=3, depth=1)
    assert conv.layers == (Residual(Stack((ShortConvolution(3), Recurrent(LSTM(H))))),)


def test_equal_blocks_cost_what_they_cost_apart():
    """XLA counts the body of a loop once, however often it is run."""
    one, three = (build_small(cell=LSTM(H), depth=depth, mlp=4).cost(9) for depth in (1, 3))
    two = build_small(cell=LSTM(H), depth=2, mlp=4).cost(9)
    for name in ("parameters", "recurrent_bytes", "flops_per_token"):
        costs = [getattr(each, name) for each in (one, two, three)]
        assert costs[2] - costs[1] == costs[1] - costs[0] > 0, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "ful"}, "unknown attention: expected one of none.* got 'ful'.*'full'"),
        ({"attention": "full", "placement": "raed"}, "unknown placement: .*'read'"),
        ({"attention": "full", "positions": "rotari"}, "'rotary'"),
        ({"inputs": "token"}, "inputs: .*'tokens'"),
        ({"cell": None}, "expected a cell or an attention; got neither"),
        ({"attention": "full", "depth": 1}, "depth: expected at least 2 .*, got 1"),
        ({"depth": 0}, "depth: expected at least 1, got 0"),
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"mlp": -1}, "mlp: expected at least 0, got -1"),
        ({"attention": "full", "heads": 4}, "multiple of 8 .* got 6"),
        ({"attention": "window", "window": 0}, "window: expected at least 1, got 0"),
        ({"dropout": 1.0}, "rate < 1, got 1.0"),
        ({"placement": "block"}, "placement: expected 'auto', .*attention 'none'; got 'block'"),
        ({"pattern": "interleaved"}, "pattern: expected 'middle', .*; got 'interleaved'"),
        ({"attention": "additive", "heads": 2}, "heads: expected 4, .*'additive'; got 2"),
        ({"attention": "multiplicative", "positions": "none"}, "positions: expected 'rotary'"),
        ({"attention": "full", "window": 9}, "window: expected 16, .*no effect .*'full'; got 9"),
        ({"mixer_parameters": -1}, "mixer_parameters: expected at least 0, got -1"),
        (
            {"mixer_parameters": 99, "cell": LSTM(3)},
            "at the width 6, .*got 99 and 3 features",
        ),
        ({"mixer_parameters": 1}, "1 parameters within 5% .*the nearest is [0-9]+, of .*LSTM"),
    ],
)
def test_impossible_models_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_small(**({"cell": LSTM(H)} | options))


tokens, features = np.zeros((2, 5), np.int32), np.zeros((2, 5, 3))


@pytest.mark.parametrize(
    ("kind", "inputs", "flag", "message"),
    [
        ("tokens", tokens[0], {}, r"expected \[B, T, ...\], got shape \(5,\)"),
        ("tokens", tokens[..., None], {}, r"integers of shape \[B, T\]; got int32 .*\(2, 5, 1\)"),
        ("tokens", tokens.astype(np.float32), {}, "integers .* got float32"),
        ("features", features[..., :2], {}, r"shape \[B, T, 3\]; got float32 .*\(2, 5, 2\)"),
        ("features", tokens, {}, r"\[B, T, 3\]; got int32 of shape \(2, 5\)"),
        ("tokens", tokens, {"mask": np.ones((5, 2), bool)}, r"mask: .*\(2, 5\).*bool .*\(5, 2\)"),
        ("tokens", tokens, {"mask": np.ones((2, 5))}, "mask: expected bool.* got float64"),
        ("tokens", tokens, {"resets": np.ones((2, 4), bool)}, r"resets: .*\(2, 5\).*\(2, 4\)"),
        ("tokens", tokens, {"state": [()]}, "a list of 3 states, one per layer; got 1"),
    ],
)
def test_wrong_inputs_are_refused(kind, inputs, flag, message):
    model = MODELS["lstm-full" if kind == "tokens" else "inputs"]
    with pytest.raises(ValueError, match=message):
        model.apply(parameters(model), inputs, **flag)


# What a model costs

EMBED_HEAD_NORM = V * H + H * 5 + 5 + H  # table, head, last norm
LSTM_BLOCK = H + 4 * H * (H + H + 1)  # norm, kernels and biases
READ_BLOCK = H + H * (2 * H + 2) + H * (2 * H + 1)  # norm, attention of width H, join
FULL_BLOCK = H + 4 * H * H
SLOT = 4  # bytes of a position


@pytest.mark.parametrize(
    ("name", "parameter_count", "recurrent", "per_step"),
    [
        # An LSTM carries h and c, the feed-forward network what it will still add to 3 outputs.
        ("lstm-additive", EMBED_HEAD_NORM + LSTM_BLOCK + READ_BLOCK, 2 * H, 2 * H),
        ("lstm-full", EMBED_HEAD_NORM + LSTM_BLOCK + FULL_BLOCK, 2 * H, 2 * H),
        ("full-full", EMBED_HEAD_NORM + 2 * FULL_BLOCK, 0, 2 * 2 * H),
        ("inputs", (3 + 1) * H + H * 5 + 5 + H + 2 * (H + H * (4 * H + 1)), 2 * 3 * H, 0),
    ],
)
def test_the_cost_is_what_the_arrays_take(name, parameter_count, recurrent, per_step):
    model = MODELS[name]
    short, long = model.cost(10), model.cost(25)
    assert short.parameters == long.parameters == parameter_count
    assert short.parameters == sum(leaf.size for leaf in jax.tree.leaves(parameters(model)))
    assert short.recurrent_bytes == long.recurrent_bytes == 4 * recurrent
    attentions = per_step // (2 * H)
    for length, found in ((10, short), (25, long)):
        # Each step leaves its entry and its position; a row of each attention has one counter.
        assert found.cache_bytes == length * (4 * per_step + SLOT * attentions) + 4 * attentions
        state = model.init_state(jax.tree.map(np.float32, parameters(model)), 1, length)
        assert found.state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert (long.flops_per_token > short.flops_per_token) == bool(per_step)


def test_a_window_costs_the_same_at_every_length():
    model = MODELS["lstm-window"]
    assert model.cost(3) == model.cost(3000)
    wider = build_small(cell=LSTM(4), attention="window", window=5, mlp=4)
    assert wider.cost(3).cache_bytes - model.cost(3).cache_bytes == 2 * (4 * 2 * H + SLOT)
    assert dataclasses.asdict(model.cost(3)).keys() == {
        *("parameters", "recurrent_bytes", "cache_bytes", "flops_per_token")
    }
