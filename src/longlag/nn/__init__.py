"""Layers: maps of sequences that stream, and what layers are put together with."""

from longlag.nn.block import Block, Run, concatenate_features
from longlag.nn.containers import Gated, Repeated, Residual, Stack
from longlag.nn.layer import Layer, State
from longlag.nn.pointwise import MLP, Dense, Dropout, Norm, Scale, VariationalDropout
from longlag.nn.recurrent import Bidirectional, Recurrent
from longlag.nn.short_convolution import ShortConvolution

__all__ = [
    "MLP",
    "Bidirectional",
    "Block",
    "Dense",
    "Dropout",
    "Gated",
    "Layer",
    "Norm",
    "Recurrent",
    "Repeated",
    "Residual",
    "Run",
    "Scale",
    "ShortConvolution",
    "Stack",
    "State",
    "VariationalDropout",
    "concatenate_features",
]
