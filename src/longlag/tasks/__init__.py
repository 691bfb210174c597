"""Memory tasks: data as a pure function of a key, with the floor that a table prints beside it."""

from longlag.tasks.adding import Adding
from longlag.tasks.associative_recall import AssociativeRecall
from longlag.tasks.compression import Compression
from longlag.tasks.copy_memory import CopyMemory
from longlag.tasks.cycle_navigation import CycleNavigation
from longlag.tasks.even_pairs import EvenPairs
from longlag.tasks.first_input import FirstInput
from longlag.tasks.group_word import GroupWord
from longlag.tasks.in_context_recall import InContextRecall
from longlag.tasks.induction_heads import InductionHeads
from longlag.tasks.intents import Intents
from longlag.tasks.lag_copy import LagCopy
from longlag.tasks.memorization import Memorization
from longlag.tasks.modular_arithmetic import ModularArithmetic
from longlag.tasks.parity import Parity
from longlag.tasks.parity_dense import ParityDense
from longlag.tasks.recall import Recall
from longlag.tasks.reverse import Reverse
from longlag.tasks.selective_copy import SelectiveCopy
from longlag.tasks.sequential_images import SequentialImages
from longlag.tasks.state_recall import StateRecall
from longlag.tasks.task import Batch, Floor, Task, pad
from longlag.tasks.temporal_order import TemporalOrder

__all__ = [
    "Adding",
    "AssociativeRecall",
    "Batch",
    "Compression",
    "CopyMemory",
    "CycleNavigation",
    "EvenPairs",
    "FirstInput",
    "Floor",
    "GroupWord",
    "InContextRecall",
    "InductionHeads",
    "Intents",
    "LagCopy",
    "Memorization",
    "ModularArithmetic",
    "Parity",
    "ParityDense",
    "Recall",
    "Reverse",
    "SelectiveCopy",
    "SequentialImages",
    "StateRecall",
    "Task",
    "TemporalOrder",
    "pad",
]
