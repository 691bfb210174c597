"""NaN means NaN: the library makes none in a healthy run, and hides none that a model makes.

Every program here runs healthy under `jax_debug_nans`, and again with a NaN in what it is given.
Under that option jax raises `FloatingPointError` where a compiled program, or outside of one a
single operation, gives a NaN.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag import GRU, Elman
from longlag.analysis.diagnostics import gradient_by_lag
from longlag.attention import Additive, Attention
from longlag.contrib.newton_method import newton
from longlag.core.cell import Cell
from longlag.core.selection import poison
from longlag.core.unrolling import unroll
from longlag.models import NO_CLASS, Seq2Seq, build, generate, sample
from longlag.nn import Layer, Recurrent, ShortConvolution
from longlag.tasks import Parity
from longlag.training import Training, dispatch, evaluate, evaluation_batch, init_states
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, EACH_CELL, LAYERS, D
from tests.helpers.streams import drawn_like

T, B = 5, 2
# Row 0 is reset after its NaN at step 2; row 1 has a masked step.
MASK = np.array([[1, 1], [1, 1], [1, 0], [1, 1], [1, 1]], bool)
RESETS = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [1, 0]], bool)
XS = np.random.default_rng(0).normal(size=(T, B, D)).astype(np.float32)
WRONG = XS.copy()
WRONG[2, 0, 1] = np.nan


@contextlib.contextmanager
def no_nan() -> Iterator[None]:
    with jax.debug_nans(True):
        yield


def drawn(init: Any) -> Any:
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(np.float32, drawn_like(shapes, np.random.default_rng(1)))


def not_a_number(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)


def check(run: Any) -> None:
    """`run` takes inputs `[T, B, D]` and gives outputs `[T, B, K]` and whatever else."""
    with no_nan():
        run(XS)
    ys = np.isnan(run(WRONG)[0]).any(axis=2)
    assert ys[2, 0], "a NaN at a live step is not hidden"
    assert not ys[:, 1].any() and not ys[4, 0], "neither another row nor what follows a reset"


@pytest.mark.parametrize("cell", EACH_CELL, ids=lambda cell: type(cell).__name__)
def test_a_cell_makes_no_nan_and_hides_none(cell: Cell):
    params = drawn(lambda key: cell.init(key, D))

    @jax.jit
    def run(xs):
        return unroll(cell, params, xs, mask=MASK, resets=RESETS, time_major=True)[::-1]

    check(run)


@pytest.mark.parametrize("name", [*LAYERS, *BLOCKS])
def test_a_layer_makes_no_nan_and_hides_none(name: str):
    layer: Layer = (LAYERS | BLOCKS)[name]
    params = drawn(lambda key: layer.init(key, D))
    check(jax.jit(lambda xs: layer.apply(params, xs, mask=MASK, resets=RESETS)[::-1]))


@pytest.mark.parametrize("name", ATTENTION_LAYERS)
def test_an_attention_that_is_not_compiled_makes_no_nan(name: str):
    """Operation by operation, where jax looks at every number in between."""
    attention: Attention = ATTENTION_LAYERS[name]
    params = drawn(lambda key: attention.init(key, D))

    def run(xs):
        state = attention.init_state(params, (B,), T)
        state, ys = attention.apply(params, xs, state, mask=MASK, resets=RESETS)
        return ys, state

    check(run)


def test_an_overflow_is_nan_and_has_no_gradient():
    attention = ATTENTION_LAYERS["full"]
    params = drawn(lambda key: attention.init(key, D))

    @jax.jit
    def run(state, resets):
        def apply(xs):
            state_after, ys = attention.apply(params, xs, state, resets=resets)
            return ys, state_after

        ys, pull, state_after = jax.vjp(apply, XS, has_aux=True)
        return state_after, ys, pull(jnp.ones_like(ys))[0]

    # Row 1 begins the second chunk anew, so that it has room.
    resets = np.zeros((T, B), bool)
    with no_nan():
        full, *_ = run(attention.init_state(params, (B,), T), resets)
    resets[0, 1] = True
    _, ys, gradient = run(full, resets)
    assert np.isnan(ys[:, 0]).all() and np.isfinite(ys[:, 1]).all()
    assert not gradient[:, 0].any() and np.isfinite(gradient).all() and gradient[:, 1].any()


def test_a_state_that_no_step_sees_does_not_reach_the_kernel_of_a_convolution():
    layer = ShortConvolution(4)
    params = drawn(lambda key: layer.init(key, D))
    state = jnp.full((B, 3, D), jnp.nan)

    def loss(params):
        return layer.apply(params, XS, state, mask=jnp.zeros((T, B), bool))[1].sum()

    grads = jax.grad(loss)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_poison_is_nan_where_its_flag_is():
    flag, x = jnp.array([[True], [False]]), jnp.array([[[1.0, -0.0]], [[jnp.inf, -0.0]]])
    found = poison(flag, {"x": x, "half": x.astype(jnp.bfloat16)})
    for leaf in found.values():
        assert np.isnan(leaf[0]).all()
        np.testing.assert_array_equal(leaf[1], x[1])
        assert np.signbit(leaf[1, 0, 1])
    assert found["half"].dtype == jnp.bfloat16


def test_newton_makes_no_nan():
    cell = GRU(3)
    params = drawn(lambda key: cell.init(key, D))
    xs, mask, resets = (np.swapaxes(x, 0, 1) for x in (XS, MASK, RESETS))
    with no_nan():
        info = newton(cell, params, xs, mask=mask, resets=resets)[2]
    assert info.converged.all()


# --- training, evaluation, diagnostics ------------------------------------------------------------


class Following(Parity):
    """Parity whose batches follow each other, as far as training can tell."""

    def at_step(self, key, step, batch_size):
        return super().at_step(key, step, batch_size)


TASK = Following(1, 6)
HYBRID = build(inputs="tokens", in_features=TASK.in_features, out_features=TASK.out_features,
               cell=Elman(4), attention="window", width=4, heads=1, window=3)  # fmt: skip
HOW = Training(steps=4, dispatch=2, batch_size=4, eval_size=8, clip=0.1)


@pytest.mark.parametrize("options", [{"time_chunk": 3}, {"carry": True}], ids=str)
def test_a_training_makes_no_nan(options: dict[str, Any]):
    """Seed 1 does not train. Training as usual is in `test_training.py`."""
    training = dataclasses.replace(HOW, **options)
    states = init_states(HYBRID, training, 2)
    with no_nan():
        states, loss = dispatch(HYBRID, TASK, training, states, jnp.array([training.steps, 0]))
    assert states.step.tolist() == [2, 0] and loss[0] > 0 and loss[1] == 0


def test_an_evaluation_makes_no_nan_and_counts_those_of_a_model():
    """The lengths of parity differ, and no position beyond the longest is scored."""
    batch = evaluation_batch(TASK, 8, "test", padded_to=10)
    states = init_states(HYBRID, HOW, 2)
    with no_nan():
        found = evaluate(HYBRID, TASK, HOW, states.params, batch)
    assert found.nan.tolist() == [0, 0]
    spoilt = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), states.params)
    found = evaluate(HYBRID, TASK, HOW, spoilt, batch)
    assert found.nan.tolist() == [0, 1] and found.accuracy[1] == found.exact_match[1] == 0
    assert np.isnan(found.loss[1]) and found.accuracy[0] > 0
    scored = np.asarray(batch.scored).any(0)
    np.testing.assert_array_equal(np.isnan(found.by_position), [~scored] * 2)


def test_a_diagnosis_makes_no_nan():
    params = HYBRID.init(jax.random.key(0))
    run = jax.jit(functools.partial(gradient_by_lag, HYBRID))
    with no_nan():
        found = run(params, jnp.zeros((2, 5), jnp.int32), at=jnp.array([1, 2]))
    np.testing.assert_array_equal(found[3:], 0)


# --- generation -----------------------------------------------------------------------------------


def test_a_sample_makes_no_nan_and_names_those_of_a_model():
    model = build(inputs="tokens", in_features=3, out_features=3, cell=GRU(4), attention="full",
                  width=4, heads=1)  # fmt: skip
    params, prompt = drawn(model.init), jnp.array([[1, 2], [0, 0]])
    # A row that reads token 0 has NaN in its state.
    spoilt = params | {"embed": {"embedding": params["embed"]["embedding"].copy()}}
    spoilt["embed"]["embedding"][0] = np.nan
    for temperature in (0.0, 1.0):
        draw = functools.partial(sample, model, steps=4, temperature=temperature)
        with no_nan():
            drawn_tokens = draw(params, prompt, key=jax.random.key(1))
        assert (drawn_tokens >= 0).all()
        tokens = np.asarray(draw(spoilt, prompt, key=jax.random.key(1)))
        assert (tokens[1] == NO_CLASS).all()
        np.testing.assert_array_equal(
            (tokens[0] == NO_CLASS)[1:], np.cumsum(tokens[0] == 0)[:-1] > 0
        )


def test_a_search_makes_no_nan_and_names_those_of_a_model():
    model = Seq2Seq("tokens", 5, 3, 4, (Recurrent(GRU(4)),), (Recurrent(GRU(4)),), Additive(4))
    params, sources = drawn(model.init), np.array([[1, 2, 3], [4, 4, 0]])
    search = jax.jit(functools.partial(generate, model, stop=0, max_length=3, beams=3))
    mask = np.array([[True, True, True], [True, False, False]])
    with no_nan():
        search(params, sources, mask=mask)
    spoilt = params | {"source": {"embedding": params["source"]["embedding"].copy()}}
    spoilt["source"]["embedding"][4] = np.nan
    found = search(spoilt, sources, mask=mask)
    assert (found.tokens[1] == NO_CLASS).all() and np.isnan(found.log_probs[1]).all()
    assert (found.tokens[0] >= 0).all() and np.isfinite(found.log_probs[0, 0])


def test_a_seq2seq_makes_no_nan():
    model = Seq2Seq("tokens", 5, 3, 4, (Recurrent(GRU(4)),), (Recurrent(GRU(4)),), Additive(4),
                    input_feeding=True)  # fmt: skip
    params, sources = drawn(model.init), np.array([[1, 2, 3], [4, 4, 0]])
    mask = np.array([[True, True, True], [False, False, False]])

    @jax.jit
    def run(params):
        apply = lambda params: model.apply(params, sources, sources % 3, mask=mask)  # noqa: E731
        answers, pull = jax.vjp(apply, params)
        return answers, pull(answers)

    with no_nan():
        run(params)
    answers, _ = run(not_a_number(params))
    assert np.isnan(answers).all()
