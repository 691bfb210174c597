"""The blocks of the papers, made of the cells and layers that are here.

A mixer is what a residual block has inside; the functions have the residuals, norms and MLPs too:
`SequenceModel("tokens", 32, 64, (Repeated(mamba(64), 12),), 32)` is a Mamba of twelve blocks.

What is as published: which maps there are, between what, of which width, with which activations,
norms and gates. What is not, unless a block says otherwise: kernels begin LeCun normal and skips,
scales and decays as in our cells, not by each paper's own scheme.
"""

from longlag.contrib.blocks.gated_delta_blocks import GatedDeltaNetMixer, gated_delta_net
from longlag.contrib.blocks.griffin_blocks import (
    GriffinMixer,
    griffin,
    griffin_attention,
    griffin_recurrent,
)
from longlag.contrib.blocks.mamba_blocks import MambaMixer, mamba
from longlag.contrib.blocks.xlstm_blocks import MLSTMMixer, SLSTMMixer, mlstm, slstm

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
