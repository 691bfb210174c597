"""Griffin: its recurrent block, its attention block and the whole stack."""

from __future__ import annotations

from typing import Any

from jax.nn import gelu

from longlag.attention import DotProduct
from longlag.cells import RGLRU
from longlag.core.array_types import TimeMajor, TimeMajorOutputs
from longlag.nn.block import Block, Run, concatenate_features
from longlag.nn.containers import Repeated, Residual, Stack
from longlag.nn.layer import Layer
from longlag.nn.pointwise import MLP, Dense
from longlag.nn.recurrent import Recurrent
from longlag.nn.short_convolution import ShortConvolution

__all__ = ["GriffinMixer", "griffin", "griffin_attention", "griffin_recurrent"]


class GriffinMixer(Block):
    """Griffin's recurrent block.

        u = conv(W_x x + b_x)
        h = RG-LRU(u), its gates block-diagonal: r = σ(W_r u + b_r), i = σ(W_i u + b_i)
        y = W_o (gelu(W_g x + b_g) ⊙ h) + b_o

    Attributes:
        features: D.
        recurrent_features: R, the width of u and h; None: 4 D / 3 or the next multiple of `blocks`.
        blocks: of W_r and W_i.
        convolution: steps that the convolution sees.

    Reference: De et al. 2024, arXiv 2402.19427, section 2.3 and figure 2; 16 blocks as in their
    section 4. The convolution's bias is the one that our RG-LRU has on u, and the gates see u
    before it, which their own biases make good: the function is the same.
    """

    recurrent_features: int | None = None
    blocks: int = 16
    convolution: int = 4

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"GriffinMixer.blocks: expected at least 1, got {self.blocks}")
        super().__post_init__()

    @property
    def width(self) -> int:
        """R."""
        if self.recurrent_features is not None:
            return self.recurrent_features
        return -(-4 * self.features // (3 * self.blocks)) * self.blocks

    @property
    def parts(self) -> dict[str, Layer]:
        """The maps of the equations, by name."""
        gate = Dense(self.width, self.blocks, bias=False)
        return {
            "x": Dense(self.width),
            "conv": ShortConvolution(self.convolution, bias=False),
            "r": gate,
            "i": gate,
            "rg_lru": Recurrent(RGLRU(self.width, input_kernel=False)),
            "gate": Dense(self.width),
            "out": Dense(self.features),
        }

    def equation(self, run: Run, xs: TimeMajor) -> TimeMajorOutputs:
        """See the class."""
        u = run("conv", run("x", xs))
        h = run("rg_lru", concatenate_features(run("r", u), run("i", u), u))
        return run("out", gelu(run("gate", xs)) * h)


def griffin_recurrent(width: int, **fields: Any) -> Layer:
    """Griffin's residual block around its recurrent block, with its MLP (figure 2a).

    x + mixer(norm(x)), then x + MLP(norm(x)): RMS norms, the MLP gated by a GELU, 3 D wide.

    Args:
        width: D.
        **fields: those of `GriffinMixer`.
    """
    return _add_mlp(GriffinMixer(width, **fields))


def griffin_attention(width: int, heads: int = 4, window: int = 1024) -> Layer:
    """Griffin's residual block around its local attention: multi-query, rotary, a window.

    Section 2.3; their heads are 128 wide. Our attention's last map has no bias.
    """
    return _add_mlp(DotProduct(width, heads=heads, kv_heads=1, window=window))


def griffin(
    width: int, depth: int, heads: int = 4, window: int = 1024, **fields: Any
) -> tuple[Layer, ...]:
    """Griffin: two recurrent blocks and one of local attention, in turn (section 3).

    Args:
        width: D.
        depth: residual blocks in all; the last turn may be cut short.
        heads: of the attention.
        window: positions that it reads.
        **fields: those of `GriffinMixer`.

    Returns:
        The layers of a `SequenceModel`. A turn is one program, however often it comes.
    """
    if depth < 1:
        raise ValueError(f"griffin depth: expected at least 1, got {depth}")
    recurrent = griffin_recurrent(width, **fields)
    turn = (recurrent, recurrent, griffin_attention(width, heads, window))
    turns, rest = divmod(depth, 3)
    whole = (Stack(turn),) if turns == 1 else (Repeated(Stack(turn), turns),) if turns else ()
    return (*whole, *turn[:rest])


def _add_mlp(mixer: Block | DotProduct) -> Layer:
    return Stack((Residual(mixer), Residual(MLP(3 * mixer.features, gated=True))))
