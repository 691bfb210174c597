from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, LSTM, Carry, Cell, Elman, LSTMCarry, MinGRU, unroll
from longlag.cells import (
    GLA,
    GSA,
    LEM,
    LRU,
    MGU,
    MLSTM,
    RGLRU,
    S5,
    S6,
    SLSTM,
    CoRNN,
    DeltaNet,
    FeedForward,
    GatedDeltaNet,
    IndRNN,
    LayerNormLSTM,
    LinearAttention,
    MinLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
    Retention,
    StackRNN,
)
from longlag.runs import cell_names
from longlag.testing.cells import Flags, check_cell, check_loop
from longlag.testing.python_loop import loop
from longlag.testing.running import draw
from tests.helpers import paper
from tests.helpers.members import CELLS


def named(cell) -> str:
    return repr(cell)


# Whose programs differ from another cell's by an activation or an option alone.
VARIANTS = [CELLS[1], CELLS[4], CELLS[6], CELLS[7]]


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, marks=[pytest.mark.deep] * (cell in VARIANTS)) for cell in CELLS],
    ids=named,
)
def test_keeps_the_contract(cell):
    check_cell(cell)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_equals_the_loop_for_any_length_and_flags(cell, seed, dtype):
    rng = np.random.default_rng(seed)
    rows, steps = int(rng.integers(1, 6)), int(rng.integers(1, 33))
    flags = Flags(rng.random((rows, steps)) < 0.7, rng.random((rows, steps)) < 0.2)
    cuts = np.unique(rng.integers(0, steps, 3))
    pieces = tuple(np.diff([0, *cuts[cuts > 0], steps]).tolist())
    chunks = {"whole": (steps,), "pieces": pieces, "step by step": (1,) * steps}
    with jax.enable_x64(dtype == "float64"):
        case = draw(cell, int(rng.integers(1, 5)), (rows, steps), dtype)
        rtol = 1e-10 if dtype == "float64" else 1e-4
        check_loop(case, flags, chunks, f"{cell}, T = {steps}, {dtype}", rtol)


@pytest.mark.deep
@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_in_bfloat16_it_is_at_most_twice_as_far_off_as_a_plain_loop(cell):
    """With bfloat16 parameters; the loop's products are summed in float32 too."""
    flags = Flags(np.ones((4, 24), bool), np.zeros((4, 24), bool))
    case = draw(cell, 3, (4, 24), np.float32)
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), case.params)
    _, exact = loop(cell, flags, case.params, case.xs, case.carry)
    _, plain = loop(cell, flags, low, case.xs, case.carry)
    _, ys = jax.jit(unroll, static_argnums=0)(cell, low, case.xs, case.carry)
    assert ys.dtype == jnp.float32
    off, allowed = (np.abs(np.asarray(y) - np.asarray(exact)).max() for y in (ys, plain))
    assert off <= 2 * allowed + 1e-6, f"{off:.2e} against {allowed:.2e}"


# --- the papers ---------------------------------------------------------------------------------

PAPERS = [
    (Elman(4), paper.elman),
    (Elman(4, activation="relu"), functools.partial(paper.elman, activation="relu")),
    (LSTM(4), paper.lstm),
    (GRU(4), paper.gru),
    (GRU(4, reset="before"), functools.partial(paper.gru, reset="before")),
    (IndRNN(4), paper.ind_rnn),
    (IndRNN(4, longest_lag=3), functools.partial(paper.ind_rnn, bound=2 ** (1 / 3))),
    (MGU(4), paper.mgu),
    (PeepholeLSTM(4), paper.peephole_lstm),
    (LayerNormLSTM(4), paper.layer_norm_lstm),
    (ProjectedLSTM(4, projection=3), paper.projected_lstm),
    (CoRNN(4), paper.co_rnn),
    (GSA(4, heads=2, slots=3), functools.partial(paper.gsa, heads=2, slots=3)),
    (StackRNN(4, depth=3, width=2), paper.stack_rnn),
    (LEM(4, step_size=0.5), functools.partial(paper.lem, step=0.5)),
    (SLSTM(4, heads=2), paper.slstm),
    (MinGRU(4), paper.min_gru),
    (MinGRU(4, candidate="positive"), functools.partial(paper.min_gru, candidate="positive")),
    (MinLSTM(4), paper.min_lstm),
    (LRU(4, state=3), paper.lru),
    (S5(4, state=3), paper.s5),
    (S6(4, state=3), paper.s6),
    (S6(4, state=3, negative_eigenvalues=True), functools.partial(paper.s6, negative=True)),
    (RGLRU(4), paper.rg_lru),
    (RGLRU(4, negative_eigenvalues=True), functools.partial(paper.rg_lru, negative=True)),
    (LinearAttention(4, heads=2, key_features=3), paper.linear_attention),
    (Retention(4, heads=2, key_features=3), paper.retention),
    (GLA(4, heads=2, key_features=3), paper.gla),
    (MLSTM(4, heads=2, key_features=3), paper.mlstm),
    (DeltaNet(4, heads=2, key_features=3), paper.delta_net),
    (
        DeltaNet(4, heads=2, negative_eigenvalues=True),
        functools.partial(paper.delta_net, negative=True),
    ),
    (
        GatedDeltaNet(4, heads=2, negative_eigenvalues=True),
        functools.partial(paper.delta_net, negative=True, gated=True),
    ),
]


def by_name(rows: set[type]) -> Iterator[tuple[Any, Any]]:
    """Every cell without a row above, beside the function of `paper` with its module's name."""
    for kind in cell_names().values():
        name = kind.__module__.rpartition(".")[2]
        if kind not in rows and kind is not FeedForward and hasattr(paper, name):
            yield kind(4), getattr(paper, name)  # type: ignore[call-arg]


PAPERS += by_name({type(cell) for cell, _ in PAPERS})


def named_cell(value) -> str:
    return repr(value) if isinstance(value, Cell) else ""


def random_params(cell, in_features: int, rng) -> dict:
    """Random numbers where the cell draws some or none, so that every bias counts."""
    shapes = jax.eval_shape(lambda key: cell.init(key, in_features), jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


def test_a_cell_without_a_row_is_set_beside_the_loop_of_its_name():
    others = set(cell_names().values()) - {MGU}
    assert [*by_name(others)] == [(MGU(4), paper.mgu)]


def test_every_cell_is_under_contract_and_beside_its_paper():
    every = set(cell_names().values())
    assert {type(cell) for cell in CELLS} == every
    # What FeedForward mixes is a window, whose equation has a test of its own.
    assert {type(cell) for cell, _ in PAPERS} | {FeedForward} == every, "write its paper's loop"


@pytest.mark.parametrize(("cell", "equations"), PAPERS, ids=named_cell)
def test_is_the_equation_of_its_paper(cell, equations, x64, rng):
    params, xs = random_params(cell, 3, rng), rng.normal(size=(2, 6, 3))
    shapes = jax.eval_shape(lambda: cell.initial_carry(params, (2,)))
    # Positive, since the normaliser of an sLSTM is, and all others may be.
    carry = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape), shapes)
    last, ys = jax.jit(unroll, static_argnums=0)(cell, params, xs, carry)
    for row in range(2):
        leaves = [leaf[row].copy() for leaf in jax.tree.leaves(carry)]
        expected_ys, expected = equations(params, xs[row], *leaves)
        np.testing.assert_allclose(ys[row], expected_ys, rtol=1e-11, atol=1e-12)
        for got, want in zip(jax.tree.leaves(last), expected, strict=True):
            np.testing.assert_allclose(got[row], want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("window", [1, 3])
def test_feed_forward_sees_its_window(window, x64, rng):
    cell = FeedForward(4, window=window)
    params, xs = random_params(cell, 3, rng), rng.normal(size=(2, 6, 3))
    _, ys = jax.jit(unroll, static_argnums=0)(cell, params, xs)
    for row in range(2):
        expected = paper.feed_forward(params, xs[row], window)
        np.testing.assert_allclose(ys[row], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_gru_probe_shows_the_gates_of_the_step(reset, x64, rng):
    cell = GRU(4, reset=reset)
    params, carry = random_params(cell, 3, rng), Carry(rng.normal(size=(2, 4)))
    z = cell.project(params, rng.normal(size=(2, 3)))
    gates, (_, y) = cell.probe(params, carry, z), cell.step(params, carry, z)
    assert set(gates) == {"r", "z", "n"}
    np.testing.assert_allclose((1 - gates["z"]) * gates["n"] + gates["z"] * carry.h, y, rtol=1e-12)
    r = paper.sigmoid(z[0] + carry.h @ params["recurrent"]["kernel"][:, :4])
    np.testing.assert_allclose(gates["r"], r, rtol=1e-12)


def test_lstm_probe_shows_the_gates_of_the_step(x64, rng):
    cell = LSTM(4)
    params, carry = random_params(cell, 3, rng), LSTMCarry(*rng.normal(size=(2, 2, 4)))
    z = cell.project(params, rng.normal(size=(2, 3)))
    gates, (new, y) = cell.probe(params, carry, z), cell.step(params, carry, z)
    assert set(gates) == {"i", "f", "g", "o"}
    np.testing.assert_allclose(new.c, gates["f"] * carry.c + gates["i"] * gates["g"], rtol=1e-12)
    np.testing.assert_allclose(y, gates["o"] * np.tanh(new.c), rtol=1e-12)


def test_min_gru_probe_shows_the_gate_and_a_plain_cell_nothing(x64, rng):
    cell = MinGRU(4)
    params, x = random_params(cell, 3, rng), rng.normal(size=(2, 3))
    gates = cell.probe(params, Carry(np.zeros((2, 4))), cell.project(params, x))
    kernel, bias = params["input"]["kernel"][:, :4], params["input"]["bias"][:4]
    np.testing.assert_allclose(gates["z"], paper.sigmoid(x @ kernel + bias), rtol=1e-12)
    assert Elman(4).probe({}, None, None) == {}


# --- how they begin -----------------------------------------------------------------------------


@functools.cache
def fresh(cell) -> dict:
    # One width for all, since every new shape is a compilation.
    return jax.tree.map(np.asarray, cell.init(jax.random.key(7), 100))


@pytest.mark.parametrize("cell", [Elman(16), LSTM(16), GRU(16), GRU(16, reset="before")], ids=named)
def test_recurrent_kernels_are_orthogonal_each_its_own(cell):
    kernels = paper.per_gate(fresh(cell)["recurrent"]["kernel"], len(cell.gates))
    for kernel in kernels:
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(16), atol=1e-5)
    assert len({float(kernel[0, 0]) for kernel in kernels}) == len(kernels)


@pytest.mark.parametrize(
    "cell", [Elman(16), LSTM(16), GRU(16), MinGRU(16), FeedForward(16, window=4)], ids=named
)
def test_input_kernels_keep_the_variance_and_biases_are_zero(cell):
    params = fresh(cell)
    inputs = 100 * getattr(cell, "window", 1)
    assert np.std(params["input"]["kernel"]) == pytest.approx(inputs**-0.5, rel=0.1)
    if not isinstance(cell, LSTM):
        assert not np.any(params["input"]["bias"])
    assert not np.any(params.get("recurrent", {}).get("bias", 0))


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 2.5])
def test_lstm_begins_by_keeping(forget_bias):
    i, f, g, o = paper.per_gate(fresh(LSTM(16, forget_bias=forget_bias))["input"]["bias"], 4)
    np.testing.assert_array_equal(f, np.full(16, forget_bias))
    assert not np.any([i, g, o])


def test_chrono_draws_memories_from_one_step_to_the_longest_lag():
    params = LSTM(200, chrono=101).init(jax.random.key(7), 1)
    i, f, g, o = paper.per_gate(np.asarray(params["input"]["bias"]), 4)
    lags = np.exp(f)
    assert lags.min() >= 1
    assert lags.max() <= 100 * (1 + 1e-6)
    # Uniform on [1, 100]: each quarter has its share.
    shares = np.histogram(lags, bins=4, range=(1, 100))[0] / 200
    np.testing.assert_allclose(shares, 0.25, atol=0.1)
    np.testing.assert_array_equal(i, -f)
    assert not np.any([g, o])


def test_identity_initialisation_adds_its_inputs_up():
    cell = Elman(16, activation="relu", recurrent_init="identity")
    params = {**fresh(cell)}
    np.testing.assert_array_equal(params["recurrent"]["kernel"], np.eye(16))
    params["input"] = {"kernel": np.eye(16, dtype=np.float32), "bias": np.zeros(16, np.float32)}
    carry, _ = unroll(cell, params, jnp.ones((1, 5, 16)))
    np.testing.assert_array_equal(carry.h, np.full((1, 16), 5.0))


@pytest.mark.parametrize("kind", [Elman, LSTM, GRU, MinGRU, FeedForward])
def test_a_learned_first_state_begins_at_zero_and_is_every_rows(kind):
    cell = kind(16, learned_carry=True)
    assert "carry" not in fresh(kind(16))
    params = {**fresh(cell)}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(params["carry"]))
    params["carry"] = jax.tree.map(lambda leaf: leaf + 2, params["carry"])
    for leaf in jax.tree.leaves(cell.initial_carry(params, (2, 5))):
        assert leaf.shape[:2] == (2, 5)
        assert (np.asarray(leaf) == 2).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Elman(0), "Elman.features: expected at least 1, got 0"),
        (lambda: Elman(3, activation="tan"), "got 'tan'. Did you mean 'tanh'?"),
        (lambda: Elman(3, recurrent_init="identiy"), "Did you mean 'identity'?"),
        (lambda: LSTM(3, chrono=2), "LSTM.chrono: expected a lag of at least 3 steps, got 2"),
        (lambda: LSTM(3, forget_bias=2.0, chrono=9), "got forget_bias=2.0 and chrono=9"),
        (lambda: GRU(3, reset="befor"), "Did you mean 'before'?"),
        (lambda: MinGRU(3, candidate="positiv"), "Did you mean 'positive'?"),
        (lambda: FeedForward(3, window=0), "FeedForward.window: expected at least 1, got 0"),
    ],
    # A lambda prints its address, which differs between the processes of pytest-xdist.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_refused(build, message):
    with pytest.raises(ValueError) as error:
        build()
    assert message in str(error.value)
