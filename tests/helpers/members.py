"""One small instance of everything that the library has of a kind, for tests over all of them.

A new cell is a member by its defaults, and has a row only for its options. `test_members.py` says
that no attention, block or layer is missing.
"""

from __future__ import annotations

from longlag.attention import Additive, Attention, DotProduct, Local, Multiplicative
from longlag.attention.read import Read
from longlag.cells import (
    GLA,
    GRU,
    GSA,
    LEM,
    LRU,
    LSTM,
    MGU,
    MLSTM,
    RGLRU,
    S5,
    S6,
    SLSTM,
    CoRNN,
    DeltaNet,
    Elman,
    FeedForward,
    GatedDeltaNet,
    IndRNN,
    LayerNormLSTM,
    LinearAttention,
    MinGRU,
    MinLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
    Retention,
    StackRNN,
)
from longlag.contrib.blocks import (
    GatedDeltaNetMixer,
    GriffinMixer,
    MambaMixer,
    MLSTMMixer,
    SLSTMMixer,
)
from longlag.core.cell import Cell
from longlag.nn import (
    MLP,
    Bidirectional,
    Dense,
    Dropout,
    Gated,
    Layer,
    Norm,
    Recurrent,
    Repeated,
    Residual,
    Scale,
    ShortConvolution,
    Stack,
    VariationalDropout,
)
from longlag.runs import cell_names

# The input features of a layer or an attention below; a cell takes any.
D = 4

# What changes the initialisation only (LSTM's chrono) has no row of its own.
CELLS: list[Cell] = [
    Elman(3, learned_carry=True),
    Elman(3, activation="relu", recurrent_init="identity"),
    LSTM(3, learned_carry=True),
    GRU(3, learned_carry=True),
    GRU(3, reset="before"),
    MinGRU(3, learned_carry=True),
    MinGRU(3, candidate="positive"),
    FeedForward(3),
    FeedForward(3, window=3, learned_carry=True),
    IndRNN(3, longest_lag=5),
    MGU(3),
    PeepholeLSTM(3),
    LayerNormLSTM(3),
    ProjectedLSTM(3, projection=2, learned_carry=True),
    CoRNN(3),
    LEM(3),
    StackRNN(3, depth=3, width=2, learned_carry=True),
    SLSTM(4, heads=2, learned_carry=True),
    MinLSTM(3, negative_eigenvalues=True),
    LRU(3, state=2, learned_carry=True),
    S5(3, state=2),
    S6(3, state=2, learned_carry=True),
    RGLRU(3),
    GSA(4, heads=2, slots=3),
    LinearAttention(4, heads=2),
    Retention(4, heads=2, key_features=3, learned_carry=True),
    GLA(4, heads=2, key_features=3, learned_carry=True),
    MLSTM(4, heads=2, key_features=3, learned_carry=True),
    DeltaNet(4, heads=2, key_features=3, negative_eigenvalues=True, learned_carry=True),
    GatedDeltaNet(4, heads=2, learned_carry=True),
]
# A cell without a row above is a member by its defaults.
CELLS += [kind(4) for kind in cell_names().values() if kind not in {*map(type, CELLS)}]
# One of each class, for what does not depend on options.
EACH_CELL: list[Cell] = list({type(cell): cell for cell in reversed(CELLS)}.values())[::-1]

# Windows smaller and larger than a chunk of 5 steps.
ATTENTION_LAYERS: dict[str, Attention] = {
    "additive": Additive(6),
    "additive-window-3": Additive(6, window=3),
    "full": DotProduct(8, heads=2),
    "window-2": DotProduct(8, heads=2, window=2),
    "general": Multiplicative(4),
    "dot-window-3": Multiplicative(4, score="dot", window=3),
    "alibi-grouped": DotProduct(5, heads=4, kv_heads=2, inner_features=16, positions="alibi"),
    "learned-multi-query": DotProduct(
        8, heads=2, kv_heads=1, positions="learned", max_positions=40
    ),
    "local": Local(5, attention=Additive(6), radius=3),
}

BLOCKS: dict[str, Layer] = {
    "griffin": GriffinMixer(4),
    "mamba": MambaMixer(4),
    "mlstm": MLSTMMixer(4),
    "slstm": SLSTMMixer(4),
    "gated-delta-net": GatedDeltaNetMixer(4, heads=2, key_features=2),
}

LAYERS: dict[str, Layer] = {
    "recurrent": Recurrent(GRU(3)),
    "bidirectional": Bidirectional(GRU(3)),
    "dense": Dense(3),
    "scale": Scale(),
    "mlp": MLP(6, gated=True),
    "norm": Norm(groups=2),
    "dropout": Dropout(0.3),
    "variational-dropout": VariationalDropout(4, 0.3),
    "stack": Stack((Norm(), Dense(3), Recurrent(LSTM(3)))),
    "repeated": Repeated(Residual(Recurrent(GRU(4))), 2),
    "residual": Residual(Recurrent(MinGRU(4))),
    "gated": Gated(Recurrent(GRU(4))),
    "read": Read(Additive(6)),
    "short-convolution": ShortConvolution(3),
}
