"""Kernels of others for whole sequences; each enters itself in `longlag.core.backends`."""

from longlag.cells.lstm import LSTM
from longlag.core.backends import BACKENDS
from longlag.kernels import cudnn

BACKENDS["cudnn"] = {LSTM: cudnn.lstm}
