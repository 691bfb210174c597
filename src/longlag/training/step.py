"""The train state, and the compiled optimiser step for several seeds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from longlag.core.array_types import SeedCounts, SeedFlags, SeedIntegers, SeedNumbers
from longlag.core.batch import Batch
from longlag.core.chunks import sum_over_time
from longlag.core.ops import Params
from longlag.core.over_devices import time_over_devices
from longlag.core.platforms import on_cpu_or_else
from longlag.core.promotion import allow_promotion, at_least_float32, multiply, through_float32
from longlag.core.selection import select
from longlag.models.model import Model
from longlag.models.sequence import SequenceModel, WholeSequenceModel
from longlag.tasks import Task
from longlag.training.config import Training
from longlag.training.meshes import cut_rows, over_mesh
from longlag.training.objective import answer_batch, losses, mean_loss
from longlag.training.parts import add_parts, in_parts, key_of_part, take_part

__all__ = [
    "Curriculum",
    "TrainState",
    "check_streaming",
    "compiled_dispatch",
    "dispatch",
    "init_states",
    "map_over_seeds",
]


# Every stream of randomness has a number of its own, so that test data are never training data.
INIT, DATA, DROPOUT, VALIDATION, TEST, LAGS = range(6)

# What `seeds_as` "auto" takes on CPU (benchmarks/README.md, seeds), and on every other platform.
SEEDS_AS = ("map", "vmap")


@flax.struct.dataclass
class Curriculum:
    """How far S seeds have come on K lags (`longlag.training.curriculum`).

    Attributes:
        reached: `[S]` int32, how many lags were solved, from the shortest on.
        steps: `[S, K]` int32, optimiser steps taken at each lag.
    """

    reached: SeedIntegers
    steps: SeedCounts


@flax.struct.dataclass
class TrainState:
    """All that the next step depends on, for S seeds; each leaf has a leading axis S.

    A grid of learning rates has a state for each pair of a rate and a seed (`init_states`).

    Attributes:
        seed: `[S]` uint32.
        rate: `[S]` float32, the peak learning rate. It is data, so that one program serves all
            rates of a grid.
        step: `[S]` int32, optimiser steps taken.
        params: parameters.
        opt_state: the optimiser's state.
        failed: `[S]` bool: a loss or gradient was not finite. The step is then the one that
            failed; it was not taken.
        norm: `[S]` float32, global gradient norm of the last step; infinite where it is not
            finite, so that a seed that has failed leaves no NaN in the programs of the others.
        streak: `[S]` int32, evaluations in a row at which the task was solved.
        solved_at: `[S]` int32, the step of the first of three such evaluations in a row, or -1.
        carry: the model's state after the last step (`Training.carry`), or None.
        curriculum: how far the seeds have come (`Training.curriculum`), or None.
    """

    seed: SeedIntegers
    rate: SeedNumbers
    step: SeedIntegers
    params: Params
    opt_state: Any
    failed: SeedFlags
    norm: SeedNumbers
    streak: SeedIntegers
    solved_at: SeedIntegers
    carry: Any = None
    curriculum: Curriculum | None = None


def _loss(
    model: Model,
    task: Task,
    training: Training,
    params: Params,
    batch: Batch,
    key: jax.Array,
    carry: Any,
    mesh: Mesh | None,
) -> tuple[jax.Array, Any]:
    """The mean loss of a batch, and the state after it if one is carried.

    Of a device's part of a batch it is what that part adds to the mean.
    """
    if training.carry:
        assert isinstance(model, SequenceModel)  # others were refused (`check_streaming`)
        carry, answers = model.apply(
            params, batch.inputs, carry, mask=batch.mask, resets=batch.resets, key=key
        )
        return mean_loss(losses(task, answers, batch)[0], batch.weights), carry
    if training.time_chunk == 0:
        answers, answered, _ = answer_batch(model, task, params, batch, key)
        return mean_loss(losses(task, answers, answered)[0], answered.weights, mesh), None

    assert isinstance(model, SequenceModel)  # others were refused (`check_streaming`)
    params_of_chunk = through_float32(params)

    def chunk_loss(state: Any, chunk: Batch, index: jax.Array) -> tuple[Any, jax.Array]:
        state, answers = model.apply(
            params_of_chunk(),
            chunk.inputs,
            state,
            mask=chunk.mask,
            resets=chunk.resets,
            key=jax.random.fold_in(key, index),
        )
        return state, multiply(losses(task, answers, chunk)[0], chunk.weights).sum()

    rows, steps = batch.weights.shape
    _, total = sum_over_time(
        chunk_loss,
        model.init_state(params, rows, capacity=steps),
        batch,
        chunk=training.time_chunk,
        truncate=training.truncate,
    )
    return total / batch.weights.sum().astype(total.dtype), None


def check_streaming(model: Model, task: Task, training: Training, mesh: Mesh | None = None) -> None:
    """Raises `ValueError` if time cannot be cut as `training` and `mesh` ask."""
    name = "carry" if training.carry else "time_chunk" if training.time_chunk else None
    if in_parts(mesh):
        if name is not None:
            raise ValueError(
                "mesh time: expected carry False and time_chunk 0 where devices share out the "
                f"steps; got carry {training.carry} and time_chunk {training.time_chunk!r}"
            )
        name = "mesh time"
    if name is None:
        return
    if task.targets_kind == "transcripts":
        raise ValueError(f"{name}: expected a task whose losses are of single steps; got {task}")
    whole = isinstance(model, WholeSequenceModel) and not in_parts(mesh)
    if whole or not isinstance(model, SequenceModel):
        raise ValueError(
            f"{name}: expected a SequenceModel, which streams; got a {type(model).__name__}"
        )
    if not training.carry:
        return
    if type(task).at_step is Task.at_step:
        raise ValueError(
            f"carry: expected a task whose batches follow each other (Task.at_step); got {task}"
        )
    params, state = jax.eval_shape(model.init, jax.random.key(0)), model.init_state
    sizes = [jax.eval_shape(lambda p, n=n: state(p, 1, n), params) for n in (1, 2)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "carry: expected layers whose state does not grow with the text (a recurrence, an "
            f"attention with a window); got {model.layers}"
        )


def init_states(
    model: Model,
    training: Training,
    seeds: int,
    first_seed: int = 0,
    lags: int = 1,
    rates: Sequence[float] = (),
) -> TrainState:
    """The states before the first step.

    It is not compiled as a whole: its operations are few, and those of one model are compiled
    already when the next one of like sizes comes.

    Args:
        model: the model.
        training: names the optimiser and its rate.
        seeds: how many. They are S, where there is no grid.
        first_seed: the seeds are first_seed .. first_seed + seeds - 1.
        lags: K, of a curriculum; it counts where `training` asks for one.
        rates: a grid of learning rates. Then S is `len(rates) * seeds`, in the order of
            `longlag.training.grids.label_states`. Empty: the rate of `training`.
    """

    def first_carry(params: Params) -> Any:
        if not training.carry:
            return None
        assert isinstance(model, SequenceModel)  # others were refused (`check_streaming`)
        return model.init_state(params, training.batch_size, 1)

    def strengthen(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)

    def init_seed(seed: jax.Array, training: Training) -> TrainState:
        params = model.init(jax.random.fold_in(jax.random.key(seed), INIT))
        # A parameter that was written as a number is an array like the others from here on.
        params = strengthen(params)
        with allow_promotion():
            # No leaf is weakly typed: a checkpoint has no such thing.
            opt_state = strengthen(training.transformation_for(model).init(params))
        return TrainState(
            seed=seed,
            rate=jnp.float32(training.learning_rate),
            step=jnp.int32(0),
            params=params,
            opt_state=opt_state,
            failed=jnp.bool_(False),
            norm=jnp.float32(0),
            streak=jnp.int32(0),
            solved_at=jnp.int32(-1),
            carry=first_carry(params),
            curriculum=Curriculum(jnp.int32(0), jnp.zeros(lags, jnp.int32))
            if training.curriculum
            else None,
        )

    states = [
        init_seed(jnp.uint32(seed), dataclasses.replace(training, learning_rate=rate))
        for rate in rates or (training.learning_rate,)
        for seed in range(first_seed, first_seed + seeds)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def dispatch(
    model: Model,
    task: Task,
    training: Training,
    states: TrainState,
    until: SeedIntegers,
    mesh: Mesh | None = None,
) -> tuple[TrainState, SeedNumbers]:
    """Takes at most `training.dispatch` optimiser steps with every seed, in one program.

    A batch is drawn inside from the seed and the step's number alone, so a seed's numbers depend
    on neither its neighbours nor on where a run was cut.

    Args:
        model: the model.
        task: draws the data.
        training: how.
        states: S states; the argument is donated.
        until: `[S]` int32, the step at which a seed ends; a state that is there stays as it is.
        mesh: where, from `choose_mesh`; None: on one device.

    Returns:
        The states, and the mean loss over the steps taken, `[S]`; zero of a seed that took none.
    """
    check_streaming(model, task, training, mesh)
    if not jnp.issubdtype(jnp.result_type(until), jnp.integer):
        raise ValueError(f"until: expected steps, integers [S]; got {jnp.result_type(until)}")
    return compiled_dispatch(model, task, training.as_compiled, states, until, mesh)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 5), donate_argnums=3)
def compiled_dispatch(
    model: Model,
    task: Task,
    training: Training,
    states: TrainState,
    until: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[TrainState, jax.Array]:
    """What `dispatch` compiles. The learning rate is that of each state, not of `training`."""
    optimizer = training.as_compiled.transformation_for(model)
    until = until.astype(jnp.int32)
    loss_dtype = at_least_float32(*jax.tree.leaves(states.params))

    def step(state: TrainState, until: jax.Array) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
        key = jax.random.key(state.seed)
        dropout_key = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), state.step)
        batch = task.at_step(jax.random.fold_in(key, DATA), state.step, training.batch_size)
        batch = take_part(mesh, cut_rows(mesh, batch))
        dropout_key = key_of_part(mesh, dropout_key)

        def loss_of(params: Params) -> tuple[jax.Array, Any]:
            return _loss(model, task, training, params, batch, dropout_key, state.carry, mesh)

        with time_over_devices("time" if in_parts(mesh) else None):
            (loss, carry), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        loss, grads = add_parts(mesh, (loss, grads))
        loss = loss.astype(loss_dtype)
        with allow_promotion():
            norm = optax.tree.norm(grads)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            updates = optax.tree.scale(state.rate, updates)
            params = optax.apply_updates(state.params, updates)
        moved = state.replace(  # type: ignore[attr-defined]
            params=params,
            opt_state=opt_state,
            step=state.step + 1,
            norm=norm.astype(jnp.float32),
            carry=carry,
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        norm = jnp.where(jnp.isnan(norm), jnp.inf, norm).astype(jnp.float32)
        stuck = state.replace(failed=jnp.bool_(True), norm=norm)  # type: ignore[attr-defined]
        running = ~state.failed & (state.step < until)
        new = jax.tree.map(
            lambda m, s, o: jnp.where(running, jnp.where(finite, m, s), o), moved, stuck, state
        )
        return new, (jnp.where(running, loss, 0.0), running)

    def train_seed(inputs: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
        state, until = inputs
        active = ~state.failed & (state.step < until)

        def run(state: TrainState) -> tuple[TrainState, jax.Array]:
            state, (step_losses, taken) = jax.lax.scan(
                lambda state, _: step(state, until), state, length=training.dispatch
            )
            return state, step_losses.sum() / jnp.maximum(taken.sum(), 1).astype(loss_dtype)

        def rest(state: TrainState) -> tuple[TrainState, jax.Array]:
            return state, jnp.zeros((), loss_dtype)

        if in_parts(mesh):
            # Every device comes to every exchange, also one whose seed has ended.
            return select(active, run(state), rest(state))
        return jax.lax.cond(active, run, rest, state)

    return map_over_seeds(training, train_seed, (states, until), mesh)


def map_over_seeds(
    training: Training, function: Any, inputs: Any, mesh: Mesh | None = None, shared: Any = ()
) -> Any:
    """A function of one seed's inputs, for the leading axis S of all, as `seeds_as` has it.

    Args:
        training: says how seeds are run.
        function: its arguments are one seed's inputs and `shared`.
        inputs: of all seeds.
        mesh: where, from `choose_mesh`; None: on one device.
        shared: further arguments, the same for every seed.
    """

    def run(inputs: Any, shared: Any) -> Any:
        def of_seed(inputs: Any) -> Any:
            return function(inputs, *shared)

        ways = {"map": functools.partial(jax.lax.map, of_seed), "vmap": jax.vmap(of_seed)}
        if training.seeds_as == "auto":
            return on_cpu_or_else(*(ways[way] for way in SEEDS_AS), inputs)
        return ways[training.seeds_as](inputs)

    return run(inputs, shared) if mesh is None else over_mesh(mesh, run, inputs, shared)
