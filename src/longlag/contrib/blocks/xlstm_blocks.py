"""The two blocks of the xLSTM."""

from __future__ import annotations

from typing import Any

from jax.nn import silu

from longlag.cells import MLSTM, SLSTM
from longlag.core.array_types import TimeMajor, TimeMajorOutputs
from longlag.nn.block import Block, Run, concatenate_features
from longlag.nn.containers import Residual, Stack
from longlag.nn.layer import Layer
from longlag.nn.pointwise import MLP, Dense, Norm, Scale
from longlag.nn.recurrent import Recurrent
from longlag.nn.short_convolution import ShortConvolution

__all__ = ["MLSTMMixer", "SLSTMMixer", "mlstm", "slstm"]


# Layer normalisation without a bias, as in xLSTM.
LAYER_NORM = Norm(epsilon=1e-5, centered=True)


class MLSTMMixer(Block):
    """xLSTM's mLSTM block, which projects up before the recurrence.

        u = W_u x,   c = silu(conv(u))
        q = W_q c,   k = W_k c,   v = W_v u          block-diagonal, blocks of 4 features
        i, f = W_if [q; k; v] + b                    a number for each head
        h = norm(mLSTM(q, k, v, i, f))               of each head
        y = W_d (silu(W_z x) ⊙ (h + s ⊙ c))          s: the learnable skip

    Attributes:
        features: D.
        expand: E / D, E the width of all in between.
        heads: N, which divides E.
        block: features in a block of W_q, W_k and W_v.
        convolution: steps that the convolution sees.

    Reference: Beck et al. 2024, arXiv 2405.04517, section 2.4 and the appendix's figure of the
    block. q, k and v have biases, as in their equations 22 to 24, which their code leaves out; i
    and f see them without.
    """

    expand: int = 2
    heads: int = 4
    block: int = 4
    convolution: int = 4

    def __post_init__(self) -> None:
        if self.block < 1 or self.expand * self.features % self.block:
            raise ValueError(
                f"MLSTMMixer.block: expected a divisor of {self.expand * self.features} features, "
                f"got {self.block}"
            )
        super().__post_init__()

    @property
    def parts(self) -> dict[str, Layer]:
        """The maps of the equations, by name."""
        inner = self.expand * self.features
        mixed = Dense(inner, inner // self.block, bias=False)
        cell = MLSTM(inner, heads=self.heads, input_kernel=False, output_gate=False)
        return {
            "up": Dense(inner, bias=False),
            "conv": ShortConvolution(self.convolution),
            "q": mixed,
            "k": mixed,
            "v": mixed,
            "gates": Dense(2 * self.heads, bias=False),
            "mlstm": Recurrent(cell),
            "norm": Norm(epsilon=1e-5, groups=self.heads, centered=True),
            "skip": Scale(),
            "gate": Dense(inner, bias=False),
            "down": Dense(self.features, bias=False),
        }

    def equation(self, run: Run, xs: TimeMajor) -> TimeMajorOutputs:
        """See the class."""
        u = run("up", xs)
        c = silu(run("conv", u))
        qkv = concatenate_features(run("q", c), run("k", c), run("v", u))
        h = run("norm", run("mlstm", concatenate_features(qkv, run("gates", qkv))))
        return run("down", silu(run("gate", xs)) * (h + run("skip", c)))


def mlstm(width: int, **fields: Any) -> Layer:
    """xLSTM's residual mLSTM block, x + mixer(norm(x)): there is no MLP.

    Args:
        width: D.
        **fields: those of `MLSTMMixer`.
    """
    return Residual(MLSTMMixer(width, **fields), LAYER_NORM)


class SLSTMMixer(Block):
    """The first half of xLSTM's sLSTM block, which projects up after the recurrence.

        c = silu(conv(x))
        i, f = W_i c, W_f c,   z, o = W_z x, W_o x          block-diagonal, a block for each head
        y = norm(sLSTM(i, f, z, o))                         of each head

    Attributes:
        features: D.
        heads: N, which divides D.
        convolution: steps that the convolution sees.

    Reference: Beck et al. 2024, arXiv 2405.04517, section 2.4 and the appendix's figure of the
    block; the forget gate is a sigmoid.
    """

    heads: int = 4
    convolution: int = 4

    @property
    def parts(self) -> dict[str, Layer]:
        """The maps of the equations, by name."""
        gate = Dense(self.features, self.heads, bias=False)
        return {
            "conv": ShortConvolution(self.convolution),
            **dict.fromkeys("ifzo", gate),
            "slstm": Recurrent(SLSTM(self.features, heads=self.heads, input_kernel=False)),
            "norm": Norm(epsilon=1e-5, groups=self.heads, centered=True),
        }

    def equation(self, run: Run, xs: TimeMajor) -> TimeMajorOutputs:
        """See the class."""
        c = silu(run("conv", xs))
        gates = concatenate_features(run("i", c), run("f", c), run("z", xs), run("o", xs))
        return run("norm", run("slstm", gates))


def slstm(width: int, **fields: Any) -> Layer:
    """xLSTM's residual sLSTM block: x + mixer(norm(x)), then x + MLP(norm(x)).

    The MLP is gated by a GELU and ⌈4 D / 3⌉ wide. It has a residual of its own, as in their code.

    Args:
        width: D.
        **fields: those of `SLSTMMixer`.
    """
    mlp = MLP(-(-4 * width // 3), gated=True, bias=False)
    return Stack((Residual(SLSTMMixer(width, **fields), LAYER_NORM), Residual(mlp, LAYER_NORM)))
