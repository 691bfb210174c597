"""A model of one sequence: embed, layers, head."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from longlag.core.array_types import (
    Answers,
    AnswerSteps,
    Inputs,
    Logits,
    Mask,
    PRNGKey,
    Resets,
    TimeMajorMask,
    TimeMajorOutputs,
    TimeMajorResets,
)
from longlag.core.batch import Batch
from longlag.core.ops import Params
from longlag.core.selection import select
from longlag.core.weight_decay import by_name
from longlag.kernels.looping import unfused
from longlag.models.embedding import Embedding
from longlag.models.model import Cost, Model, check_at
from longlag.nn.containers import Repeated, Stack
from longlag.nn.layer import Layer, State
from longlag.nn.pointwise import Dense, Norm

__all__ = ["SequenceModel", "WholeSequenceModel"]


class SequenceModel(Model):
    """Embeds a sequence, runs layers over it, and reads an answer off every step.

    Attributes:
        inputs: "tokens" (int32, embedded by a table) or "features" (real, by an affine map).
        in_features: number of token classes, or D.
        width: width of what the first layer sees.
        layers: the layers between embedding and head.
        out_features: width of the answer.
    """

    inputs: Literal["tokens", "features"]
    in_features: int
    width: int
    layers: tuple[Layer, ...]
    out_features: int

    def __post_init__(self) -> None:
        self.embedding  # noqa: B018 - refuses an impossible one

    @property
    def embedding(self) -> Embedding:
        """How the inputs enter."""
        return Embedding(self.inputs, self.in_features, self.width)

    @property
    def stack(self) -> Stack:
        """The layers as one."""
        return Stack((*self.layers, Norm()))

    def init(self, key: PRNGKey) -> Params:
        """Draws parameters: `embed`, `layers`, `head`; a fresh head answers zero everywhere."""
        embed_key, layers_key = jax.random.split(key)
        width = self.stack.out_features(self.width)
        return {
            "embed": self.embedding.init(embed_key),
            "layers": self.stack.init(layers_key, self.width),
            "head": {
                "kernel": jnp.zeros((width, self.out_features)),
                "bias": jnp.zeros(self.out_features),
            },
        }

    def decays(self, params: Params) -> Any:
        """As each part says."""
        return by_name(params) | {
            "embed": self.embedding.decays(params["embed"]),
            "layers": self.stack.decays(params["layers"]),
        }

    def init_state(self, params: Params, batch_size: int, capacity: int) -> State:
        """The state before the first step.

        Args:
            params: parameters.
            batch_size: B.
            capacity: steps that an attention without a window has room for.
        """
        return self.stack.init_state(params["layers"], (batch_size,), capacity)

    def apply(
        self,
        params: Params,
        inputs: Inputs,
        state: State = None,
        *,
        mask: Mask | None = None,
        resets: Resets | None = None,
        key: PRNGKey | None = None,
    ) -> tuple[State, Logits]:
        """Answers at every step of a sequence, or of the next chunk of one.

        Args:
            params: parameters.
            inputs: tokens `[B, T]` int32, or features `[B, T, D]`.
            state: from `init_state` or the last chunk; None begins anew and keeps nothing.
            mask: `[B, T]` bool or None; the answer at a masked step is zero.
            resets: `[B, T]` bool or None.
            key: source of dropout while training.

        Returns:
            The new state (None if `state` was None), and the answers `[B, T, out_features]`.

        Raises:
            ValueError: inputs, mask or resets of the wrong shape or dtype.
        """
        xs, mask_t, resets_t = self.embed(params, inputs, mask, resets)
        state, ys = self.stack.apply(
            params["layers"], xs, state, mask=mask_t, resets=resets_t, key=key
        )
        return state, self._read_out(params, ys, mask_t)

    def answer(
        self,
        params: Params,
        batch: Batch,
        key: PRNGKey | None = None,
        at: AnswerSteps | None = None,
    ) -> Answers:
        """Answers to a batch, as training and evaluation want them.

        Args:
            params: parameters.
            batch: whose inputs, mask and resets are read.
            key: source of dropout while training.
            at: `[B, K]` int32, the steps whose answers are wanted; None: all. Over a large
                vocabulary the answers cost more than all the rest.

        Returns:
            `[B, K or T, out_features]`.

        Raises:
            ValueError: as `apply`, or `at` is no integers of such a shape.
        """
        at = check_at(at, batch)
        xs, mask, resets = self.embed(params, batch.inputs, batch.mask, batch.resets)
        _, ys = self.stack.apply(params["layers"], xs, mask=mask, resets=resets, key=key)
        if at is not None:
            ys = jnp.take_along_axis(ys, at.T[..., None], axis=0)
            mask = None if mask is None else jnp.take_along_axis(mask, at.T, axis=0)
        return self._read_out(params, ys, mask)

    def _read_out(self, params: Params, ys: jax.Array, mask: jax.Array | None) -> jax.Array:
        """The head: outputs `[T, B, K]` to answers `[B, T, out_features]`, zero where masked."""
        answers = Dense(self.out_features).at_each_step(params["head"], ys, None)
        if mask is not None:
            answers = select(mask, answers, jnp.zeros_like(answers))
        return jnp.swapaxes(answers, 0, 1)

    def probe(
        self,
        params: Params,
        inputs: Inputs,
        *,
        mask: Mask | None = None,
        resets: Resets | None = None,
    ) -> dict[str, jax.Array]:
        """What every layer made of a whole sequence: outputs `[T, B, K]`, weights `[B, T, T]`.

        Names are paths through the layers, such as `1/inner/weights`.
        """
        xs, mask, resets = self.embed(params, inputs, mask, resets)
        return self.stack.probe(params["layers"], xs, mask=mask, resets=resets)

    def embed(
        self,
        params: Params,
        inputs: Inputs,
        mask: Mask | None = None,
        resets: Resets | None = None,
    ) -> tuple[TimeMajorOutputs, TimeMajorMask | None, TimeMajorResets | None]:
        """What the layers are given: inputs `[T, B, width]`, and mask and resets time-major."""
        return self.embedding.apply(params["embed"], inputs, mask, resets)

    def cost(self, length: int) -> Cost:
        """Counts parameters, bytes of state and operations, without computing anything.

        Operations are those of one streamed step, as XLA counts them in the unoptimised program; an
        attention without a window reads a cache of `length` entries.

        Args:
            length: T, the length at which a cache is counted.
        """
        # XLA counts the body of a scan over layers once, however many there are.
        layers: list[Layer] = []
        for layer in self.layers:
            layers += [layer.inner] * layer.count if isinstance(layer, Repeated) else [layer]
        model = dataclasses.replace(self, layers=tuple(layers))
        params = jax.eval_shape(model.init, jax.random.key(0))
        state = jax.eval_shape(lambda p: model.init_state(p, 1, length), params)
        one = self.embedding.shape(1, 1)
        with unfused():
            analysis = jax.jit(model.apply).lower(params, one, state).cost_analysis()
        return Cost.of(params, state, model.stack.cache_of(state), analysis)


class WholeSequenceModel(SequenceModel):
    """A `SequenceModel` with layers that read the whole sequence at once: it does not stream."""

    def cost(self, length: int) -> Cost:
        """Counts as `SequenceModel.cost`; what is kept is the sequence, as the layers are given it.

        Operations are those of a step of a sequence of one.

        Args:
            length: T.
        """
        params = jax.eval_shape(self.init, jax.random.key(0))
        kept = jax.ShapeDtypeStruct((length, self.width), jnp.float32)
        with unfused():
            analysis = jax.jit(self.apply).lower(params, self.embedding.shape(1, 1)).cost_analysis()
        return Cost.of(params, kept, kept, analysis)
