"""Layers: maps of sequences that stream, and what layers are put together with."""

from longlag.nn.block import Block as Block
from longlag.nn.block import Run as Run
from longlag.nn.containers import Gated as Gated
from longlag.nn.containers import Repeated as Repeated
from longlag.nn.containers import Residual as Residual
from longlag.nn.containers import Stack as Stack
from longlag.nn.layer import Layer as Layer
from longlag.nn.layer import State as State
from longlag.nn.pointwise import MLP as MLP
from longlag.nn.pointwise import Dense as Dense
from longlag.nn.pointwise import Dropout as Dropout
from longlag.nn.pointwise import Norm as Norm
from longlag.nn.pointwise import Scale as Scale
from longlag.nn.pointwise import VariationalDropout as VariationalDropout
from longlag.nn.recurrent import Bidirectional as Bidirectional
from longlag.nn.recurrent import Recurrent as Recurrent
from longlag.nn.short_convolution import ShortConvolution as ShortConvolution
