"""No steps, no rows, or neither: outputs of that shape, and a state that stays as it is.

What can be seen in shapes is read off `jax.eval_shape`, which compiles nothing. Values are those of
one program for all members.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag as ll
from longlag.attention import Additive, Attention, DotProduct, Local, Multiplicative
from longlag.contrib.newton_method import newton
from longlag.core.batch import Batch
from longlag.core.chunks import sum_over_time
from longlag.core.linear_cell import LinearCell
from longlag.core.matrix_cell import MatrixCell
from longlag.models import Pictures, Seq2Seq, build, generate
from longlag.nn import Bidirectional, Dense, Layer, Recurrent
from longlag.tasks.task import pad
from longlag.training import evaluate, losses
from tests.helpers import tiny
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, EACH_CELL, LAYERS, D
from tests.helpers.streams import drawn_like

KEY = jax.random.key(0)
T, B = 5, 2
SIZES = [(0, B), (T, 0), (0, 0)]
NAMED_LAYERS: dict[str, Layer] = {**ATTENTION_LAYERS, **BLOCKS, **LAYERS}


def shape(*sizes: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(sizes, dtype)


def flags(steps: int, rows: int) -> Any:
    return shape(steps, rows, dtype=bool)


def floating(tree: Any) -> Any:
    """The sum of all that floats."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(x.sum() for x in leaves)


def like(one: Any, steps: int, rows: int) -> Any:
    """The shapes of outputs `[T, B, ...]` at other T and B."""
    return jax.tree.map(lambda x: shape(steps, rows, *x.shape[2:], dtype=x.dtype), one)


def options(cell: ll.Cell) -> list[dict[str, Any]]:
    """Those that have code of their own, each once."""
    each: list[dict[str, Any]] = [{}, {"reverse": True}, {"carries": "all"}, {"remat": "sqrt"}]
    if isinstance(cell, LinearCell):
        each += [{"method": "associative"}, {"method": "chunked", "reverse": True}]
    elif isinstance(cell, MatrixCell):
        each += [{"method": "chunked"}]
    else:
        each += [{"backward": "store"}, {"backward": "autodiff"}]
    return each


@pytest.mark.parametrize("cell", EACH_CELL, ids=lambda cell: type(cell).__name__)
def test_a_cell(cell: ll.Cell):
    """By every method and gradient, whole and as a chunk, and by Newton's method."""
    params = jax.eval_shape(lambda: cell.init(KEY, D))
    _, some = jax.eval_shape(
        lambda p, x: ll.unroll(cell, p, x, time_major=True), params, shape(T, B, D)
    )

    def check(run, steps, rows, every=False):
        def total(*args):
            out = run(*args)
            return floating(out), out

        args = (params, shape(steps, rows, D), flags(steps, rows), flags(steps, rows))
        gradient, (carry, ys) = jax.eval_shape(jax.grad(total, has_aux=True), *args)
        first = jax.eval_shape(lambda p: cell.initial_carry(p, (rows,)), params)
        if every:
            first = jax.tree.map(lambda x: shape(steps, *x.shape, dtype=x.dtype), first)
        assert (carry, ys) == (first, like(some, steps, rows))
        assert gradient == params

    for steps, rows in SIZES:
        for i, option in enumerate(options(cell) if steps or rows else [{}]):
            # Half of them with masks and resets.
            given = (lambda m, r: {"mask": m, "resets": r}) if i % 2 else lambda m, r: {}

            def run(p, x, m, r, option=option, given=given):
                return ll.unroll(cell, p, x, time_major=True, **given(m, r), **option)

            check(run, steps, rows, every=option.get("carries") == "all")

        def by_newton(p, x, m, r):
            return newton(cell, p, x, mask=m, resets=r, time_major=True)[:2]

        if rows:
            check(by_newton, steps, rows)


@pytest.mark.parametrize("name", NAMED_LAYERS)
def test_a_layer(name: str):
    """Whole and as a chunk, with and without masks and resets; what it shows of itself."""
    layer = NAMED_LAYERS[name]
    params = jax.eval_shape(lambda: layer.init(KEY, D))
    some = jax.eval_shape(lambda p, x: layer.apply(p, x)[1], params, shape(T, B, D))
    streams = not isinstance(layer, Bidirectional)

    for (steps, rows), flagged in itertools.product(SIZES, (False, True)):

        def run(p, x, m, r, key, rows=rows, flagged=flagged):
            state = layer.init_state(p, (rows,), T) if streams else None
            given = {"mask": m, "resets": r} if flagged else {}
            return state, *layer.apply(p, x, state, **given, key=key)

        def total(*args, run=run):
            out = run(*args)
            return floating(out), out

        xs = shape(steps, rows, D)
        args = (params, xs, flags(steps, rows), flags(steps, rows), KEY)
        gradient, (state, new, ys) = jax.eval_shape(jax.grad(total, 1, has_aux=True), *args)
        assert new == state and ys == like(some, steps, rows) and gradient == xs
        if not flagged:
            shown = jax.eval_shape(layer.probe, params, xs)
            assert shown["outputs"] == ys


def test_a_state_stays_as_it_is():
    """Bit for bit, with gradients of one in the state and of zero in the parameters."""
    rng = np.random.default_rng(0)
    drawn = {}
    for i, cell in enumerate(CELLS):
        params = drawn_like(jax.eval_shape(lambda c=cell: c.init(KEY, D)), rng)
        drawn[i] = params, drawn_like(cell.initial_carry(params, (B,)), rng)
    drawn = jax.tree.map(jnp.float32, drawn)
    nothing, flag = jnp.zeros((0, B, D)), jnp.zeros((0, B), bool)

    @jax.jit
    def all_of_them(drawn):
        results = {}
        for i, (params, carry) in drawn.items():

            def run(params, carry, cell=CELLS[i]):
                return ll.unroll(
                    cell, params, nothing, carry, mask=flag, resets=flag, time_major=True
                )[0]

            results[i] = (
                run(params, carry),
                jax.grad(lambda *args, run=run: floating(run(*args)), argnums=(0, 1))(
                    params, carry
                ),
            )
        return results

    for i, (carry, (d_params, d_carry)) in all_of_them(drawn).items():
        jax.tree.map(np.testing.assert_array_equal, carry, drawn[i][1])
        assert all((x == 0).all() for x in jax.tree.leaves(d_params)), CELLS[i]
        assert all((x == 1).all() for x in jax.tree.leaves(d_carry)), CELLS[i]


@pytest.mark.parametrize("attention", ["none", "additive", "multiplicative", "window", "full"])
def test_a_model(attention: str):
    """Whole, as a chunk, and with its loss in chunks of time."""
    model = build(
        inputs="tokens", in_features=5, out_features=3, cell=ll.GRU(8), attention=attention, width=8
    )
    params = jax.eval_shape(model.init, KEY)
    for steps, rows in SIZES:

        def run(params, tokens, rows=rows):
            state = model.init_state(params, rows, T)

            def step(state, chunk, index):
                state, answers = model.apply(params, chunk, state)
                return state, answers.sum()

            _, answers = model.apply(params, tokens)
            return sum_over_time(step, state, tokens)[1] + answers.sum(), answers

        args = (params, shape(rows, steps, dtype=jnp.int32))
        gradient, answers = jax.eval_shape(jax.grad(run, has_aux=True), *args)
        assert answers == shape(rows, steps, 3) and gradient == params


OVER_AN_ENCODER: list[Attention | None] = [
    None,
    Additive(6),
    Multiplicative(8),
    DotProduct(8, positions="none"),
    Local(5, attention=Additive(6), radius=3),
]


@pytest.mark.parametrize("attention", OVER_AN_ENCODER, ids=str)
def test_sequence_to_sequence(attention: Attention | None):
    """An empty source, an empty target, no rows; and a search over each."""
    ways: list[tuple[bool, Any]] = [(False, "mean"), (True, "ends")]
    for feeding, summary in ways:
        model = Seq2Seq(
            *("tokens", 6, 5, 8),
            encoder=(Bidirectional(ll.GRU(4)),),
            decoder=(Recurrent(ll.GRU(8)),),
            attention=attention,
            input_feeding=feeding,
            summary=summary,
        )
        params = jax.eval_shape(model.init, KEY)
        for source, rows, target in ((0, B, 3), (4, 0, 3), (4, B, 0)):

            def run(params, inputs, targets, mask, model=model):
                answers = model.apply(params, inputs, targets, mask=mask)
                return answers.sum(), answers

            inputs = shape(rows, source, dtype=jnp.int32)
            args = (params, inputs, shape(rows, target, dtype=jnp.int32))
            mask = flags(rows, source) if feeding else None
            gradient, answers = jax.eval_shape(jax.grad(run, has_aux=True), *args, mask)
            assert answers == shape(rows, target, 5) and gradient == params
            if feeding or not target:
                continue

            def search(params, inputs, model=model):
                return generate(model, params, inputs, stop=1, max_length=3, beams=2).tokens

            assert jax.eval_shape(search, params, inputs).shape == (rows, 2, 3)


def test_an_empty_source_is_one_of_padding_alone():
    model = Seq2Seq(
        *("tokens", 6, 5, 8),
        encoder=(Recurrent(ll.GRU(8)),),
        decoder=(Dense(8),),
        attention=Additive(6),
    )
    params = drawn_like(jax.eval_shape(model.init, KEY), np.random.default_rng(0))

    @jax.jit
    def both(params):
        padded = jnp.zeros((B, 2), jnp.int32), jnp.zeros((B, 2), bool)
        sources = ((jnp.zeros((B, 0), jnp.int32), None), padded)
        targets = jnp.ones((B, 3), jnp.int32)
        return [model.apply(params, xs, targets, mask=mask) for xs, mask in sources]

    empty, padded = both(params)
    assert np.isfinite(empty).all() and np.ptp(empty) > 0
    np.testing.assert_allclose(empty, padded, rtol=1e-6)


def batch(rows: int, steps: int, kind: str) -> Batch:
    asked = steps if kind != "transcripts" else 2
    targets = shape(rows, asked, 1) if kind == "values" else shape(rows, asked, dtype=jnp.int32)
    return Batch(
        inputs=shape(rows, steps, 2),
        targets=targets,
        weights=shape(rows, asked),
        scored=flags(rows, asked),
        mask=None,
    )


@pytest.mark.parametrize("kind", ["classes", "values", "transcripts"])
def test_losses_and_padding(kind: str):
    class Asked:
        targets_kind = kind
        tolerance = 0.1

    task: Any = Asked()
    for steps, rows in SIZES:
        given = batch(rows, steps, kind)
        answers = shape(rows, steps, 1 if kind == "values" else 5)
        each, right = jax.eval_shape(lambda a, b: losses(task, a, b), answers, given)
        assert each.shape == right.shape == given.weights.shape
        assert jax.eval_shape(lambda b: pad(b, 7), given).inputs == shape(rows, 7, 2)


def test_an_empty_transcript_of_no_steps_is_certain():
    class Transcribed:
        targets_kind = "transcripts"

    task: Any = Transcribed()
    targets = jnp.zeros((2, 1), jnp.int32).at[1, 0].set(3)
    asked = (targets > 0).astype(jnp.float32)
    given = Batch(jnp.zeros((2, 0, 2)), targets, asked, targets > 0, None)
    each, right = losses(task, jnp.zeros((2, 0, 5)), given)
    assert each[0, 0] == 0 and each[1, 0] > 1e3  # nothing to write; what cannot be written
    assert not right[1, 0]


def test_pictures():
    pictures = Pictures(24, 8)
    params = jax.eval_shape(pictures.init, KEY)
    regions = jax.eval_shape(lambda p, x: pictures.apply(p, x)[0], params, shape(0, 8, 24))
    assert regions == shape(4, 0, 8)


@pytest.mark.parametrize(("rows", "steps"), [(0, 3), (2, 0)])
def test_the_mean_of_nothing_is_refused(rows: int, steps: int):
    model: Any = tiny.Affine()
    params = jax.eval_shape(lambda: jax.tree.map(lambda x: x[None], model.init(KEY)))
    given = batch(rows, steps, "values")
    with pytest.raises(ValueError, match="expected at least one sequence of one step"):
        jax.eval_shape(
            lambda p, b: evaluate(model, tiny.Sums(), tiny.TRAINING, p, b), params, given
        )
