"""Modes of jax that a user may have on: double precision, promotion refused, donated arguments.

What is promoted silently shows as float64 under x64 where float32 came in. So one trace holds three
modes at once: x64, strict dtypes and no promotion of ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag as ll
from longlag.interop import from_torch, to_torch
from longlag.models import build
from longlag.nn import Bidirectional
from longlag.tasks import Parity, Task
from longlag.training import (
    Training,
    compiled_dispatch,
    dispatch,
    evaluate,
    evaluation_batch,
    init_states,
)
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, LAYERS, D
from tests.helpers.programs import HYBRID, OF_FEATURES, PROGRAMS, SEQ2SEQS, B, trace
from tests.helpers.small_tasks import SMALL
from tests.helpers.tiny import Sums

every = pytest.mark.parametrize("name", PROGRAMS)


@contextlib.contextmanager
def strict_and_double() -> Iterator[None]:
    """x64, and each promotion of a dtype or a rank an error."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


def floating(tree: Any) -> set[Any]:
    leaves = jax.tree.leaves(tree)
    return {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}


@every
def test_nothing_is_promoted_silently_and_float32_stays_float32(name):
    for what, program in PROGRAMS[name].items():
        with strict_and_double():
            _, results = trace(program, jnp.float32, jnp.float32)
        assert floating(results) <= {jnp.dtype("float32")}, what


@pytest.mark.deep
@every
def test_float64_parameters_compute_with_float32_inputs(name):
    for program in PROGRAMS[name].values():
        with strict_and_double():
            trace(program)


@pytest.mark.parametrize("task", SMALL, ids=lambda task: type(task).__name__)
def test_tasks_draw_without_promotion(task):
    with strict_and_double():
        jax.eval_shape(lambda: task.sample(jax.random.key(0), 3))


class Following(Parity):
    """Batches that follow each other."""

    def at_step(self, key, step, batch_size):
        return self.sample(jax.random.fold_in(key, step), batch_size)


PARITY = Parity(1, 8)
TRAININGS: dict[str, tuple[Task, dict[str, Any]]] = {
    "adam": (PARITY, {}),
    "adamw": (PARITY, {"optimizer": "adamw", "schedule": "cosine", "warmup": 2}),
    "rmsprop": (PARITY, {"optimizer": "rmsprop", "warmup": 2, "clip": 0.0}),
    "sgd": (PARITY, {"optimizer": "sgd", "schedule": "cosine"}),
    "time_chunk": (PARITY, {"time_chunk": 3}),
    "carry": (Following(1, 8), {"carry": True}),
    "values": (Sums(), {}),
}


def trained(name: str):
    task, options = TRAININGS[name]
    training = Training(steps=2, dispatch=1, batch_size=4, **options)
    model = build(
        inputs=task.inputs_kind, in_features=task.in_features, out_features=task.out_features,
        cell=ll.GRU(4), width=4, depth=1,
    )  # fmt: skip
    return model, task, training


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", TRAININGS)
def test_training_keeps_the_dtype_of_the_parameters(name, dtype):
    model, task, training = trained(name)

    def start():
        one = init_states(model, training, 1)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), one.params)
        state = one.replace(  # type: ignore[attr-defined]
            params=params, opt_state=jax.vmap(training.transformation.init)(params)
        )
        if not training.carry:
            return state
        return state.replace(carry=jax.vmap(lambda p: model.init_state(p, 4, 1))(params))

    with strict_and_double():
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            states = jax.eval_shape(start)
        until = jnp.full(1, training.steps)
        new, loss = jax.eval_shape(
            lambda s: compiled_dispatch(model, task, training, s, until), states
        )
        batch = jax.eval_shape(lambda: evaluation_batch(task, 4, "test"))
        jax.eval_shape(lambda p, b: evaluate(model, task, training, p, b), states.params, batch)
    assert jax.tree.map(lambda leaf: leaf.dtype, new) == jax.tree.map(lambda x: x.dtype, states)
    assert loss.dtype == ("float64" if dtype == "float64" else "float32")


def test_training_runs_under_x64(x64):
    model, task, training = trained("adam")
    states, loss = dispatch(
        model, task, training, init_states(model, training, 1), jnp.full(1, training.steps)
    )
    assert floating(states.params) == {jnp.dtype("float64")}
    assert loss.dtype == "float64" and np.isfinite(loss).all()


@pytest.mark.parametrize("cell", [ll.Elman(3), ll.LSTM(3), ll.GRU(3)], ids=str)
def test_converters_promote_nothing(cell):
    params = cell.init(jax.random.key(0), D)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        (back,) = from_torch(cell, to_torch(cell, params))
    jax.tree.map(np.testing.assert_array_equal, back, params)


def shared(tree: Any) -> int:
    """How many leaves are the buffer of another one."""
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if leaf.size]
    return len(pointers) - len(set(pointers))


def ones(init: Any) -> Any:
    """Parameters, quickly."""
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), jax.eval_shape(init))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
def test_no_two_leaves_of_a_first_carry_share_a_buffer(cell):
    params = ones(lambda: cell.init(jax.random.key(0), D))
    for batch in ((), (B,)):
        assert not shared((params, cell.initial_carry(params, batch))), batch
    # A learned first carry is a part of the parameters.
    if getattr(cell, "learned_carry", False):
        assert not shared(cell.zero_carry((), jnp.float32))


STATES = {
    **{
        name: (lambda layer=layer: layer.init(jax.random.key(0), D), layer.init_state)
        for name, layer in (ATTENTION_LAYERS | BLOCKS | LAYERS).items()
        if not isinstance(layer, Bidirectional)
    },
    **{
        name: (
            lambda model=model: model.init(jax.random.key(0)),
            lambda p, batch, capacity, model=model: model.init_state(p, batch[0], capacity),
        )
        for name, model in {"hybrid": HYBRID, "of-features": OF_FEATURES, **SEQ2SEQS}.items()
    },
}


@pytest.mark.parametrize("name", STATES)
def test_no_two_leaves_of_a_first_state_share_a_buffer(name):
    init, init_state = STATES[name]
    params = ones(init)
    assert not shared((params, init_state(params, (B,), 3)))


def test_states_can_be_donated():
    params = ones(lambda: HYBRID.init(jax.random.key(0)))
    tokens = jnp.zeros((B, 1), jnp.int32)
    step = jax.jit(HYBRID.apply, donate_argnums=2)
    for init_state in (HYBRID.init_state, jax.jit(HYBRID.init_state, static_argnums=(1, 2))):
        state = init_state(params, B, 3)
        for _ in range(2):
            state, _ = step(params, tokens, state)
        assert not shared((params, state))


def test_no_two_leaves_of_a_train_state_share_a_buffer():
    model, _, training = trained("carry")
    assert not shared(init_states(model, training, 2))
