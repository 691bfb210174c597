"""Training as a pure function of configuration and seed; several seeds side by side."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import flax.struct
import jax
import jax.numpy as jnp
import optax

from longlag.answers import is_nan, likeliest
from longlag.cell import Params
from longlag.checks import is_zero
from longlag.chunks import check_chunk, sum_over_time
from longlag.model import Model
from longlag.models import SequenceModel, WholeSequenceModel
from longlag.optimizers import (
    Options,
    check_optimizer,
    freeze,
    optimizer,
    optimizers,
    schedule,
    schedule_needs_end,
    takes_weight_decay,
)
from longlag.platforms import on_cpu_or_else
from longlag.promotion import (
    add,
    at_least_float32,
    implicit,
    multiply,
    promote,
    through_float32,
    widen,
)
from longlag.spec import Spec, choose, refuse_idle
from longlag.tasks import Batch, Task
from longlag.tasks.checks import check_answers, least_steps
from longlag.weight_decay import by_name, decay_mask

__all__ = [
    "TrainState",
    "Training",
    "answered",
    "check_streaming",
    "compiled_dispatch",
    "dispatch",
    "init_states",
    "losses",
    "mean_loss",
    "nan_answers",
    "over_seeds",
    "transcript",
]

# Every stream of randomness has a number of its own, so that test data are never training data.
INIT, DATA, DROPOUT, VALIDATION, TEST = range(5)

# What `seeds_as` "auto" takes on CPU (benchmarks/README.md, seeds), and on every other platform.
SEEDS_AS = ("map", "vmap")


class Training(Spec):
    """How a model is trained.

    Attributes:
        steps: optimiser steps at most.
        batch_size: sequences per step.
        learning_rate: peak rate.
        optimizer: the name of an optimiser of `optax` or `optax.contrib`, such as "adam", "adamw",
            "lion", "sgd" (here with momentum 0.9) or "rmsprop" (with decay 0.9). One whose updates
            are not proportional to the learning rate is refused.
        optimizer_options: its own keywords, a mapping such as `{"b1": 0.95}`; kept as pairs.
        schedule: "constant", "cosine" to zero over `steps`, or the name of a schedule of `optax`.
        schedule_options: the keywords of a schedule of optax. Rates are in units of
            `learning_rate`; `longlag.optimizers.schedule` says what may be left out.
        warmup: steps over which the rate rises from zero.
        weight_decay: of an optimiser that has one (adamw, lion, lamb); with another it is refused.
            The model says which parameters it shrinks (`Model.decays`).
        clip: gradients are scaled down to this global norm; 0 means never.
        dispatch: optimiser steps between two looks at the run; evaluations and checkpoints fall on
            these borders.
        eval_size: sequences of the frozen evaluation set.
        solved: validation accuracy from which a task counts as solved; three evaluations in a row
            must reach it, and the first of them is the time of solving.
        stop_when_solved: end a seed there.
        time_chunk: steps of time per chunk of a training sequence, "sqrt" for near √T, or 0: the
            whole sequence at once. In chunks, only the states at their borders are kept for the
            gradient and the rest is computed again, so that memory grows with √T.
        truncate: no gradient flows from one chunk of time into the one before (truncated
            backpropagation through time).
        carry: a step begins with the state that the step before ended with, and no gradient flows
            into that one: truncated backpropagation over a text whose batches follow each other
            (`Task.at_step`).
        seeds_as: "map" (one after another), "vmap" (side by side in one program), or "auto": "map"
            on CPU, where vmap gains nothing (benchmarks/README.md, seeds), "vmap" elsewhere.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.1
    clip: float = 1.0
    dispatch: int = 50
    eval_size: int = 512
    solved: float = 0.99
    stop_when_solved: bool = True
    time_chunk: int | Literal["sqrt"] = 0
    truncate: bool = False
    carry: bool = False
    seeds_as: Literal["auto", "map", "vmap"] = "auto"
    optimizer_options: Options = ()
    schedule_options: Options = ()

    def __post_init__(self) -> None:
        for name in ("optimizer_options", "schedule_options"):
            object.__setattr__(self, name, freeze(getattr(self, name), name))
        choose(self.optimizer, optimizers(), "optimizer")
        choose(self.seeds_as, ("auto", "map", "vmap"), "seeds_as")
        if self.time_chunk != 0:
            check_chunk("time_chunk", self.time_chunk)
        elif self.truncate:
            raise ValueError("truncate: expected a time_chunk to truncate at, got time_chunk 0")
        if self.carry and self.time_chunk != 0:
            raise ValueError(f"carry: expected time_chunk 0 beside it, got {self.time_chunk}")
        for name in ("steps", "batch_size", "dispatch", "eval_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not takes_weight_decay(self.optimizer):
            why = f"with optimizer {self.optimizer!r}"
            refuse_idle("weight_decay", self.weight_decay, Training.weight_decay, why)
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected more than 0, got {self.learning_rate}")
        if not 0 < self.solved <= 1:
            raise ValueError(f"solved: expected an accuracy in (0, 1], got {self.solved}")
        scheduled = callable(self.rates)  # refuses an impossible schedule
        options = cast(Any, self.optimizer_options)
        check_optimizer(self.optimizer, options, self.weight_decay, scheduled)

    @property
    def at_unit_rate(self) -> Training:
        """The same with learning rate 1: all rates share its program (`TrainState.rate`)."""
        return dataclasses.replace(self, learning_rate=1.0)

    @property
    def depends_on_steps(self) -> bool:
        """Whether the learning rate of a step depends on how many steps are taken in all."""
        return schedule_needs_end(self.schedule, cast(Any, self.schedule_options))

    @property
    def rates(self) -> float | Callable[[Any], Any]:
        """The learning rate: a number, or a function of the step."""
        options = cast(Any, self.schedule_options)
        return schedule(self.schedule, options, self.learning_rate, self.steps, self.warmup)

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The optimiser, for a model whose kernels and embeddings decay."""
        return self.transformation_of(by_name)

    def transformation_of(self, decays: Callable[[Params], Any]) -> optax.GradientTransformation:
        """The optimiser, as optax has it. Its updates are proportional to the learning rate.

        Args:
            decays: maps parameters to a tree of bools: which ones weight decay shrinks.
        """
        chosen = optimizer(
            self.optimizer,
            cast(Any, self.optimizer_options),
            self.rates,
            self.weight_decay,
            decays,
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), chosen) if self.clip else chosen

    def transformation_for(self, model: Model) -> optax.GradientTransformation:
        """The optimiser of a model, which says which of its parameters decay."""
        return self.transformation_of(lambda params: decay_mask(model, params))


@flax.struct.dataclass
class TrainState:
    """All that the next step depends on, for S seeds; each leaf has a leading axis S.

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
    """

    seed: jax.Array
    rate: jax.Array
    step: jax.Array
    params: Params
    opt_state: Any
    failed: jax.Array
    norm: jax.Array
    streak: jax.Array
    solved_at: jax.Array
    carry: Any = None


def losses(task: Task, answers: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The loss of every position, and whether its answer is right.

    Args:
        task: says whether answers are classes, values or transcripts.
        answers: `[B, T, K]`.
        batch: targets and weights.

    Returns:
        Losses `[B, T]` float32, zero where the weight is, and rightness `[B, T]` bool; of
        transcripts both `[B, L]`. A transcript has one loss, of which each of its classes has an
        equal part; its last class is right only if nothing is written after it. A transcript of no
        classes, a blank with a weight, has the loss of blanks alone, and is right if nothing is
        written. A transcript that its steps cannot hold, classes and a blank between equal ones
        counted, has probability 0: its loss is infinite, and its gradient zero.
        An answer that is NaN is never right, and its loss is NaN (`nan_answers`).

    Raises:
        ValueError: answers, targets or weights of shapes or dtypes that do not fit.
    """
    check_answers(task, answers, batch)
    answers = widen(answers)
    if task.targets_kind == "transcripts":
        return _transcribed(task, answers, batch)
    # Selected, not only weighted: what is not asked must not reach the gradient either.
    asked = batch.weights[..., None] > 0
    if task.targets_kind == "classes":
        logits = jnp.where(asked, answers, 0.0)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        right = likeliest(answers) == batch.targets
    else:
        error = jnp.where(asked, add(answers, -batch.targets), 0.0)
        each = (error * error).mean(-1)
        right = (jnp.abs(error) < task.tolerance).all(-1)
    return jnp.where(batch.weights > 0, each, 0.0), right


def nan_answers(task: Task, answers: jax.Array, batch: Batch) -> jax.Array:
    """Where the answers of `losses` are NaN.

    Returns:
        `[B, T]` bool; of transcripts `[B, L]`: all classes of a row with a NaN at any step that is
        heard.
    """
    nan = is_nan(answers)
    if task.targets_kind != "transcripts":
        return nan
    return jnp.broadcast_to(
        (nan & _heard(answers, batch)).any(1, keepdims=True), batch.scored.shape
    )


def _heard(answers: jax.Array, batch: Batch) -> jax.Array:
    """`[B, T]` bool, the real steps of a batch of transcripts."""
    return jnp.ones(answers.shape[:2], bool) if batch.mask is None else batch.mask


def _transcribed(task: Task, answers: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """`losses` of transcripts."""
    asked = batch.weights > 0
    L, mask, is_nan = asked.shape[1], _heard(answers, batch), nan_answers(task, answers, batch)
    if is_zero(mask.shape[1]):  # optax needs a step: one of padding is like none
        answers, mask = (
            jnp.pad(x, [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2)) for x in (answers, mask)
        )
    classes = asked & (batch.targets > 0)
    # What optax calls paddings are steps without sound, and places without a class.
    silent, over = (1.0 - flag.astype(answers.dtype) for flag in (mask, classes))
    with implicit():
        whole = optax.ctc_loss(answers, silent, batch.targets, over)[:, None].astype(answers.dtype)
    # optax has a large number for what cannot be.
    possible = least_steps(batch.targets, classes) <= mask.sum(axis=1)
    whole = jnp.where(possible[:, None], whole, jnp.inf)
    count = asked.sum(axis=1, keepdims=True)
    written = _padded_to(transcript(answers, mask), L)
    ended = (written != 0).sum(axis=1, keepdims=True) == classes.sum(axis=1, keepdims=True)
    last = jnp.arange(L)[None] == count - 1
    right = (written[:, :L] == batch.targets) & (ended | ~last)
    right &= ~is_nan
    return jnp.where(asked, whole / jnp.maximum(count, 1).astype(whole.dtype), 0.0), right


def _padded_to(written: jax.Array, places: int) -> jax.Array:
    """At least so many places: there may be fewer steps than a transcript has classes."""
    return jnp.pad(written, ((0, 0), (0, max(places - written.shape[1], 0))))


def transcript(answers: jax.Array, mask: jax.Array) -> jax.Array:
    """What is written by the likeliest class of every step: repeats once, no blanks, from step 0.

    Args:
        answers: `[B, T, K]`, class 0 is the blank.
        mask: `[B, T]` bool, the real steps.

    Returns:
        `[B, T]` int32, zero after the end. Steps whose answer is NaN write `answers.NO_CLASS`.
    """
    said = jnp.where(mask, likeliest(answers), 0)
    before = jnp.pad(said[:, :-1], ((0, 0), (1, 0)))
    new = (said != 0) & (said != before)
    order = jnp.argsort(~new, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(new, said, 0), order, axis=1)


def answered(
    model: Model, task: Task, params: Params, batch: Batch, key: jax.Array | None = None
) -> tuple[jax.Array, Batch, jax.Array | None]:
    """Answers `[B, K, ...]`, the batch cut down to what is asked, and where that is."""
    asked, at = batch, None
    if task.asked is not None:
        # Of ties, top-k takes the earlier, so that the steps stay in order.
        at = jax.lax.top_k((batch.weights > 0).astype(jnp.float32), task.asked)[1]
        pick = functools.partial(jnp.take_along_axis, indices=at, axis=1)
        targets = jax.vmap(lambda row, steps: row[steps])(batch.targets, at)
        asked = batch.replace(  # type: ignore[attr-defined]
            targets=targets, weights=pick(batch.weights), scored=pick(batch.scored)
        )
    return model.answer(params, batch, key, at), asked, at


def mean_loss(each: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean over all positions."""
    each, weights = promote(each, weights)
    return (each * weights).sum() / weights.sum()


def _loss(model, task, training, params, batch, key, carry):
    """The mean loss of a batch, and the state after it if one is carried."""
    if training.carry:
        carry, answers = model.apply(
            params, batch.inputs, carry, mask=batch.mask, resets=batch.resets, key=key
        )
        return mean_loss(losses(task, answers, batch)[0], batch.weights), carry
    if training.time_chunk == 0:
        answers, asked, _ = answered(model, task, params, batch, key)
        return mean_loss(losses(task, answers, asked)[0], asked.weights), None

    params_of_chunk = through_float32(params)

    def chunk_loss(state, chunk, index):
        state, answers = model.apply(
            params_of_chunk(),
            chunk.inputs,
            state,
            mask=chunk.mask,
            resets=chunk.resets,
            key=jax.random.fold_in(key, index),
        )
        return state, multiply(losses(task, answers, chunk)[0], chunk.weights).sum()

    assert isinstance(model, SequenceModel)  # others were refused (`check_streaming`)
    rows, steps = batch.weights.shape
    _, total = sum_over_time(
        chunk_loss,
        model.init_state(params, rows, capacity=steps),
        batch,
        chunk=training.time_chunk,
        truncate=training.truncate,
    )
    return total / batch.weights.sum().astype(total.dtype), None


def check_streaming(model: Model, task: Task, training: Training) -> None:
    """Raises `ValueError` if time cannot be cut as `training` asks."""
    name = "carry" if training.carry else "time_chunk" if training.time_chunk else None
    if name is None:
        return
    if task.targets_kind == "transcripts":
        raise ValueError(f"{name}: expected a task whose losses are of single steps; got {task}")
    if not isinstance(model, SequenceModel) or isinstance(model, WholeSequenceModel):
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


def init_states(model: Model, training: Training, seeds: int, first_seed: int = 0) -> TrainState:
    """The states before the first step.

    It is not compiled as a whole: its operations are few, and those of one model are compiled
    already when the next one of like sizes comes.

    Args:
        model: the model.
        training: names the optimiser and its rate.
        seeds: S.
        first_seed: the seeds are first_seed .. first_seed + S - 1.
    """

    def carried(params):
        if not training.carry:
            return None
        assert isinstance(model, SequenceModel)  # others were refused (`check_streaming`)
        return model.init_state(params, training.batch_size, 1)

    def strong(tree):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)

    def one(seed):
        params = model.init(jax.random.fold_in(jax.random.key(seed), INIT))
        # A parameter that was written as a number is an array like the others from here on.
        params = strong(params)
        with implicit():
            # No leaf is weakly typed: a checkpoint has no such thing.
            opt_state = strong(training.transformation_for(model).init(params))
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
            carry=carried(params),
        )

    states = [one(jnp.uint32(seed)) for seed in range(first_seed, first_seed + seeds)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def dispatch(
    model: Model, task: Task, training: Training, states: TrainState, active: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Takes `training.dispatch` optimiser steps with every active seed, in one program.

    A batch is drawn inside from the seed and the step's number alone, so a seed's numbers depend
    on neither its neighbours nor on where a run was cut. The last dispatch ends at
    `training.steps`.

    Args:
        model: the model.
        task: draws the data.
        training: how.
        states: S states; the argument is donated.
        active: `[S]` bool; an inactive state is returned as it is.

    Returns:
        The states, and the mean loss over the steps taken, `[S]`; zero of a seed that took none.
    """
    check_streaming(model, task, training)
    return compiled_dispatch(model, task, training.at_unit_rate, states, active)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def compiled_dispatch(
    model: Model, task: Task, training: Training, states: TrainState, active: jax.Array
) -> tuple[TrainState, jax.Array]:
    """What `dispatch` compiles. The learning rate is that of each state, not of `training`."""
    optimizer = training.at_unit_rate.transformation_for(model)
    loss_dtype = at_least_float32(*jax.tree.leaves(states.params))

    def step(state: TrainState, _):
        key = jax.random.key(state.seed)
        dropout_key = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), state.step)
        batch = task.at_step(jax.random.fold_in(key, DATA), state.step, training.batch_size)

        def loss_of(params):
            return _loss(model, task, training, params, batch, dropout_key, state.carry)

        (loss, carry), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        loss = loss.astype(loss_dtype)
        with implicit():
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
        known = jnp.where(jnp.isnan(norm), jnp.inf, norm).astype(jnp.float32)
        stuck = state.replace(failed=jnp.bool_(True), norm=known)  # type: ignore[attr-defined]
        going = ~state.failed & (state.step < training.steps)
        new = jax.tree.map(
            lambda m, s, o: jnp.where(going, jnp.where(finite, m, s), o), moved, stuck, state
        )
        return new, (jnp.where(going, loss, 0.0), going)

    def one(inputs):
        state, active = inputs

        def run(state):
            state, (each, taken) = jax.lax.scan(step, state, length=training.dispatch)
            return state, each.sum() / jnp.maximum(taken.sum(), 1).astype(loss_dtype)

        return jax.lax.cond(active, run, lambda state: (state, jnp.zeros((), loss_dtype)), state)

    return over_seeds(training, one, (states, active))


def over_seeds(training: Training, function: Any, inputs: Any) -> Any:
    """A function of one seed's inputs, for the leading axis S of all, as `seeds_as` has it."""
    ways = {"map": functools.partial(jax.lax.map, function), "vmap": jax.vmap(function)}
    if training.seeds_as == "auto":
        return on_cpu_or_else(*(ways[way] for way in SEEDS_AS), inputs)
    return ways[training.seeds_as](inputs)
