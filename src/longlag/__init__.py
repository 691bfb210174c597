"""longlag: recurrence with and without attention on long-time-lag memory tasks, in JAX."""

from longlag.cell import Carry as Carry
from longlag.cell import Cell as Cell
from longlag.cell import DenseCell as DenseCell
from longlag.cell import dot as dot
from longlag.cell import gate_projection as gate_projection
from longlag.cells import GRU as GRU
from longlag.cells import LSTM as LSTM
from longlag.cells import Elman as Elman
from longlag.cells import LSTMCarry as LSTMCarry
from longlag.cells import MinGRU as MinGRU
from longlag.chunks import sum_over_time as sum_over_time
from longlag.linear_cell import GatedLinearCell as GatedLinearCell
from longlag.linear_cell import LinearCell as LinearCell
from longlag.linear_scan import linear_scan as linear_scan
from longlag.matrix_cell import Association as Association
from longlag.matrix_cell import MatrixCarry as MatrixCarry
from longlag.matrix_cell import MatrixCell as MatrixCell
from longlag.matrix_cell import Reads as Reads
from longlag.newton import NewtonInfo as NewtonInfo
from longlag.newton import newton as newton
from longlag.runs import load as load
from longlag.unroll import unroll as unroll
