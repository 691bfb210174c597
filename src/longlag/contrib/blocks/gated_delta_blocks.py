"""The block of Gated DeltaNet."""

from __future__ import annotations

from typing import Any

from jax.nn import silu

from longlag.cells import GatedDeltaNet
from longlag.core.array_types import TimeMajor, TimeMajorOutputs
from longlag.nn.block import Block, Run, concatenate_features
from longlag.nn.containers import Residual, Stack
from longlag.nn.layer import Layer
from longlag.nn.pointwise import MLP, Dense, Norm
from longlag.nn.recurrent import Recurrent
from longlag.nn.short_convolution import ShortConvolution

__all__ = ["GatedDeltaNetMixer", "gated_delta_net"]


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
    def parts(self) -> dict[str, Layer]:
        """The maps of the equations, by name."""
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

    def equation(self, run: Run, xs: TimeMajor) -> TimeMajorOutputs:
        """See the class; the activations of q, k, v, β and α are the cell's."""
        qkv = run("conv", run("qkv", xs))
        memory_reads = run("delta", concatenate_features(qkv, run("beta", xs), run("alpha", xs)))
        return run("out", silu(run("gate", xs)) * run("norm", memory_reads))


def gated_delta_net(width: int, hidden: int | None = None, **fields: Any) -> Layer:
    """Gated DeltaNet's residual block: x + mixer(norm(x)), then x + MLP(norm(x)).

    Args:
        width: D.
        hidden: inner width of the MLP, gated by a SiLU (SwiGLU); None: 8 D / 3.
        **fields: those of `GatedDeltaNetMixer`.
    """
    mlp = MLP(-(-8 * width // 3) if hidden is None else hidden, "silu", gated=True, bias=False)
    return Stack((Residual(GatedDeltaNetMixer(width, **fields)), Residual(mlp)))
