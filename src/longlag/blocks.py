"""The blocks of the papers, made of the cells and layers that are here.

A mixer is what a residual block has inside; the functions have the residuals, norms and MLPs too:
`SequenceModel("tokens", 32, 64, (Repeated(mamba(64), 12),), 32)` is a Mamba of twelve blocks.

What is as published: which maps there are, between what, of which width, with which activations,
norms and gates. What is not, unless a block says otherwise: kernels begin LeCun normal and skips,
scales and decays as in our cells, not by each paper's own scheme.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import gelu, silu

from longlag.attention import DotProduct
from longlag.block import Block, Run
from longlag.cells import MLSTM, RGLRU, S6, SLSTM, GatedDeltaNet
from longlag.layer import Layer
from longlag.layers import MLP, Dense, Norm, Recurrent, Repeated, Residual, Scale, Stack
from longlag.short_convolution import ShortConvolution

__all__ = [
    "GatedDeltaNetMixer",
    "GriffinMixer",
    "MLSTMMixer",
    "MambaMixer",
    "SLSTMMixer",
    "gated_delta_net",
    "griffin",
    "griffin_attention",
    "griffin_recurrent",
    "mamba",
    "mlstm",
    "slstm",
]

# Layer normalisation without a bias, as in xLSTM.
LAYER_NORM = Norm(epsilon=1e-5, centered=True)


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
    def parts(self):
        """See the equations."""
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

    def equation(self, run: Run, xs: jax.Array) -> jax.Array:
        """See the class."""
        u = run("conv", run("x", xs))
        h = run("rg_lru", _beside(run("r", u), run("i", u), u))
        return run("out", gelu(run("gate", xs)) * h)


def griffin_recurrent(width: int, **fields: Any) -> Layer:
    """Griffin's residual block around its recurrent block, with its MLP (figure 2a).

    x + mixer(norm(x)), then x + MLP(norm(x)): RMS norms, the MLP gated by a GELU, 3 D wide.

    Args:
        width: D.
        **fields: those of `GriffinMixer`.
    """
    return _with_griffins_mlp(GriffinMixer(width, **fields))


def griffin_attention(width: int, heads: int = 4, window: int = 1024) -> Layer:
    """Griffin's residual block around its local attention: multi-query, rotary, a window.

    Section 2.3; their heads are 128 wide. Our attention's last map has no bias.
    """
    return _with_griffins_mlp(DotProduct(width, heads=heads, kv_heads=1, window=window))


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


def _with_griffins_mlp(mixer: Block | DotProduct) -> Layer:
    return Stack((Residual(mixer), Residual(MLP(3 * mixer.features, gated=True))))


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
    def parts(self):
        """See the equations."""
        inner = self.expand * self.features
        rank = -(-self.features // 16)
        return {
            "x": Dense(inner, bias=False),
            "conv": ShortConvolution(self.convolution),
            "s6": Recurrent(S6(inner, self.state, rank, input_kernel=False)),
            "gate": Dense(inner, bias=False),
            "out": Dense(self.features, bias=False),
        }

    def equation(self, run: Run, xs: jax.Array) -> jax.Array:
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
    def parts(self):
        """See the equations."""
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

    def equation(self, run: Run, xs: jax.Array) -> jax.Array:
        """See the class."""
        u = run("up", xs)
        c = silu(run("conv", u))
        qkv = _beside(run("q", c), run("k", c), run("v", u))
        h = run("norm", run("mlstm", _beside(qkv, run("gates", qkv))))
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
    def parts(self):
        """See the equations."""
        gate = Dense(self.features, self.heads, bias=False)
        return {
            "conv": ShortConvolution(self.convolution),
            **dict.fromkeys("ifzo", gate),
            "slstm": Recurrent(SLSTM(self.features, heads=self.heads, input_kernel=False)),
            "norm": Norm(epsilon=1e-5, groups=self.heads, centered=True),
        }

    def equation(self, run: Run, xs: jax.Array) -> jax.Array:
        """See the class."""
        c = silu(run("conv", xs))
        gates = _beside(run("i", c), run("f", c), run("z", xs), run("o", xs))
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


class GatedDeltaNetMixer(Block):
    """Gated DeltaNet's block.

        q, k, v = silu(conv(W_qkv x)), then q and k at length one
        β = σ(W_β x),   α = exp(-A softplus(W_α x + b_α))        numbers for each head
        y = W_o (silu(W_g x) ⊙ norm(S q)),   S by the gated delta rule, norm of each head

    Attributes:
        features: D.
        heads: N.
        key_features: K, the width of a key of one head; None: 3 D / 4 N.
        expand: V / K, V the width of a value.
        negative_eigenvalues: β in [0, 2].
        convolution: steps that the convolutions see.

    Reference: Yang, Kautz and Hatamizadeh 2025, arXiv 2412.06464, section 3.4 and figure 1; widths
    as in their code. The convolutions and β have biases, which theirs leave out; the norm has a
    scale for each head, where theirs share one; and q is not divided by √K, which the norm undoes.
    """

    heads: int = 4
    key_features: int | None = None
    expand: int = 2
    negative_eigenvalues: bool = False
    convolution: int = 4

    def __post_init__(self) -> None:
        if self.heads < 1 or (self.key_features is None and 3 * self.features % (4 * self.heads)):
            raise ValueError(
                "GatedDeltaNetMixer.key_features: expected a number, since 3/4 of "
                f"{self.features} features are no multiple of {self.heads} heads; got None"
            )
        super().__post_init__()

    @property
    def parts(self):
        """See the equations."""
        keys = 3 * self.features // (4 * self.heads)
        keys = keys if self.key_features is None else self.key_features
        of_keys, of_values = self.heads * keys, self.heads * self.expand * keys
        cell = GatedDeltaNet(
            of_values,
            heads=self.heads,
            key_features=keys,
            negative_eigenvalues=self.negative_eigenvalues,
            input_kernel=False,
        )
        return {
            "qkv": Dense(2 * of_keys + of_values, bias=False),
            "conv": ShortConvolution(self.convolution, bias=False),
            "beta": Dense(self.heads, bias=False),
            "alpha": Dense(self.heads, bias=False),
            "delta": Recurrent(cell),
            "norm": Norm(epsilon=1e-5, groups=self.heads),
            "gate": Dense(of_values, bias=False),
            "out": Dense(self.features, bias=False),
        }

    def equation(self, run: Run, xs: jax.Array) -> jax.Array:
        """See the class; the activations of q, k, v, β and α are the cell's."""
        qkv = run("conv", run("qkv", xs))
        read = run("delta", _beside(qkv, run("beta", xs), run("alpha", xs)))
        return run("out", silu(run("gate", xs)) * run("norm", read))


def gated_delta_net(width: int, hidden: int | None = None, **fields: Any) -> Layer:
    """Gated DeltaNet's residual block: x + mixer(norm(x)), then x + MLP(norm(x)).

    Args:
        width: D.
        hidden: inner width of the MLP, gated by a SiLU (SwiGLU); None: 8 D / 3.
        **fields: those of `GatedDeltaNetMixer`.
    """
    mlp = MLP(-(-8 * width // 3) if hidden is None else hidden, "silu", gated=True, bias=False)
    return Stack((Residual(GatedDeltaNetMixer(width, **fields)), Residual(mlp)))


def _beside(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)
