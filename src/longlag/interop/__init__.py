"""Weights from and to other frameworks, and cells inside each other's loops.

Each `to_NAME(cell, params)` gives the weights in the other framework's own layout, as a tree of
arrays; each `from_NAME(cell, theirs)` takes such a tree (arrays of any kind that numpy reads) and
gives a longlag `params`. They import nothing but numpy and jax; what runs the other's code does.
Which cells there are on both sides, and how their layouts differ, is said in each file.
"""

from longlag.interop.equinox import from_equinox, to_equinox
from longlag.interop.files import load_safetensors, save_safetensors
from longlag.interop.haiku import from_haiku, to_haiku
from longlag.interop.keras import from_keras, to_keras
from longlag.interop.linen import from_linen, to_linen
from longlag.interop.nnx import from_nnx, to_nnx
from longlag.interop.torch import from_torch, to_torch

__all__ = [
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "load_safetensors",
    "save_safetensors",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_torch",
]
