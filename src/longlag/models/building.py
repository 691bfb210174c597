"""Build a model from one switch: a recurrence, with or without attention."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from longlag.attention import Additive, DotProduct, Multiplicative
from longlag.attention.read import Read
from longlag.core.cell import Cell
from longlag.core.spec import choose, refuse_idle
from longlag.models.parameter_matching import map_back, match_parameters
from longlag.models.sequence import SequenceModel
from longlag.nn.containers import Repeated, Residual, Stack
from longlag.nn.layer import Layer
from longlag.nn.pointwise import MLP, Dropout
from longlag.nn.recurrent import Recurrent
from longlag.nn.short_convolution import ShortConvolution

__all__ = ["ATTENTION_OPTIONS", "build", "idle_options"]


# The values of the option `attention` of `build`.
ATTENTION_OPTIONS = ("none", "additive", "multiplicative", "window", "full")
# The attentions that an option of `build` reaches.
REACHES = {
    "placement": ATTENTION_OPTIONS[1:],
    "pattern": ATTENTION_OPTIONS[1:],
    "heads": ("window", "full"),
    "positions": ("window", "full"),
    "window": ("window",),
}


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
            the width: inner widths are chosen for it (`parameter_matching`), the cell's `features`
            too, which are then left at `width`; 0: as they come.

    Raises:
        ValueError: an unknown name, an option without effect, neither a cell nor an attention, or
            no inner width for `mixer_parameters`.
    """
    choose(attention, ATTENTION_OPTIONS, "attention")
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
        after = map_back(width, mixer)
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
            mixer = match_parameters(mixer, width, mixer_parameters)
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
