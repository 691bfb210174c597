"""Search for the best continuation, greedily or by a beam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.core import Tracer

from longlag.core.array_types import (
    BeamLengths,
    BeamScores,
    BeamTokens,
    Inputs,
    Mask,
    Token,
    TokenLogits,
)
from longlag.core.checks import check_rows
from longlag.core.ops import Params
from longlag.core.packing import check_no_row_empty, pad_lists
from longlag.core.spec import take
from longlag.models.answers import NO_CLASS
from longlag.models.decoding import DecoderState, Encoded
from longlag.models.seq2seq import Seq2Seq

__all__ = ["Hypotheses", "beam_search", "generate"]


@flax.struct.dataclass
class Hypotheses:
    """The K best continuations that were found, the best one first.

    Attributes:
        tokens: `[..., K, L]` int32; `stop` from the end of each on. From the first answer in the
            beam that is NaN on, no hypothesis is known to be the best: all tokens are
            `longlag.models.answers.NO_CLASS`.
        lengths: `[..., K]` int32, tokens before `stop`.
        log_probs: `[..., K]` float32, of all tokens and of `stop`; -inf where there are fewer than
            K continuations, NaN where an answer was.
        scores: `[..., K]`, by which they are ordered.
    """

    tokens: BeamTokens
    lengths: BeamLengths
    log_probs: BeamScores
    scores: BeamScores


def beam_search(
    step: Callable[[Any, Token], tuple[Any, TokenLogits]],
    state: Any,
    *,
    start: int,
    stop: int,
    max_length: int,
    beams: int = 1,
    length_penalty: float = 0.0,
) -> Hypotheses:
    """Continues one sequence; `jax.vmap` continues many. One beam is greedy search.

    A hypothesis that has ended stays in the beam and is pushed out only by better ones. The search
    is over when all have ended, or after `max_length` tokens.

    Args:
        step: from a state and the last token, int32 `[]`, to the new state and logits `[V]`.
        state: a tree of arrays, before the first token.
        start: the token before the first.
        stop: the token that ends a continuation.
        max_length: L, tokens at most.
        beams: K.
        length_penalty: α; hypotheses are ordered by log p / ((5 + n) / 6)^α, n the tokens with
            `stop` (Wu et al. 2016, arXiv 1609.08144, equation 14). 0: by log p.

    Returns:
        `Hypotheses` with leaves `[K, ...]`.

    Raises:
        ValueError: fewer than one beam or token, or a negative penalty.
    """
    beams, max_length = take("beams", beams, int), take("max_length", max_length, int)
    start, stop = take("start", start, int), take("stop", stop, int)
    length_penalty = take("length_penalty", length_penalty, float)
    for name, value, least in (
        ("beams", beams, 1),
        ("max_length", max_length, 1),
        ("length_penalty", length_penalty, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    K = beams

    def extend(beam: Any) -> Any:
        at, states, tokens, count, log_probs, ended = beam
        last = jnp.where(at == 0, start, tokens[:, jnp.maximum(at - 1, 0)])
        states, logits = jax.vmap(step)(states, last)
        check_rows("logits of a step", logits, (K,), "one row for each beam")
        if logits.ndim != 2 or not (isinstance(stop, Tracer) or 0 <= stop < logits.shape[1]):
            raise ValueError(
                f"step, stop: expected logits [V] and a token of 0 .. V - 1; got logits "
                f"{logits.shape[1:]} and {stop}"
            )
        of_tokens = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        V = of_tokens.shape[-1]
        # What has ended goes on by `stop` alone, at no cost.
        rest = jnp.where(jnp.arange(V) == stop, 0.0, -jnp.inf)
        total = log_probs[:, None] + jnp.where(ended[:, None], rest, of_tokens)
        count = jnp.where(ended, count, count + 1)
        ranked = total / _penalty(count, length_penalty)[:, None]
        ranked = jnp.where(jnp.isnan(ranked), jnp.inf, ranked).reshape(-1)
        _, best = jax.lax.top_k(ranked, K)
        total = total.reshape(-1)[best]
        parent, token = best // V, (best % V).astype(jnp.int32)
        token = jnp.where(jnp.isnan(total), NO_CLASS, token)
        states, tokens, count, ended = jax.tree.map(
            lambda leaf: leaf[parent], (states, tokens, count, ended)
        )
        tokens = tokens.at[:, at].set(token)
        return at + 1, states, tokens, count, total, ended | (token == stop)

    def is_unfinished(beam: Any) -> jax.Array:
        at, *_, log_probs, ended = beam
        return (at < max_length) & ~jnp.all(ended | (log_probs == -jnp.inf))

    # One hypothesis to begin with: K equal ones would stay equal.
    first = (
        jnp.int32(0),
        jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (K, *jnp.shape(leaf))), state),
        jnp.full((K, max_length), stop, jnp.int32),
        jnp.zeros(K, jnp.int32),
        jnp.full(K, -jnp.inf, jnp.float32).at[0].set(0.0),
        jnp.zeros(K, bool),
    )
    _, _, tokens, count, log_probs, ended = jax.lax.while_loop(is_unfinished, extend, first)
    return Hypotheses(
        tokens=tokens,
        lengths=jnp.where(ended, count - 1, count),
        log_probs=log_probs,
        scores=log_probs / _penalty(count, length_penalty),
    )


def _penalty(count: jax.Array, alpha: float) -> jax.Array:
    return ((5 + count.astype(jnp.float32)) / 6) ** alpha


def generate(
    model: Seq2Seq,
    params: Params,
    inputs: Inputs | Sequence[Sequence[int]],
    *,
    stop: int,
    max_length: int,
    mask: Mask | None = None,
    beams: int = 1,
    length_penalty: float = 0.0,
) -> Hypotheses:
    """The best targets that a model finds for each source.

    Args:
        model: the model.
        params: its parameters.
        inputs: sources, tokens `[B, S]` or features `[B, S, D]`, or B lists of tokens of several
            lengths. Each is answered as if it were alone.
        stop: the token that ends a target.
        max_length: L, tokens of a target at most.
        mask: `[B, S]` bool, false at padding, which may be anywhere; None means none. A row without
            any token is refused where the mask is known.
        beams: K; 1 is greedy search.
        length_penalty: as in `beam_search`.

    Returns:
        `Hypotheses` with leaves `[B, K, ...]`.

    Raises:
        ValueError: a source that does not fit, `stop` outside the vocabulary, or what `beam_search`
            refuses.
    """
    stop = take("stop", stop, int)
    inputs, mask = pad_lists("inputs", inputs, mask)
    inputs, mask, _ = model.source.check(inputs, mask)
    check_no_row_empty("inputs", mask)
    if not 0 <= stop < model.out_features:
        raise ValueError(f"stop: expected a token of 0 .. {model.out_features - 1}, got {stop}")
    encoded = model.encode(params, inputs, mask=mask)

    def search_one(encoded: Encoded) -> Hypotheses:
        encoded = jax.tree.map(lambda leaf: leaf[None], encoded)

        def step(state: DecoderState | None, token: jax.Array) -> tuple[Any, jax.Array]:
            state, logits = model.decode(params, encoded, token[None, None], state)
            return state, logits[0, 0]

        return beam_search(
            step,
            model.init_state(params, 1, max_length),
            start=model.start,
            stop=stop,
            max_length=max_length,
            beams=beams,
            length_penalty=length_penalty,
        )

    return jax.vmap(search_one)(encoded)
