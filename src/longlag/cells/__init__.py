"""The cells, one file each."""

from longlag.cells.elman import Elman as Elman
from longlag.cells.feed_forward import FeedForward as FeedForward
from longlag.cells.gru import GRU as GRU
from longlag.cells.lstm import LSTM as LSTM
from longlag.cells.lstm import LSTMCarry as LSTMCarry
from longlag.cells.min_gru import MinGRU as MinGRU
