"""Mixers of equal parameters. Shapes alone are computed here; nothing is compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from longlag import LSTM, Cell, MinGRU
from longlag.attention import Additive, DotProduct, Multiplicative
from longlag.attention.read import Read
from longlag.cells import MLSTM, S6, SLSTM
from longlag.contrib.blocks import MambaMixer, mamba
from longlag.models import build, match_parameters, mixer_parameters, mixers
from longlag.nn import Dense, Norm, Recurrent, Residual, Stack
from longlag.runs import cell_names

WIDTH = 64
OF_LSTM = 4 * WIDTH * (2 * WIDTH + 1)
MIXERS: dict[str, Any] = {name: cls(WIDTH) for name, cls in cell_names().items()} | {  # type: ignore[call-arg]
    "additive": Additive(WIDTH),
    "additive, read": Read(Additive(WIDTH)),
    "window": DotProduct(WIDTH, window=16),
    "full": DotProduct(WIDTH),
    "full, read": Read(DotProduct(WIDTH)),
}
# What a multiplicative attention multiplies is as wide as its inputs: D² parameters, or with the
# map that joins its reads 3 D² + D, whatever the target.
FIXED = {
    "multiplicative": (Multiplicative(WIDTH), WIDTH**2),
    "multiplicative, read": (Read(Multiplicative(WIDTH)), 3 * WIDTH**2 + WIDTH),
}


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_can_have_the_parameters_of_an_lstm(name):
    mixer = MIXERS[name]
    found = match_parameters(mixer, WIDTH, LSTM(WIDTH))
    assert type(found) is type(mixer)
    assert abs(mixer_parameters(found, WIDTH) - OF_LSTM) <= 0.05 * OF_LSTM
    assert match_parameters(found, WIDTH, OF_LSTM) == found  # wherever the search begins


@pytest.mark.parametrize("name", FIXED)
def test_what_has_no_inner_width_is_refused_unless_it_fits(name):
    mixer, parameters = FIXED[name]
    message = f"expected 33,024 parameters within 5% .*; the nearest is {parameters:,}, of"
    with pytest.raises(ValueError, match=message):
        match_parameters(mixer, WIDTH, LSTM(WIDTH))
    assert match_parameters(mixer, WIDTH, round(0.96 * parameters)) == mixer


def parameters_of_min_gru(n: int) -> int:
    return 2 * n * (10 + 1) + (10 * (n + 1) if n != 10 else 0)


@pytest.mark.parametrize("target", [*range(360, 1000, 37), 10_000])
def test_the_nearest_of_all_widths_is_found(target):
    """At the width of the blocks no map is needed, so that it breaks the order."""
    best = min(range(1, 500), key=lambda n: abs(parameters_of_min_gru(n) - target))
    found = match_parameters(MinGRU(10), 10, target)
    assert mixer_parameters(found, 10) == parameters_of_min_gru(best)


def test_parameters_are_counted_with_the_map_back_to_the_width():
    assert mixer_parameters(LSTM(WIDTH), WIDTH) == OF_LSTM
    assert mixer_parameters(LSTM(3), WIDTH) == 4 * 3 * (WIDTH + 3 + 1) + (3 + 1) * WIDTH
    assert mixer_parameters(DotProduct(WIDTH, inner_features=8), WIDTH) == 4 * 8 * WIDTH


def test_heads_divide_the_width_that_is_found():
    assert match_parameters(SLSTM(10, heads=5), 10, 1010).features == 15
    found = match_parameters(DotProduct(12, heads=3), 12, 860)
    assert found.inner_features == 18 and found.features == 12  # 6 for each head of even width
    # So few that one more in each head is too much.
    with pytest.raises(ValueError, match=r"the nearest is .* of MLSTM\(features=7, .*heads=7"):
        match_parameters(MLSTM(14, heads=7), 14, 640)


def test_other_fields_stay():
    found = match_parameters(S6(WIDTH, state=4, learned_carry=True), WIDTH, 20_000)
    assert (found.state, found.learned_carry) == (4, True)
    layer = match_parameters(Recurrent(LSTM(8), zoneout=0.1), WIDTH, 20_000)
    assert layer.zoneout == 0.1 and layer.cell == match_parameters(LSTM(WIDTH), WIDTH, 20_000)


class Sum(Cell):
    """Without `features`."""

    def init(self, key, in_features):
        return {"weight": jnp.ones(in_features)}

    def initial_carry(self, params, batch_shape=()):
        return jnp.zeros((*batch_shape, 1))

    def step(self, params, carry, z):
        carry = carry + (z * params["weight"]).sum(axis=-1, keepdims=True)
        return carry, carry


class Idle(MinGRU):
    """Whose parameters do not depend on its `features`."""

    def init(self, key, in_features):
        return MinGRU(3).init(key, in_features)

    def project(self, params, xs, *, key=None):
        a, b, aux = super().project(params, xs)
        return a[..., :1], b[..., :1], aux

    def zero_carry(self, batch_shape, dtype):
        return super().zero_carry(batch_shape, dtype).replace(h=jnp.zeros((*batch_shape, 1), dtype))


@pytest.mark.parametrize(
    ("mixer", "target", "message"),
    [
        (Sum(), 5000, "the nearest is 192, of Sum"),  # 64, and the map back of 2 x 64
        (Idle(WIDTH), 5000, "the nearest is 518, of Idle"),
        (LSTM(WIDTH), 0, "expected at least 1 parameter, got 0"),
        (LSTM(WIDTH), 20, "expected 20 parameters .*; the nearest is 392, of LSTM.features=1,"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_reached_is_named(mixer, target, message):
    with pytest.raises(ValueError, match=message):
        match_parameters(mixer, WIDTH, target)


@pytest.mark.parametrize(("attention", "pattern"), [("window", "interleaved"), ("full", "middle")])
def test_a_model_has_every_mixer_of_the_size_that_was_asked_for(attention, pattern):
    options: dict[str, Any] = {"inputs": "tokens", "in_features": 5, "out_features": 5}
    model = build(
        cell=MinGRU(WIDTH),
        attention=attention,
        pattern=pattern,
        depth=4,
        mixer_parameters=OF_LSTM,
        **options,
    )
    recurrent, read = mixers(model.stack)
    assert recurrent == Recurrent(match_parameters(MinGRU(WIDTH), WIDTH, OF_LSTM))
    for mixer in (recurrent, read):
        assert abs(mixer_parameters(mixer, WIDTH) - OF_LSTM) <= 0.05 * OF_LSTM
    lstm = build(cell=LSTM(WIDTH), depth=4, **options)
    assert model.cost(9).parameters == pytest.approx(lstm.cost(9).parameters, rel=0.05)
    alone = build(cell=None, attention=attention, depth=4, mixer_parameters=OF_LSTM, **options)
    assert mixers(alone.stack) == (read,)
    assert build(cell=LSTM(WIDTH), depth=4, mixer_parameters=OF_LSTM, **options) == lstm


def test_mixers_are_found_wherever_they_are():
    inner = Stack((Norm(), Recurrent(LSTM(3)), Dense(4)))
    attention = DotProduct(4, heads=1)
    layers = (Residual(inner), Residual(attention), Read(attention), Residual(inner), mamba(4))
    assert mixers(Stack(layers)) == (Recurrent(LSTM(3)), attention, Read(attention), MambaMixer(4))
    assert mixers(Residual(Norm())) == ()
    params = jax.eval_shape(lambda: inner.init(jax.random.key(0), 4))
    counted = sum(leaf.size for leaf in jax.tree.leaves(params)) - 4  # without the norm
    assert mixer_parameters(Recurrent(LSTM(3)), 4) == counted
