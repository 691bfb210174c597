"""Continuing a sequence by a model's own answers, drawn at random."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from longlag.cell import Params
from longlag.models import SequenceModel

__all__ = ["sample"]


def sample(
    model: SequenceModel,
    params: Params,
    prompt: jax.Array,
    steps: int,
    key: jax.Array,
    temperature: float = 1.0,
) -> jax.Array:
    """Continues sequences token by token, streaming: each step costs the same.

    Args:
        model: of tokens, whose answers are the tokens again.
        params: of one seed.
        prompt: `[B, P]` integers, at least one token.
        steps: how many tokens to draw.
        key: source of the draws.
        temperature: logits are divided by it; 0 takes the likeliest token.

    Returns:
        `[B, steps]` int32.

    Raises:
        ValueError: an empty prompt, no step, a negative temperature, or a model of other answers.
    """
    if prompt.ndim != 2 or prompt.shape[1] < 1:
        raise ValueError(f"prompt: expected [B, P] of at least one token, got {prompt.shape}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if temperature < 0:
        raise ValueError(f"temperature: expected at least 0, got {temperature}")
    if model.inputs != "tokens" or model.in_features != model.out_features:
        raise ValueError(f"model: expected one whose answers are its own inputs, got {model}")
    return _sample(model, steps, params, prompt, key, jnp.float32(temperature))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(model, steps, params, prompt, key, temperature):
    state = model.init_state(params, prompt.shape[0], prompt.shape[1] + steps)
    state, answers = model.apply(params, prompt, state)

    def draw(logits, key):
        drawn = jax.random.categorical(key, logits / jnp.where(temperature > 0, temperature, 1))
        return jnp.where(temperature > 0, drawn, logits.argmax(-1)).astype(jnp.int32)

    def step(carry, key):
        state, logits = carry
        token = draw(logits, key)
        state, answers = model.apply(params, token[:, None], state)
        return (state, answers[:, 0]), token

    keys = jax.random.split(key, steps)
    return jax.lax.scan(step, (state, answers[:, -1]), keys)[1].T
