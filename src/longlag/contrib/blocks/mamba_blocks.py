"""Mamba's block."""

from __future__ import annotations

from typing import Any

from jax.nn import silu

from longlag.cells import S6
from longlag.core.array_types import TimeMajor, TimeMajorOutputs
from longlag.nn.block import Block, Run
from longlag.nn.containers import Residual
from longlag.nn.layer import Layer
from longlag.nn.pointwise import Dense
from longlag.nn.recurrent import Recurrent
from longlag.nn.short_convolution import ShortConvolution

__all__ = ["MambaMixer", "mamba"]


class MambaMixer(Block):
    """Mamba's block.

        u = silu(conv(W_x x)),   y = W_o (silu(W_z x) ⊙ S6(u))

    Attributes:
        features: D.
        expand: E / D, E the width of u.
        state: N, states per feature.
        convolution: steps that the convolution sees.

    Reference: Gu and Dao 2023, arXiv 2312.00752, figure 3 and section 3.4; the rank of Δ is ⌈D /
    16⌉, as in their code.
    """

    expand: int = 2
    state: int = 16
    convolution: int = 4

    @property
    def parts(self) -> dict[str, Layer]:
        """The maps of the equations, by name."""
        inner = self.expand * self.features
        rank = -(-self.features // 16)
        return {
            "x": Dense(inner, bias=False),
            "conv": ShortConvolution(self.convolution),
            "s6": Recurrent(S6(inner, self.state, rank, input_kernel=False)),
            "gate": Dense(inner, bias=False),
            "out": Dense(self.features, bias=False),
        }

    def equation(self, run: Run, xs: TimeMajor) -> TimeMajorOutputs:
        """See the class."""
        u = silu(run("conv", run("x", xs)))
        return run("out", silu(run("gate", xs)) * run("s6", u))


def mamba(width: int, **fields: Any) -> Layer:
    """Mamba's layer, x + mixer(norm(x)): there is no MLP, and the norm is RMS, as in their code.

    Args:
        width: D.
        **fields: those of `MambaMixer`.
    """
    return Residual(MambaMixer(width, **fields))
