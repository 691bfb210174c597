"""The glossary of array types: what the arrays of public functions hold, and their axes.

    B sequences   T steps          D features of an input   K features of an output   H of a state
    L positions of a target        A steps whose answers are asked for   M remembered entries
    N heads       V features of a value   S seeds   `*name` any number of axes

Within one call a letter stands for one size. With `time_major` B and T change places. A word gives
the shape, and the kind of number where only one kind fits.

In a program that imports jaxtyping before longlag these are types of jaxtyping, which a checker can
check, as `tests/core/test_array_types.py` does. In any other program they mean `jax.Array`, and
jaxtyping is not imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from jax import Array

if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Integer
    from typing import Annotated as Key
    from typing import Annotated as Shaped
    from typing import Annotated as UInt32
else:
    from jaxtyping import Bool, Float, Integer, Key, Shaped, UInt32

# One key: of `jax.random.key`, or the words of `jax.random.PRNGKey`.
PRNGKey = Key[Array, ""] | UInt32[Array, "words"]
Scalar = Shaped[Array, ""]
Index = Integer[Array, ""]

# Sequences, as users give them.
Sequences = Shaped[Array, "B T *features"]
Outputs = Shaped[Array, "B T *outputs"]
Features = Shaped[Array, "B T D"]
Tokens = Integer[Array, "B T"]
Inputs = Tokens | Features
Mask = Bool[Array, "B T"]
Resets = Bool[Array, "B T"]

# Sequences of several lengths.
Lengths = Integer[Array, "*batch"]
MaskOfLengths = Bool[Array, "*batch T"]
RowIntegers = Integer[Array, "B"]
LengthColumn = Integer[Array, "B 1"]
PaddedTokens = Integer[np.ndarray, "B T"]
PaddingMask = Bool[np.ndarray, "B T"]

# Sequences inside a model, where time leads.
TimeMajor = Shaped[Array, "T B D"]
TimeMajorOutputs = Shaped[Array, "T B K"]
TimeMajorMask = Bool[Array, "T B"]
TimeMajorResets = Bool[Array, "T B"]

# What a cell or a pointwise layer takes and returns, at one step or at any number of steps.
StepInputs = Shaped[Array, "*steps D"]
StepOutputs = Shaped[Array, "*steps K"]
StepFeatures = Shaped[Array, "*steps _"]
Gate = Float[Array, "*steps H"]
# One array for each gate, in the order of the cell's `gates`.
Gates = tuple[Gate, ...]
Kernel = Shaped[Array, "D K"]

# Heads of an attention or of a memory, at any number of steps.
Queries = Shaped[Array, "*steps N K"]
Keys = Shaped[Array, "*steps N K"]
Values = Shaped[Array, "*steps N V"]
StepPositions = Integer[Array, "*steps"]

# The recurrence of a matrix, over the leading axis.
ScanQueries = Shaped[Array, "T *batch K"]
ScanKeys = Shaped[Array, "T *batch K"]
ScanValues = Shaped[Array, "T *batch V"]
MatrixState = Shaped[Array, "*batch K V"]
MatrixStates = Shaped[Array, "T *batch K V"]
ScanResets = Bool[Array, "T *leading"]

# An attention, and what an encoder left for it.
Positions = Integer[Array, "B T"]
Contexts = Shaped[Array, "B T K"]
AttentionWeights = Float[Array, "B T M"]
AttentionMap = Float[Array, "B T T"]
TimeMajorWeights = Float[Array, "T B M"]
Encodings = Shaped[Array, "B M E"]
EncodingsMask = Bool[Array, "B M"]
EntryPositions = Integer[Array, "B M"]

# Answers of a model, and what they are compared with.
Logits = Float[Array, "B T K"]
AnswerSteps = Integer[Array, "B A"]
Answers = Float[Array, "B A K"]
TargetTokens = Integer[Array, "B L"]
TargetLogits = Float[Array, "B L K"]
Targets = TargetTokens | Float[Array, "B L K"]
Weights = Float[Array, "B L"]
Scored = Bool[Array, "B L"]
Losses = Float[Array, "B L"]
Right = Bool[Array, "B L"]
Alignment = Float[Array, "B L M"]
Places = Integer[Array, "1 L"]

# Sampling and search.
Token = Integer[Array, ""]
TokenLogits = Float[Array, "K"]
BeamTokens = Integer[Array, "*batch beams L"]
BeamLengths = Integer[Array, "*batch beams"]
BeamScores = Float[Array, "*batch beams"]

# What training keeps for each seed. Inside a map over seeds the axis is gone.
SeedIntegers = Integer[Array, "*S"]
SeedNumbers = Float[Array, "*S"]
SeedFlags = Bool[Array, "*S"]
SeedCounts = Integer[Array, "*S T"]
