"""Continuing a sequence by a model's own answers, drawn at random."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from longlag.core.array_types import Mask, PRNGKey, TargetTokens, Tokens
from longlag.core.checks import as_key
from longlag.core.ops import Params
from longlag.core.packing import check_no_row_empty, pad_lists
from longlag.core.spec import take
from longlag.models.answers import NO_CLASS, is_nan, likeliest_class
from longlag.models.sequence import SequenceModel
from longlag.nn.layer import State

__all__ = ["sample"]


def sample(
    model: SequenceModel,
    params: Params,
    prompt: Tokens | Sequence[Sequence[int]],
    steps: int,
    key: PRNGKey,
    temperature: float = 1.0,
    *,
    mask: Mask | None = None,
) -> TargetTokens:
    """Continues sequences token by token, streaming: each step costs the same.

    Prompts may be of several lengths. Each is read as if it were alone, and continued from its own
    last token. The random numbers of a row depend on its place in the batch.

    Args:
        model: of tokens, whose answers are the tokens again.
        params: of one seed.
        prompt: `[B, P]` integers, at least one token, or B lists of integers of several lengths.
        steps: how many tokens to draw.
        key: source of the draws.
        temperature: logits are divided by it; 0 takes the likeliest token.
        mask: `[B, P]` bool, false at padding, which may be at the left, at the right or in between;
            None: every token is one of the prompt. A row without any token is refused where the
            mask is known. Inside `jax.jit` it is not, and the logits of such a row are zero.

    Returns:
        `[B, steps]` int32. From the first answer of a row that is NaN on, its tokens are
        `longlag.models.answers.NO_CLASS`.

    Raises:
        ValueError: an empty prompt, a token outside the table, no step, a negative temperature, or
            a model of other answers.
    """
    steps, temperature = take("steps", steps, int), take("temperature", temperature, float)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if not isinstance(temperature, jax.Array) and temperature < 0:
        raise ValueError(f"temperature: expected at least 0, got {temperature}")
    if not isinstance(model, SequenceModel) or (
        model.inputs != "tokens" or model.in_features != model.out_features
    ):
        raise ValueError(f"model: expected one whose answers are its own inputs, got {model}")
    tokens, mask = pad_lists("prompt", prompt, mask)
    tokens, mask, _ = model.embedding.check(tokens, mask, name="prompt")
    if tokens.shape[1] < 1:
        raise ValueError(f"prompt: expected [B, P] of at least one token, got {tokens.shape}")
    check_no_row_empty("prompt", mask)
    typed = as_key("key", key)
    if typed is None:
        raise ValueError("key: expected one key, as `jax.random.key(0)` is; got None")
    return _sample(model, steps, params, tokens, mask, typed, jnp.float32(temperature))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(
    model: SequenceModel,
    steps: int,
    params: Params,
    prompt: jax.Array,
    mask: jax.Array | None,
    key: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    state = model.init_state(params, prompt.shape[0], prompt.shape[1] + steps)
    state, answers = model.apply(params, prompt, state, mask=mask)
    last = answers[:, -1]
    if mask is not None:
        place = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        last = jnp.take_along_axis(answers, place[:, None, None], axis=1)[:, 0]

    def draw(logits: jax.Array, key: jax.Array) -> jax.Array:  # [B, V] to [B]
        scale = jnp.where(temperature > 0, temperature, 1).astype(logits.dtype)
        drawn = jax.random.categorical(key, logits / scale).astype(jnp.int32)
        drawn = jnp.where(is_nan(logits), NO_CLASS, drawn)
        return jnp.where(temperature > 0, drawn, likeliest_class(logits))

    def step(
        carry: tuple[State, jax.Array], key: jax.Array
    ) -> tuple[tuple[State, jax.Array], jax.Array]:
        state, logits = carry
        token = draw(logits, key)
        state, answers = model.apply(params, token[:, None], state)
        return (state, answers[:, 0]), token

    keys = jax.random.split(key, steps)
    return jax.lax.scan(step, (state, last), keys)[1].T
