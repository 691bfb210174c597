"""Parameter matching: mixers of different kinds with equal numbers of parameters."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, TypeVar

import jax

from longlag.attention import Additive, Attention, DotProduct
from longlag.attention.read import Read
from longlag.core.cell import Cell
from longlag.nn.block import Block
from longlag.nn.layer import Layer
from longlag.nn.pointwise import Dense
from longlag.nn.recurrent import Recurrent

__all__ = ["WITHIN", "map_back", "match_parameters", "mixer_parameters", "mixers"]

# Two mixers are equally large if they are so within this part of the one that is asked for.
WITHIN = 0.05

MixerT = TypeVar("MixerT", bound=Cell | Layer)


def map_back(width: int, mixer: Layer) -> tuple[Layer, ...]:
    """The affine map from what a mixer gives to the width of its blocks; nothing if it has it."""
    return () if mixer.out_features(width) == width else (Dense(width),)


@functools.cache
def mixer_parameters(mixer: Cell | Layer, width: int) -> int:
    """The number of parameters of a mixer in blocks of a width, with the map back to that width.

    Args:
        mixer: a cell, an attention, or a layer around one.
        width: of the blocks.
    """
    layer = Recurrent(mixer) if isinstance(mixer, Cell) else mixer
    out = layer.out_features(width)
    key = jax.random.key(0)
    parts = ((layer, width), *((part, out) for part in map_back(width, layer)))
    params = jax.eval_shape(lambda: [part.init(key, size) for part, size in parts])
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def mixers(layer: Layer) -> tuple[Layer, ...]:
    """The recurrences, attentions and blocks in a layer or its layers, each that differs once."""
    if isinstance(layer, Recurrent | Read | Attention | Block):
        return (layer,)
    values = [getattr(layer, field.name) for field in dataclasses.fields(layer)]  # type: ignore[arg-type]
    inner = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    of_parts = [mixer for one in inner if isinstance(one, Layer) for mixer in mixers(one)]
    return tuple(dict.fromkeys(of_parts))


@functools.cache
def match_parameters(mixer: MixerT, width: int, target: int | Cell | Layer) -> MixerT:
    """A mixer of the same kind with as many parameters as another has, by its inner width.

    The inner width is a cell's `features`, the width of all heads of a `DotProduct`, that of the
    scoring network of an `Additive`. Nothing else is changed, so heads still have to divide it. A
    `Multiplicative` has none: what it multiplies is as wide as its inputs.

    Args:
        mixer: a cell, an attention, or a layer around one, of any inner width.
        width: of the blocks.
        target: how many parameters, or the mixer that has them.

    Returns:
        The mixer whose number of parameters is nearest to the target.

    Raises:
        ValueError: the nearest is not within 5%; the message names it.
    """
    wanted = target if isinstance(target, int) else mixer_parameters(target, width)
    if wanted < 1:
        raise ValueError(f"match_parameters: expected at least 1 parameter, got {wanted}")
    candidates = _nearest_mixers(mixer, width, wanted) if _set_inner_width(mixer, 0) else [mixer]
    best = min(candidates, key=lambda one: abs(mixer_parameters(one, width) - wanted))
    nearest = mixer_parameters(best, width)
    if abs(nearest - wanted) > WITHIN * wanted:
        raise ValueError(
            f"{mixer}: expected {wanted:,} parameters within {WITHIN:.0%} at some inner width, in "
            f"blocks of width {width}; the nearest is {nearest:,}, of {best}"
        )
    return best


def _nearest_mixers(mixer: Any, width: int, target: int) -> list[Any]:
    """The mixer at its inner widths just below and above the target, and at the blocks' width."""

    @functools.cache
    def mixer_at(n: int) -> Any:
        try:
            return _set_inner_width(mixer, n)
        except ValueError:  # no multiple of the heads, for instance
            return None

    def nearest_between(guess: int) -> int | None:
        """The possible width nearest to a guess. The blocks' own has no map back: it is no step."""
        for off in range(2 * max(width, guess)):
            for n in (guess - off, guess + off):
                if below < n < above and n != width and mixer_at(n) is not None:
                    return n
        return None

    below, above, guess = 0, math.inf, width
    power, last = 1.5, None  # parameters grow about as this power of the inner width
    while (n := nearest_between(guess)) is not None:
        count = mixer_parameters(mixer_at(n), width)
        if count >= target:
            above = n
        else:
            below = n
            if n > target:  # every feature has parameters: these do not depend on the inner width
                break
        if last is not None and last[1] != count:
            power = math.log(count / last[1]) / math.log(n / last[0])
        last = n, count
        guess = round(n * (target / count) ** (1 / min(max(power, 0.5), 2.0)))
    return [
        mixer_at(n)
        for n in (below, above, width)
        if 0 < n < math.inf and mixer_at(int(n)) is not None
    ]


def _set_inner_width(mixer: Any, n: int) -> Any:
    """The mixer at an inner width, or for n = 0 whether it has one."""
    match mixer:
        case Recurrent():
            inner = _set_inner_width(mixer.cell, n)
            return dataclasses.replace(mixer, cell=inner) if n else inner
        case Read():
            inner = _set_inner_width(mixer.inner, n)
            return dataclasses.replace(mixer, inner=inner) if n else inner
        case DotProduct():
            return dataclasses.replace(mixer, inner_features=n) if n else True
        case Additive():
            return dataclasses.replace(mixer, features=n) if n else True
        case Cell() if any(field.name == "features" for field in dataclasses.fields(mixer)):  # type: ignore[arg-type]
            return dataclasses.replace(mixer, features=n) if n else True  # type: ignore[call-arg]
    return None
