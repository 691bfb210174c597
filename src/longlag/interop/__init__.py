"""Weights from and to other frameworks, and cells inside each other's loops.

Each `to_NAME(cell, params)` gives the weights in the other framework's own layout, as a tree of
arrays; each `from_NAME(cell, theirs)` takes such a tree (arrays of any kind that numpy reads) and
gives a longlag `params`. They import nothing but numpy and jax; what runs the other's code does.
Which cells there are on both sides, and how their layouts differ, is said in each file.
"""

from longlag.interop.equinox import from_equinox as from_equinox
from longlag.interop.equinox import to_equinox as to_equinox
from longlag.interop.files import load_safetensors as load_safetensors
from longlag.interop.files import save_safetensors as save_safetensors
from longlag.interop.haiku import from_haiku as from_haiku
from longlag.interop.haiku import to_haiku as to_haiku
from longlag.interop.keras import from_keras as from_keras
from longlag.interop.keras import to_keras as to_keras
from longlag.interop.linen import from_linen as from_linen
from longlag.interop.linen import to_linen as to_linen
from longlag.interop.nnx import from_nnx as from_nnx
from longlag.interop.nnx import to_nnx as to_nnx
from longlag.interop.torch import from_torch as from_torch
from longlag.interop.torch import to_torch as to_torch
