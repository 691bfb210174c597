from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import unroll
from longlag.attention import Additive, Cache, DotProduct
from longlag.attention.read import Read
from longlag.cells import GRU, LSTM
from longlag.contrib.blocks import (
    GatedDeltaNetMixer,
    GriffinMixer,
    MambaMixer,
    MLSTMMixer,
    SLSTMMixer,
)
from longlag.core.cell import Cell
from longlag.nn import (
    MLP,
    Bidirectional,
    Block,
    Dense,
    Dropout,
    Gated,
    Layer,
    Norm,
    Recurrent,
    Repeated,
    Residual,
    Scale,
    ShortConvolution,
    Stack,
)
from longlag.testing.running import jit
from tests.helpers.layer_oracle import forward
from tests.helpers.streams import CHUNK, B, T, close, drawn_like, flags, same

D = 4


def drawn(layer, rng, features: int = D):
    params = drawn_like(
        jax.eval_shape(lambda: layer.init(jax.random.key(0), features)), np.random.default_rng(3)
    )
    return params, rng.normal(size=(T, B, features))


POINTWISE = [
    Dense(3),
    Dense(6, blocks=2, bias=False),
    Scale(),
    MLP(6),
    MLP(6, "silu", gated=True),
    MLP(6, gated=True, bias=False),
    Norm(),
    Norm(groups=2),
    Norm(epsilon=1e-5, groups=2, centered=True),
]


@pytest.mark.parametrize("layer", POINTWISE, ids=repr)
def test_pointwise_layers_equal_their_equations(layer, rng, x64):
    params, xs = drawn(layer, rng)
    mask, resets = flags()
    state, ys = layer.apply(params, xs, (), mask=mask, resets=resets)
    assert state == ()
    assert layer.init_state(params, (B,), 5) == () == layer.cache_of(())
    assert ys.shape[-1] == layer.out_features(D)
    close(ys, forward(layer, params, xs, mask, resets))


@pytest.mark.parametrize("layer", POINTWISE, ids=repr)
def test_pointwise_layers_compute_in_at_least_float32_and_stand_zero(layer, rng):
    params, _ = drawn(layer, rng)
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    xs = jnp.zeros((2, 3, D), jnp.bfloat16)

    @jit
    def run(params, xs):
        ys, pull = jax.vjp(lambda p, x: layer.apply(p, x)[1], params, xs)
        return ys, pull(jnp.ones_like(ys))

    ys, gradients = run(low, xs)
    assert ys.dtype == jnp.float32
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((ys, gradients)))


# Dropout


def test_dropout_acts_with_a_key_only_and_keeps_the_mean(rng):
    xs = rng.normal(size=(50, 40, 20)).astype(np.float32) + 2
    layer = Dropout(0.3)
    assert layer.init(None, 20) == {}
    xs = jnp.asarray(xs)
    assert layer.apply({}, xs)[1] is xs
    assert Dropout(0.0).apply({}, xs, key=jax.random.key(1))[1] is xs
    noisy = jit(lambda key: layer.apply({}, xs, key=key)[1])
    ys = np.asarray(noisy(jax.random.key(1)))
    kept = ys != 0
    np.testing.assert_allclose(ys[kept], xs[kept] / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / xs.size)
    assert abs(ys.mean() - xs.mean()) < 5 * ys.std() / np.sqrt(xs.size)
    assert np.any(kept[0] != kept[1])  # fresh at every step
    assert np.any(kept != (np.asarray(noisy(jax.random.key(2))) != 0))


def test_each_layer_of_a_stack_draws_its_own_noise():
    stack = Stack((Dropout(0.5), Residual(Stack((Dropout(0.5), Dropout(0.5))))))
    params = {"0": {}, "1": {"norm": {"scale": np.ones(20)}, "inner": {"0": {}, "1": {}}}}
    xs = jnp.ones((40, 50, 20))
    run = jit(lambda key: stack.apply(params, xs, key=key)[1])
    ys = np.asarray(run(jax.random.key(3)))
    # Half survive the first; to a quarter of these the two of the residual add something.
    assert abs(np.mean(ys > 0) - 0.5) < 0.02
    assert abs(np.mean(ys > 2) - 0.125) < 0.02


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ShortConvolution(0), "ShortConvolution.width: expected at least 1, got 0"),
        (lambda: Repeated(Norm(), 0), "Repeated.count: expected at least 1, got 0"),
        (lambda: Repeated(Dense(5), 2).init(None, 4), "an inner layer that keeps the width 4"),
        (lambda: Dense(6, blocks=0), "Dense.blocks: expected at least 1, got 0"),
        (lambda: Dense(6, blocks=4).init(None, 8), "a divisor of 8 and 6 features, got 4"),
        (lambda: MLP(6, "gelo"), "Did you mean 'gelu'?"),
        (lambda: Norm(groups=0), "Norm.groups: expected at least 1, got 0"),
        (lambda: Norm(groups=3).init(None, 4), "a divisor of 4 features, got 3"),
        (lambda: Gated(Norm(), activation="silo"), "Did you mean 'silu'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_refused(build, message):
    with pytest.raises(ValueError) as error:
        build()
    assert message in str(error.value)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(ValueError, match=rf"0 <= rate < 1, got {rate}"):
        Dropout(rate)


# Layers with a memory of their own


def slope_of(layer, params, xs, flags, gradient, rng):
    """The derivative along a random direction by the complex step, and the direction."""
    point = jax.tree.leaves((params, xs))
    direction = [rng.normal(size=leaf.shape) for leaf in point]
    moved = [leaf + 1e-30j * d for leaf, d in zip(point, direction)]
    moved = jax.tree.unflatten(jax.tree.structure((params, xs)), moved)
    return np.sum(forward(layer, *moved, *flags).imag * gradient) / 1e-30, direction


@pytest.mark.parametrize(
    "layer",
    [
        ShortConvolution(3),
        ShortConvolution(1, bias=False),
        Gated(ShortConvolution(4)),
        Bidirectional(LSTM(3)),
        Repeated(Residual(Stack((ShortConvolution(2), Recurrent(LSTM(D))))), 3),
        Repeated(Residual(DotProduct(D, heads=1, window=3)), 2),
        GriffinMixer(D, recurrent_features=6, blocks=2),
        MambaMixer(D, state=2),
        MLSTMMixer(D, heads=2),
        SLSTMMixer(D, heads=2),
        GatedDeltaNetMixer(D, heads=2, key_features=2),
    ],
    ids=repr,
)
def test_layers_with_a_memory_equal_their_equations_and_stream(layer, rng, x64):
    params, xs = drawn(layer, rng)
    gradient = rng.normal(size=(T, B, layer.out_features(D)))
    mask, resets = flags()

    @jit
    def whole(params, xs, mask, resets):
        def run(params, xs):
            return layer.apply(params, xs, mask=mask, resets=resets)[1]

        ys, pull = jax.vjp(run, params, xs)
        return ys, pull(gradient)

    ys, gradients = whole(params, np.where(mask[..., None], xs, np.nan), mask, resets)
    if isinstance(layer, Gated | Repeated):  # a pointwise part passes a masked input on
        ys, gradients = whole(params, xs, mask, resets)
    close(ys, forward(layer, params, xs, mask, resets))
    slope, direction = slope_of(layer, params, xs, (mask, resets), gradient, rng)
    close(sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(gradients), direction)), slope)
    if isinstance(layer, Bidirectional):
        with pytest.raises(ValueError, match="expected the whole sequence at once"):
            layer.init_state(params, (B,), T)
        with pytest.raises(ValueError, match="expected no state"):
            layer.apply(params, xs, ())
        return
    # The parts of a block are cut into chunks in tests of their own.
    for size in (1,) if isinstance(layer, Block) else (CHUNK, 1):
        step = jit(lambda p, x, s, m, r: layer.apply(p, x, s, mask=m, resets=r))
        state, parts = layer.init_state(params, (B,), 0), []
        for begin in range(0, T, size):
            now = np.s_[begin : begin + size]
            state, part = step(params, xs[now], state, mask[now], resets[now])
            parts.append(part)
        close(np.concatenate(parts), np.asarray(ys))


def test_a_repeated_layer_is_one_program_however_often_and_probes_each():
    def lines(count):
        layer = Repeated(Residual(Recurrent(GRU(D))), count)
        params = jax.eval_shape(lambda: layer.init(jax.random.key(0), D))

        def loss(params, xs):
            return layer.apply(params, xs)[1].sum()

        xs = jax.ShapeDtypeStruct((7, 2, D), jnp.float32)
        return len(jax.jit(jax.grad(loss)).lower(params, xs).as_text().splitlines())

    assert lines(12) == lines(1)
    layer = Repeated(Residual(Recurrent(GRU(D))), 2)
    params = layer.init(jax.random.key(0), D)
    kernels = params["inner"]["recurrent"]["kernel"]
    assert not np.array_equal(kernels[0], kernels[1])
    found = layer.probe(params, jnp.ones((5, 2, D)))
    assert sorted(found) == [
        *("0/inner/inputs", "0/inner/outputs", "0/outputs"),
        *("1/inner/inputs", "1/inner/outputs", "1/outputs", "outputs"),
    ]
    # Two programs of float32: one has a loop over the turns.
    np.testing.assert_allclose(found["outputs"], layer.apply(params, jnp.ones((5, 2, D)))[1], 1e-6)
    noisy = Repeated(Dropout(0.5), 2).apply({}, jnp.ones((9, 40, 20)), key=jax.random.key(3))[1]
    assert abs(np.mean(np.asarray(noisy) > 0) - 0.25) < 0.03  # each layer has noise of its own


def test_a_short_convolution_forgets_a_spoilt_state_at_a_reset(rng):
    layer = ShortConvolution(3)
    params = layer.init(jax.random.key(0), D)
    xs, state = jnp.ones((2, 2, D)), jnp.full((2, 2, D), jnp.nan)
    resets = jnp.array([[True, False], [False, False]])
    state, ys = layer.apply(params, xs, state, resets=resets)
    assert np.isfinite(ys[:, 0]).all() and np.isfinite(state[0]).all()
    assert np.isnan(ys[:, 1]).all()


# Containers


def test_a_stack_of_recurrences_is_unroll_after_unroll(rng, x64):
    stack = Stack((Recurrent(LSTM(3)), Recurrent(GRU(5))))
    assert stack.out_features(D) == 5
    params, xs = drawn(stack, rng)
    mask, resets = flags()

    @jit
    def both(params, xs, mask, resets):
        state = stack.init_state(params, (B,), 1)
        by_layers = stack.apply(params, xs, state, mask=mask, resets=resets)
        ys, mask, resets = (jnp.swapaxes(x, 0, 1) for x in (xs, mask, resets))
        carries = []
        for i, cell in enumerate((LSTM(3), GRU(5))):
            carry, ys = unroll(cell, params[str(i)], ys, mask=mask, resets=resets)
            carries.append(carry)
        return by_layers, (carries, jnp.swapaxes(ys, 0, 1))

    by_layers, by_hand = both(params, xs, mask, resets)
    close(by_layers, by_hand)
    assert jax.eval_shape(lambda p, x: stack.apply(p, x), params, xs)[0] is None


def test_probes_are_named_by_their_path_and_containers_equal_their_equations(rng, x64):
    stack = Stack(
        (
            Recurrent(LSTM(6)),
            Read(Additive(5)),
            Residual(Stack((DotProduct(4, heads=2, window=3), Dense(6)))),
            MLP(3),
        )
    )
    params, xs = drawn(stack, rng)
    mask, resets = flags()
    run = jit(
        lambda p, x, m, r: (
            stack.probe(p, x, mask=m, resets=r),
            stack.apply(p, x, mask=m, resets=r)[1],
        )
    )
    found, ys = run(params, xs, mask, resets)
    close(ys, forward(stack, params, xs, mask, resets))
    close(found["outputs"], ys)
    names = [
        *("0/inputs", "0/outputs"),
        *("1/inner/outputs", "1/inner/weights", "1/outputs"),
        *("2/inner/0/outputs", "2/inner/0/weights", "2/inner/1/outputs", "2/inner/outputs"),
        *("2/outputs", "3/outputs", "outputs"),
    ]
    assert sorted(found) == names
    for count, layers in enumerate(("0", "1", "2", "3"), start=1):
        part = Stack(stack.layers[:count])
        close(found[f"{layers}/outputs"], forward(part, params, xs, mask, resets))
    for name in ("1/inner/weights", "2/inner/0/weights"):
        sums = found[name].sum(axis=-1).T
        close(sums, mask.astype(float))


def test_what_a_state_holds_in_a_cache():
    stack = Stack((Recurrent(LSTM(D)), Norm(), Residual(DotProduct(D, heads=1)), Read(Additive(3))))
    params, _ = drawn(stack, np.random.default_rng(0))
    state = stack.init_state(params, (2,), 7)
    carry, nothing, full, additive = stack.cache_of(state)
    assert carry == () == nothing
    assert isinstance(full, Cache) and isinstance(additive, Cache)
    same(full, state[2])
    assert full.position.shape == additive.position.shape == (2, 7)


@pytest.mark.parametrize(
    ("state", "got"), [([()], "got 1"), ([(), (), ()], "got 3"), ({"0": (), "1": ()}, "got dict")]
)
def test_a_stack_refuses_a_state_of_other_layers(state, got):
    stack = Stack((Norm(), Norm()))
    params = {"0": {"scale": np.ones(D)}, "1": {"scale": np.ones(D)}}
    with pytest.raises(ValueError, match=f"a list of 2 states, one per layer; {got}"):
        stack.apply(params, np.zeros((3, 2, D)), state)


@pytest.mark.parametrize("inner", [Dense(D + 1), Recurrent(LSTM(D + 1))])
def test_a_residual_refuses_an_inner_layer_of_another_width(inner):
    with pytest.raises(ValueError, match=rf"keeps the width {D}, got .*features={D + 1}.*{D + 1}"):
        Residual(inner).init(jax.random.key(0), D)


def test_a_read_joins_a_context_of_any_width_back_to_its_own():
    read = Read(DotProduct(12, heads=2))
    params = jax.eval_shape(lambda: read.init(jax.random.key(0), D))
    assert params["join"]["kernel"].shape == (D + 12, D)
    assert read.out_features(D) == D


# Layers and cells of a user's own


class Twice(Layer):
    def init(self, key, in_features):
        return {}

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        return state, 2 * xs


class Sum(Cell):
    """Without a field `features`."""

    def init(self, key, in_features):
        return {"weight": jnp.ones(in_features)}

    def initial_carry(self, params, batch_shape=()):
        return jnp.zeros((*batch_shape, 1))

    def step(self, params, carry, z):
        carry = carry + (z * params["weight"]).sum(axis=-1, keepdims=True)
        return carry, carry


def test_a_layer_of_init_and_apply_alone_and_a_cell_without_features_stack():
    stack = Stack((Twice(), Recurrent(Sum())))
    params = stack.init(jax.random.key(0), D)
    assert Twice().out_features(D) == D
    assert stack.out_features(D) == 1
    state = stack.init_state(params, (2,), 5)
    assert state[0] == ()
    state, ys = stack.apply(params, jnp.ones((3, 2, D)), state)
    np.testing.assert_array_equal(ys[:, 0, 0], 2 * D * np.arange(1, 4))
    np.testing.assert_array_equal(state[1], ys[-1])
    found = stack.probe(params, jnp.ones((3, 2, D)))
    assert sorted(found) == ["0/outputs", "1/inputs", "1/outputs", "outputs"]
