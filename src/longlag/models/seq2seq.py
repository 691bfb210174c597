"""Sequence to sequence: an encoder, an attention over what it left, and a decoder.

    source ─ Embedding ─ encoder ─┬─ summary ─────────────┐
                                  └─ memory ── attention ─┤
    target, one step back ─ Embedding ─ (+) ─ decoder ── tanh ─ head ─ answers
                                         ╰── input feeding ──╯

With or without attention is one switch on the same model, as everywhere in this library. Training
gives the decoder the true past of the target (teacher forcing); `generate` lets it go on by
its own answers, greedily or by a beam.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.attention.attention import Attention
from longlag.core.array_types import (
    Alignment,
    Answers,
    AnswerSteps,
    Inputs,
    Mask,
    PRNGKey,
    TargetLogits,
    TargetTokens,
)
from longlag.core.batch import Batch
from longlag.core.checks import as_key, is_zero
from longlag.core.ops import Params, affine
from longlag.core.promotion import add, at_least_float32
from longlag.core.selection import select
from longlag.core.spec import choose
from longlag.core.unrolling import unroll
from longlag.core.weight_decay import by_name
from longlag.kernels.looping import unfused
from longlag.models.decoding import (
    DecoderState,
    Encoded,
    _combine,
    _context_features,
    _InputFeeding,
)
from longlag.models.embedding import Embedding
from longlag.models.image_encoder import Pictures
from longlag.models.model import Cost, Model, check_at
from longlag.nn.containers import Stack
from longlag.nn.layer import Layer, State
from longlag.nn.pointwise import Dense

__all__ = ["Seq2Seq"]


class Seq2Seq(Model):
    """Encoder, attention, decoder.

        m[s] = encoder of the source
        c    = W_s [m[first], m[last]] + b_s     or, of the mean, W_s (Σ_s m[s] / S) + b_s
        u[t] = E y[t-1] + c                       with input feeding, + W_f h̃[t-1]
        h[t] = decoder of u[1] .. u[t]
        a[t] = what the attention reads of m with the query h[t]
        h̃[t] = tanh(W_c [h[t], a[t]] + b_c)       without attention, tanh(W_c h[t] + b_c)
        answers[t] = W h̃[t] + b

    Attributes:
        inputs: of the source: "tokens", "features", or "pictures", whose regions are its steps
            (`longlag.models.image_encoder`).
        in_features: token classes of the source, or D.
        out_features: V, token classes of the target.
        width: W, of both embeddings and of h̃.
        encoder: layers over the source; they need not stream (`layers.Bidirectional`).
        decoder: layers over the target; they stream.
        attention: over what the encoder left; None: the summary is all that the decoder is told.
        input_feeding: each step is told what the last one read. The steps then run one after the
            other, the attention inside, and the layers must have states of a fixed size.
        start: the token that stands before the first of the target.
        summary: what the decoder is told of all that the encoder left: "ends", its outputs at the
            first and the last step (of a bidirectional one each direction has read all of the
            source at one of the two), or "mean", that of its outputs, whose order is then nothing.

    Parameters: `source` and `target` (as in `Embedding`, or in `Pictures`), `encoder`, `decoder`
    (as in `Stack`), `summary` `[2 E, W]` or `[E, W]`, `attention`, `attentional` `[H + K, W]`,
    `feed.kernel` `[W, W]`, `head` `[W, V]`, zero at first.

    Reference: Cho et al. 2014, arXiv 1406.1078 (a summary read at every step of the decoder);
    Sutskever, Vinyals and Le 2014, arXiv 1409.3215; Bahdanau, Cho and Bengio 2015, arXiv 1409.0473;
    Luong, Pham and Manning 2015, arXiv 1508.04025 (h̃, input feeding; there h̃[t-1] stands beside
    E y[t-1], which for a first layer that begins with an affine map is a sum like ours). The first
    state of the decoder is its own; the papers make it of the summary.
    """

    inputs: Literal["tokens", "features", "pictures"]
    in_features: int
    out_features: int
    width: int
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    attention: Attention | None = None
    input_feeding: bool = False
    start: int = 0
    summary: Literal["ends", "mean"] = "ends"

    def __post_init__(self) -> None:
        self.source  # noqa: B018 - refuses an impossible one
        choose(self.summary, ("ends", "mean"), "Seq2Seq.summary")
        if not 0 <= self.start < self.out_features:
            raise ValueError(
                f"Seq2Seq.start: expected a token of 0 .. {self.out_features - 1}, got {self.start}"
            )
        if not self.input_feeding:
            return
        stack = self._stack

        def state(capacity: int) -> State:
            params = stack.init(jax.random.key(0), self.width)
            return stack.init_state(params, (1,), capacity)

        sizes = [jax.tree.map(jnp.shape, jax.eval_shape(lambda n=n: state(n))) for n in (1, 2)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "Seq2Seq.input_feeding: expected decoder layers whose state does not grow with the "
                f"target (a recurrence, an attention with a window); got {self.decoder}"
            )

    @property
    def source(self) -> Embedding | Pictures:
        """How the source enters."""
        if self.inputs == "pictures":
            return Pictures(self.in_features, self.width)
        return Embedding(self.inputs, self.in_features, self.width)

    @property
    def target(self) -> Embedding:
        """How the past of the target enters."""
        return Embedding("tokens", self.out_features, self.width)

    @property
    def _stack(self) -> Stack:
        return Stack(self.decoder)

    def init(self, key: PRNGKey) -> Params:
        """Draws parameters; a fresh head answers zero everywhere."""
        keys = jax.random.split(key, 8)
        encoded = Stack(self.encoder).out_features(self.width)
        hidden = self._stack.out_features(self.width)
        params: Params = {
            "source": self.source.init(keys[0]),
            "target": self.target.init(keys[1]),
            "encoder": Stack(self.encoder).init(keys[2], self.width),
            "decoder": self._stack.init(keys[3], self.width),
            "summary": Dense(self.width).init(
                keys[4], encoded if self.summary == "mean" else 2 * encoded
            ),
            "head": {
                "kernel": jnp.zeros((self.width, self.out_features)),
                "bias": jnp.zeros(self.out_features),
            },
        }
        if self.attention is not None:
            params["attention"] = self.attention.init(keys[5], hidden, encoded)
            hidden += _context_features(self.attention, params["attention"], hidden, encoded)
        params["attentional"] = Dense(self.width).init(keys[6], hidden)
        if self.input_feeding:
            kernel = initializers.lecun_normal()(keys[7], (self.width, self.width))
            params["feed"] = {"kernel": kernel}
        return params

    def decays(self, params: Params) -> Any:
        """As each part says."""
        parts: dict[str, Any] = {
            "source": self.source,
            "target": self.target,
            "encoder": Stack(self.encoder),
            "decoder": self._stack,
        }
        if self.attention is not None:
            parts["attention"] = self.attention
        return by_name(params) | {name: part.decays(params[name]) for name, part in parts.items()}

    def encode(
        self,
        params: Params,
        inputs: Inputs,
        *,
        mask: Mask | None = None,
        key: PRNGKey | None = None,
    ) -> Encoded:
        """Reads the source.

        Args:
            params: parameters.
            inputs: tokens `[B, S]`, features `[B, S, D]`, or pictures `[B, D / 3, D]`. An empty
                source, S = 0, is what a source of padding alone is: a summary and memory of zero.
            mask: `[B, S]` bool, false at padding; None means none.
            key: source of dropout while training.

        Raises:
            ValueError: a wrong shape or dtype.
        """
        inputs, mask, _ = self.source.check(inputs, mask)
        xs, mask_t, _ = self.source.apply(params["source"], inputs, mask)
        _, ms = Stack(self.encoder).apply(params["encoder"], xs, mask=mask_t, key=key)
        read = (_mean if self.summary == "mean" else _ends)(ms, mask_t)
        memory = None
        if self.attention is not None:
            memory = self.attention.write_memory(params["attention"], jnp.swapaxes(ms, 0, 1), mask)
        return Encoded(affine(params["summary"], read), memory)

    def init_state(self, params: Params, batch_size: int, capacity: int) -> DecoderState:
        """The decoder's state before the first step.

        Args:
            params: parameters.
            batch_size: B.
            capacity: steps of the target that an attention of the decoder's own past has room for.
        """
        layers = self._stack.init_state(params["decoder"], (batch_size,), capacity)
        like = at_least_float32(params["attentional"]["kernel"])
        fed = jnp.zeros((batch_size, self.width), like) if self.input_feeding else None
        return DecoderState(layers, fed)

    def decode(
        self,
        params: Params,
        encoded: Encoded,
        tokens: TargetTokens,
        state: DecoderState | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> tuple[DecoderState | None, TargetLogits]:
        """Answers at every step of the target, or of the next chunk of it.

        Args:
            params: parameters.
            encoded: from `encode`.
            tokens: `[B, L]`, the token before the one that is asked for.
            state: from `init_state` or the last chunk; None begins anew and keeps nothing.
            key: source of dropout while training.

        Returns:
            The new state (None if `state` was None), and the answers `[B, L, V]`.
        """
        state, (states, _) = self._decode_states(params, encoded, tokens, state, key)
        answers = affine(params["head"], states)
        return state, jnp.swapaxes(answers, 0, 1)

    def apply(
        self,
        params: Params,
        inputs: Inputs,
        targets: TargetTokens,
        *,
        mask: Mask | None = None,
        key: PRNGKey | None = None,
    ) -> TargetLogits:
        """Answers under teacher forcing.

        Args:
            params: parameters.
            inputs: the source.
            targets: `[B, L]`, the tokens that are asked for; padding at the end may be anything
                within the vocabulary.
            mask: `[B, S]` bool or None, of the source.
            key: source of dropout while training.

        Returns:
            `[B, L, V]`.
        """
        targets, _, _ = self.target.check(targets)
        key = as_key("key", key)
        keys = (None, None) if key is None else jax.random.split(key)
        encoded = self.encode(params, inputs, mask=mask, key=keys[0])
        return self.decode(params, encoded, self.shift_right(targets), key=keys[1])[1]

    def alignment(
        self,
        params: Params,
        inputs: Inputs,
        targets: TargetTokens,
        *,
        mask: Mask | None = None,
    ) -> Alignment:
        """Where each step of the target looked in the source, under teacher forcing.

        Returns:
            `[B, L, S]`, averaged over heads; it is what Bahdanau's pictures show.

        Raises:
            ValueError: the model has no attention.
        """
        if self.attention is None:
            raise ValueError("alignment: expected a model with attention, got attention=None")
        targets, _, _ = self.target.check(targets)
        encoded = self.encode(params, inputs, mask=mask)
        _, (_, hs) = self._decode_states(params, encoded, self.shift_right(targets), None, None)
        assert encoded.memory is not None
        _, weights = self.attention.read_memory(params["attention"], hs, encoded.memory)
        return jnp.swapaxes(weights, 0, 1)

    def shift_right(self, targets: TargetTokens) -> TargetTokens:
        """What the decoder is given: `start`, then the targets but for the last one."""
        return jnp.pad(targets, [(0, 0), (1, 0)], constant_values=self.start)[:, :-1]

    def answer(
        self,
        params: Params,
        batch: Batch,
        key: PRNGKey | None = None,
        at: AnswerSteps | None = None,
    ) -> Answers:
        """Answers to a batch under teacher forcing, as training and evaluation want them.

        Args:
            params: parameters.
            batch: source, target and mask of the source.
            key: source of dropout while training.
            at: `[B, K]` int32, the steps that are asked of a sequence with a target at each step:
                the K answers, one after the other, are then all that the decoder says. None: the
                targets as they are.
        """
        targets, at = batch.targets, check_at(at, batch)
        if at is not None:
            targets = jnp.take_along_axis(targets, at, axis=1)
        return self.apply(params, batch.inputs, targets, mask=batch.mask, key=key)

    def cost(self, length: int) -> Cost:
        """Counts parameters, bytes of state and operations, without computing anything.

        The state is that of the decoder at one step of the target, and what the encoder left it;
        operations are those of that step.

        Args:
            length: S, the length of the source; a decoder that caches its own past is counted at
                as many steps.
        """
        params = jax.eval_shape(self.init, jax.random.key(0))
        encoded = jax.eval_shape(self.encode, params, self.source.shape(1, length))
        state = jax.eval_shape(lambda p: self.init_state(p, 1, length), params)
        one = self.target.shape(1, 1)
        with unfused():
            analysis = jax.jit(self.decode).lower(params, encoded, one, state).cost_analysis()
        cache = (encoded.memory, self._stack.cache_of(state.layers))
        return Cost.of(params, (encoded, state), cache, analysis)

    def _decode_states(
        self,
        params: Params,
        encoded: Encoded,
        tokens: jax.Array,
        state: DecoderState | None,
        key: jax.Array | None,
    ) -> tuple[DecoderState | None, tuple[jax.Array, jax.Array]]:
        """The decoder's new state, all h̃ `[L, B, W]` and all h `[L, B, H]`."""
        us = add(self.target.apply(params["target"], tokens)[0], encoded.summary)
        if not self.input_feeding:
            layers = None if state is None else state.layers
            layers, hs = self._stack.apply(params["decoder"], us, layers, key=key)
            state = None if state is None else DecoderState(layers, None)
            return state, (_combine(self.attention, params, encoded.memory, hs), hs)
        used = {name: params[name] for name in ("decoder", "attentional", "feed")}
        if self.attention is not None:
            used |= {"attention": params["attention"], "memory": encoded.memory}
        cell = _InputFeeding(self.decoder, self.attention, self.width)
        last, (attentional, hs) = unroll(cell, used, us, state, key=key, time_major=True)
        return (None if state is None else last), (attentional, hs)


def _ends(ms: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The first and the last real one of `[S, B, E]`: `[B, 2 E]`; zero of an empty source."""
    if is_zero(ms.shape[0]):
        first = last = jnp.zeros(ms.shape[1:], ms.dtype)
    elif mask is None:
        first, last = ms[0], ms[-1]
    else:
        # Of a row that is all padding any step will do: its outputs are zero.
        rows = jnp.arange(ms.shape[1])
        first = ms[mask.argmax(axis=0), rows]
        last = ms[len(ms) - 1 - mask[::-1].argmax(axis=0), rows]
    return jnp.concatenate([first, last], axis=-1)


def _mean(ms: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The mean of the real ones of `[S, B, E]`: `[B, E]`; zero of a row that has none."""
    if mask is None and not is_zero(ms.shape[0]):
        return ms.mean(axis=0)
    mask = jnp.ones(ms.shape[:2], bool) if mask is None else mask
    real = select(mask, ms, jnp.zeros_like(ms))
    count = jnp.maximum(mask.sum(axis=0), 1)[:, None]
    return real.sum(axis=0) / count.astype(real.dtype)
