"""Models: embed, layers, head; how a model is put together from one switch."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from longlag.attention import Additive, DotProduct, Multiplicative
from longlag.cell import Cell, Params
from longlag.embedding import Embedding
from longlag.layer import Layer, State
from longlag.layers import (
    MLP,
    Dense,
    Dropout,
    Norm,
    Read,
    Recurrent,
    Repeated,
    Residual,
    Stack,
)
from longlag.matching import back_to, matched
from longlag.model import Cost, Model, check_at
from longlag.select import select
from longlag.short_convolution import ShortConvolution
from longlag.spec import choose, refuse_idle
from longlag.tasks.task import Batch
from longlag.weight_decay import by_name

__all__ = ["ATTENTIONS", "SequenceModel", "WholeSequenceModel", "build", "idle_options"]

ATTENTIONS = ("none", "additive", "multiplicative", "window", "full")
# The attentions that an option of `build` reaches.
REACHES = {
    "placement": ATTENTIONS[1:],
    "pattern": ATTENTIONS[1:],
    "heads": ("window", "full"),
    "positions": ("window", "full"),
    "window": ("window",),
}


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

    def init(self, key: jax.Array) -> Params:
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
        inputs: jax.Array,
        state: State = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
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
        key: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> jax.Array:
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
        inputs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """What every layer made of a whole sequence: outputs `[T, B, K]`, weights `[B, T, T]`.

        Names are paths through the layers, such as `1/inner/weights`.
        """
        xs, mask, resets = self.embed(params, inputs, mask, resets)
        return self.stack.probe(params["layers"], xs, mask=mask, resets=resets)

    def embed(
        self,
        params: Params,
        inputs: jax.Array,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
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
        analysis = jax.jit(self.apply).lower(params, self.embedding.shape(1, 1)).cost_analysis()
        return Cost.of(params, kept, kept, analysis)


def build(
    *,
    inputs: Literal["tokens", "features"],
    in_features: int,
    out_features: int,
    cell: Cell | None,
    attention: str = "none",
    placement: Literal["auto", "read", "block"] = "auto",
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    window: int = 16,
    positions: Literal["rotary", "alibi", "learned", "none"] = "rotary",
    pattern: Literal["middle", "interleaved"] = "middle",
    convolution: int = 0,
    mlp: int = 0,
    dropout: float = 0.0,
    mixer_parameters: int = 0,
) -> SequenceModel:
    """Puts a model together: `depth` blocks of one skeleton, in which attention is one switch.

    A block is `x + mixer(norm(x))`, then, if `mlp` is set, `x + MLP(norm(x))`. The mixer is the
    cell. With an attention, the middle block (of two, the second) has the attention as its mixer
    instead: a block is replaced, never added, so that all arms are equally deep. Interleaved, every
    second block has. Without a cell every block is an attention.

    An option that would have no effect (`idle_options`) has to be left at its default.

    Args:
        inputs: "tokens" or "features".
        in_features: token classes, or D.
        out_features: width of the answer.
        cell: the recurrence, or None for attention only.
        attention: "none", "additive", "multiplicative", "window" or "full".
        placement: "read" (the context joins the output, `layers.Read`), "block" (the attention is
            the mixer), or "auto": "read" for additive and multiplicative attention, "block" for the
            others.
        width: of all blocks; a cell of other `features` is mapped back to it.
        depth: number of blocks.
        heads: of dot-product attention.
        window: positions that "window" reads.
        positions: of dot-product attention.
        pattern: "middle" (one attention, as in Griffin's test) or "interleaved" (cell and attention
            in turn).
        convolution: width of a short causal convolution before every mixer; 0 leaves it out.
        mlp: inner width of each block's MLP; 0 leaves the MLP out.
        dropout: rate after every mixer and MLP.
        mixer_parameters: how many parameters each mixer is to have, within 5%, with the map back to
            the width: inner widths are chosen for it (`longlag.matching`), the cell's `features`
            too, which are then left at `width`; 0: as they come.

    Raises:
        ValueError: an unknown name, an option without effect, neither a cell nor an attention, or
            no inner width for `mixer_parameters`.
    """
    choose(attention, ATTENTIONS, "attention")
    choose(placement, ("auto", "read", "block"), "placement")
    choose(pattern, ("middle", "interleaved"), "pattern")
    if cell is None and attention == "none":
        raise ValueError("model: expected a cell or an attention; got neither")
    given = {"placement": placement, "pattern": pattern, "heads": heads, "positions": positions}
    given["window"] = window
    for name, (default, why) in idle_options(cell, attention).items():
        refuse_idle(f"model {name}", given[name], default, why)
    for name, value, least in (
        ("width", width, 1),
        ("depth", depth, 1),
        ("mlp", mlp, 0),
        ("convolution", convolution, 0),
        ("mixer_parameters", mixer_parameters, 0),
    ):
        if value < least:
            raise ValueError(f"model {name}: expected at least {least}, got {value}")
    if cell is not None and attention != "none" and depth < 2:
        raise ValueError(
            f"model depth: expected at least 2 for a cell and an attention, got {depth}"
        )

    features = getattr(cell, "features", width)
    if mixer_parameters and features != width:
        raise ValueError(
            f"model mixer_parameters: expected 0, or the cell's features at the width {width}, "
            f"since they are chosen for it; got {mixer_parameters} and {features} features"
        )

    def finish(mixer: Layer, before: tuple[Layer, ...] = ()) -> Layer:
        after = back_to(width, mixer)
        if dropout:
            after += (Dropout(dropout),)
        return Residual(Stack((*before, mixer, *after)) if before or after else mixer)

    def attend() -> Layer:
        if attention == "additive":
            layer = Additive(width)
        elif attention == "multiplicative":
            layer = Multiplicative(width)
        else:
            layer = DotProduct(
                width,
                heads=heads,
                positions=positions,
                window=window if attention == "window" else None,
            )
        of_outputs = attention in ("additive", "multiplicative")
        joined = placement == "read" or (placement == "auto" and of_outputs)
        return Read(layer) if joined else layer

    mixers = [attend() if cell is None else Recurrent(cell) for _ in range(depth)]
    if cell is not None and attention != "none":
        for i in range(1, depth, 2) if pattern == "interleaved" else (depth // 2,):
            mixers[i] = attend()
    blocks: list[Layer] = []
    for mixer in mixers:
        if mixer_parameters:
            mixer = matched(mixer, width, mixer_parameters)
        block = finish(mixer, (ShortConvolution(convolution),) if convolution else ())
        blocks.append(Stack((block, finish(MLP(mlp)))) if mlp else block)
    return SequenceModel(inputs, in_features, width, _runs(blocks), out_features)


def idle_options(cell: Cell | None, attention: str) -> Mapping[str, tuple[Any, str]]:
    """The options of `build` that have no effect: their defaults, and why they have none.

    Args:
        cell: as in `build`.
        attention: as in `build`.
    """
    defaults = inspect.signature(build).parameters
    idle = {
        name: (defaults[name].default, f"with attention {attention!r}")
        for name, attentions in REACHES.items()
        if attention not in attentions
    }
    if cell is None:
        idle["pattern"] = (defaults["pattern"].default, "without a cell")
    return idle


def _runs(blocks: Sequence[Layer]) -> tuple[Layer, ...]:
    """Equal adjacent blocks as one `Repeated`, which is compiled once."""
    runs = [(block, len(list(equal))) for block, equal in itertools.groupby(blocks)]
    return tuple(block if count == 1 else Repeated(block, count) for block, count in runs)
