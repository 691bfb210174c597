"""Encoder, attention and decoder against a loop over the equations; teacher forcing and steps."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.attention import Additive, DotProduct, Local, Multiplicative
from longlag.cells import GRU, LSTM
from longlag.models import Seq2Seq, generate
from longlag.nn import Bidirectional, Dropout, Recurrent, Residual
from longlag.tasks import Batch, Task
from longlag.tasks.task import Floor
from longlag.testing.running import jit
from longlag.training import Training, dispatch, init_states
from tests.helpers.attention_oracle import attend_source
from tests.helpers.layer_oracle import affine, forward
from tests.helpers.streams import close, drawn_like

B, S, L, V, W = 3, 5, 4, 6, 4
STOP = 0

PLAIN = Seq2Seq(
    "tokens",
    in_features=7,
    out_features=V,
    width=W,
    encoder=(Bidirectional(LSTM(3)),),
    decoder=(Recurrent(LSTM(5)),),
    start=2,
)
MODELS = {
    "none": PLAIN,
    "none-fed": dataclasses.replace(PLAIN, input_feeding=True),
    "additive": dataclasses.replace(PLAIN, attention=Additive(3)),
    "additive-fed": dataclasses.replace(PLAIN, attention=Additive(3), input_feeding=True),
    "features-local-fed": dataclasses.replace(
        PLAIN,
        inputs="features",
        encoder=(Recurrent(LSTM(W)),),
        decoder=(Residual(Recurrent(LSTM(W))), Recurrent(LSTM(5))),
        attention=Local(2, attention=Multiplicative(5), radius=2),
        input_feeding=True,
    ),
    "heads-mean": dataclasses.replace(
        PLAIN, attention=DotProduct(4, heads=2, positions="none"), summary="mean"
    ),
}


def drawn(model: Seq2Seq):
    """Parameters, none of them zero, sources of several lengths, targets."""
    rng = np.random.default_rng(0)
    params = drawn_like(jax.eval_shape(model.init, jax.random.key(0)), rng)
    mask = np.arange(S) < np.array([[S], [3], [0]])
    if model.inputs == "tokens":
        inputs = rng.integers(0, model.in_features, (B, S))
    else:
        inputs = rng.normal(size=(B, S, model.in_features))
    return params, inputs, rng.integers(0, V, (B, L)), mask


def oracle(model: Seq2Seq, params, inputs, targets, mask):
    """Answers `[B, L, V]` and weights `[B, L, S]`, row by row and step by step."""
    if model.inputs == "tokens":
        xs = params["source"]["embedding"][np.where(mask, inputs, 0)]
    else:
        xs = affine(params["source"], np.where(mask[..., None], inputs, 0))
    xs, flags = np.swapaxes(xs, 0, 1), (mask.T, np.zeros_like(mask.T))
    for i, layer in enumerate(model.encoder):
        xs = forward(layer, params["encoder"][str(i)], xs, *flags)
    answers, weights = [], []
    for row in range(B):
        ms, real = xs[:, row], np.flatnonzero(mask[row])
        ends = (ms[real[0]], ms[real[-1]]) if len(real) else (0 * ms[0], 0 * ms[0])
        if model.summary == "mean":
            ends = (sum(ms[real], 0 * ms[0]) / max(len(real), 1),)
        summary = affine(params["summary"], np.concatenate(ends))
        fed, us = np.zeros(W), []
        for t in range(targets.shape[1]):
            before = model.start if t == 0 else targets[row, t - 1]
            u = params["target"]["embedding"][before] + summary
            us.append(u + (fed @ params["feed"]["kernel"] if model.input_feeding else 0))
            hs = np.array(us)[:, None]
            alive = np.ones(hs.shape[:2], bool)
            for i, layer in enumerate(model.decoder):
                hs = forward(layer, params["decoder"][str(i)], hs, alive, ~alive)
            h = hs[-1, 0]
            if model.attention is not None:
                read = hs[-1:], ms[None], mask[row : row + 1]
                context, alpha = attend_source(model.attention, params["attention"], *read)
                h = np.concatenate([h, context[0, 0]])
                weights.append(alpha[0, 0])
            fed = np.tanh(affine(params["attentional"], h))
            answers.append(affine(params["head"], fed))
    weights = np.reshape(weights, (B, -1, S)) if weights else None
    return np.reshape(answers, (B, -1, V)), weights


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def model(request):
    return request.param


def test_answers_and_gradients_equal_the_oracle(model, x64):
    params, inputs, targets, mask = drawn(model)
    rng = np.random.default_rng(1)
    gradient = rng.normal(size=(B, L, V))

    @jit
    def run(params, inputs, targets, mask):
        apply = functools.partial(model.apply, targets=targets, mask=mask)
        return jax.value_and_grad(lambda p: (apply(p, inputs) * gradient).sum())(params), (
            apply(params, inputs)
        )

    spoilt = np.where(mask, inputs, -1) if model.inputs == "tokens" else inputs
    (_, grads), answers = run(params, spoilt, targets, mask)
    close(answers, oracle(model, params, inputs, targets, mask)[0])
    leaves, structure = jax.tree.flatten(params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
    for i, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads))):
        direction = rng.normal(size=leaf.shape)
        moved = [x + 1e-30j * direction if i == j else x for j, x in enumerate(leaves)]
        moved = oracle(model, jax.tree.unflatten(structure, moved), inputs, targets, mask)[0]
        slope = np.sum(moved.imag * gradient) / 1e-30
        assert abs(slope) > 1e-4, names[i]
        np.testing.assert_allclose(np.sum(grad * direction), slope, 1e-9, 1e-9, err_msg=names[i])


def test_step_by_step_is_the_whole(model, x64):
    params, inputs, targets, mask = drawn(model)

    @jit
    def run(params, inputs, targets, mask):
        encoded = model.encode(params, inputs, mask=mask)
        state = model.init_state(params, B, L)
        tokens = model.shift_right(targets).T[:, :, None]

        def step(state, token):
            state, answers = model.decode(params, encoded, token, state)
            return state, answers[:, 0]

        stepped = jnp.swapaxes(jax.lax.scan(step, state, tokens)[1], 0, 1)
        return stepped, model.apply(params, inputs, targets, mask=mask)

    close(*run(params, inputs, targets, mask))


@pytest.mark.parametrize("name", ["additive-fed", "heads-mean"])
def test_alignment_is_where_the_oracle_looks(name, x64):
    model = MODELS[name]
    params, inputs, targets, mask = drawn(model)
    alignment = jax.jit(model.alignment)(params, inputs, targets, mask=mask)
    close(alignment, oracle(model, params, inputs, targets, mask)[1])


def test_no_attention_has_no_alignment():
    params, inputs, targets, _ = drawn(PLAIN)
    with pytest.raises(ValueError, match="expected a model with attention"):
        PLAIN.alignment(params, inputs, targets)


def test_dropout_falls_on_a_fed_decoder_step_by_step():
    model = dataclasses.replace(PLAIN, decoder=(Dropout(0.5),), input_feeding=True)
    params, inputs, targets, _ = drawn(model)
    params = jax.tree.map(jnp.float32, params)
    apply = jax.jit(functools.partial(model.apply, params, inputs, targets))
    one, same, other, none = (apply(key=k and jax.random.key(k)) for k in (1, 1, 2, None))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other) and not np.allclose(one, none)


class Backwards(Task):
    """A string, said backwards, then `STOP`."""

    length: int = 3
    lag_field = "length"
    time_steps = property(lambda self: self.length + 1)
    in_features = out_features = property(lambda self: 6)

    def sample(self, key, batch_size):
        of_length, of_tokens = jax.random.split(key)
        lengths = jax.random.randint(of_length, (batch_size, 1), 1, self.length + 1)
        steps = jnp.arange(self.length + 1)
        mask = (steps < lengths)[:, :-1]
        tokens = jax.random.randint(of_tokens, mask.shape, 1, 6) * mask
        back = jnp.take_along_axis(tokens, jnp.maximum(lengths - 1 - steps, 0), 1)
        asked = steps <= lengths
        targets = jnp.where(steps < lengths, back, STOP)
        return Batch(tokens, targets, asked.astype(jnp.float32), asked, mask)

    def floor(self):
        return Floor(math.log(6), 1 / 6, "any")

    def picture(self):
        return ""


@pytest.mark.deep
def test_it_learns_to_say_a_string_backwards():
    model = Seq2Seq(
        "tokens",
        in_features=6,
        out_features=6,
        width=24,
        encoder=(Bidirectional(GRU(16)),),
        decoder=(Recurrent(GRU(24)),),
        attention=Additive(16),
        input_feeding=True,
        start=STOP,
    )
    task, training = Backwards(), Training(steps=150, dispatch=150, learning_rate=1e-2)
    states, loss = dispatch(
        model, task, training, init_states(model, training, 1), jnp.array([training.steps])
    )
    params = jax.tree.map(lambda leaf: leaf[0], states.params)
    batch = task.sample(jax.random.key(5), 64)
    found = jax.jit(functools.partial(generate, model, stop=STOP, max_length=4, beams=2))(
        params, batch.inputs, mask=batch.mask
    )
    right = (found.tokens[:, 0] == batch.targets).all(1).mean()
    assert right > 0.95, (float(loss[0]), float(right))
    with pytest.raises(
        ValueError, match="time_chunk: expected a SequenceModel, which streams; got a Seq2Seq"
    ):
        in_chunks = dataclasses.replace(training, time_chunk=2)
        dispatch(
            model, task, in_chunks, init_states(model, training, 1), jnp.array([training.steps])
        )


def test_refuses_a_growing_state_under_input_feeding_and_a_start_outside():
    growing = (Recurrent(LSTM(W)), DotProduct(W, heads=2))
    with pytest.raises(ValueError, match="whose state does not grow"):
        dataclasses.replace(PLAIN, decoder=growing, input_feeding=True)
    windowed = (Recurrent(LSTM(W)), DotProduct(W, heads=2, window=2))
    dataclasses.replace(PLAIN, decoder=windowed, input_feeding=True)
    with pytest.raises(ValueError, match=r"start: expected a token of 0 \.\. 5, got 6"):
        dataclasses.replace(PLAIN, start=6)
    with pytest.raises(ValueError, match="inputs"):
        dataclasses.replace(PLAIN, inputs="words")


def test_what_is_asked_of_a_sequence_is_its_target(x64):
    # A task with a target at every step: the decoder says what is asked for, and nothing between.
    model = MODELS["additive"]
    params, inputs, _, mask = drawn(model)
    targets = np.random.default_rng(1).integers(0, V, (B, S))
    at = np.array([[1, 4], [0, 2], [3, 4]])
    asked = np.zeros((B, S), bool)
    np.put_along_axis(asked, at, True, 1)
    batch = Batch(inputs, targets, asked.astype(np.float32), asked, mask)
    answers = jit(lambda params, batch, at: model.answer(params, batch, at=at))(params, batch, at)
    said = np.take_along_axis(targets, at, 1)
    close(answers, oracle(model, params, inputs, said, mask)[0])
