"""longlag: recurrence with and without attention on long-time-lag memory tasks, in JAX."""

from longlag.cells import GRU as GRU
from longlag.cells import LSTM as LSTM
from longlag.cells import Elman as Elman
from longlag.cells import LSTMCarry as LSTMCarry
from longlag.cells import MinGRU as MinGRU
from longlag.core.cell import Carry as Carry
from longlag.core.cell import Cell as Cell
from longlag.core.chunks import sum_over_time as sum_over_time
from longlag.core.dense_cell import DenseCell as DenseCell
from longlag.core.linear_cell import GatedLinearCell as GatedLinearCell
from longlag.core.linear_cell import LinearCell as LinearCell
from longlag.core.matrix_cell import Association as Association
from longlag.core.matrix_cell import MatrixCarry as MatrixCarry
from longlag.core.matrix_cell import MatrixCell as MatrixCell
from longlag.core.matrix_cell import Reads as Reads
from longlag.core.newton_method import newton as newton
from longlag.core.newton_solver import NewtonInfo as NewtonInfo
from longlag.core.ops import dot as dot
from longlag.core.ops import gate_projection as gate_projection
from longlag.core.scans.linear import linear_scan as linear_scan
from longlag.core.unrolling import unroll as unroll
from longlag.kernels import cudnn as _  # noqa: F401 - enters itself
from longlag.runs.loading import load as load
