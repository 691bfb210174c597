"""Memory tasks: data as a pure function of a key, with the floor that a table prints beside it."""

from longlag.tasks.adding import Adding
from longlag.tasks.copy_memory import CopyMemory
from longlag.tasks.first_input import FirstInput
from longlag.tasks.intents import Intents
from longlag.tasks.parity import Parity
from longlag.tasks.recall import Recall
from longlag.tasks.selective_copy import SelectiveCopy
from longlag.tasks.task import Batch, Floor, Task, pad

__all__ = [
    "Adding",
    "Batch",
    "CopyMemory",
    "FirstInput",
    "Floor",
    "Intents",
    "Parity",
    "Recall",
    "SelectiveCopy",
    "Task",
    "pad",
]
