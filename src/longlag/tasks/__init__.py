"""Memory tasks: data as a pure function of a key, with the floor that a table prints beside it."""

from longlag.core.batch import Batch
from longlag.tasks.adding import Adding
from longlag.tasks.associative_recall import AssociativeRecall
from longlag.tasks.binary_addition import BinaryAddition
from longlag.tasks.binary_multiplication import BinaryMultiplication
from longlag.tasks.bucket_sort import BucketSort
from longlag.tasks.captions import Captions
from longlag.tasks.compression import Compression
from longlag.tasks.compute_sqrt import ComputeSqrt
from longlag.tasks.copy_memory import CopyMemory
from longlag.tasks.cycle_navigation import CycleNavigation
from longlag.tasks.dates import Dates
from longlag.tasks.duplicate_string import DuplicateString
from longlag.tasks.even_pairs import EvenPairs
from longlag.tasks.first_input import FirstInput
from longlag.tasks.group_word import GroupWord
from longlag.tasks.in_context_recall import InContextRecall
from longlag.tasks.induction_heads import InductionHeads
from longlag.tasks.intents import Intents
from longlag.tasks.japanese_vowels import JapaneseVowels
from longlag.tasks.lag_copy import LagCopy
from longlag.tasks.memorization import Memorization
from longlag.tasks.missing_duplicate import MissingDuplicate
from longlag.tasks.modular_arithmetic import ModularArithmetic
from longlag.tasks.modular_arithmetic_brackets import ModularArithmeticBrackets
from longlag.tasks.next_byte import NextByte
from longlag.tasks.odds_first import OddsFirst
from longlag.tasks.parity import Parity
from longlag.tasks.parity_dense import ParityDense
from longlag.tasks.recall import Recall
from longlag.tasks.reverse import Reverse
from longlag.tasks.selective_copy import SelectiveCopy
from longlag.tasks.sequential_images import SequentialImages
from longlag.tasks.solve_equation import SolveEquation
from longlag.tasks.spoken_digits import SpokenDigits
from longlag.tasks.stack_manipulation import StackManipulation
from longlag.tasks.state_recall import StateRecall
from longlag.tasks.task import Floor, Task, pad
from longlag.tasks.temporal_order import TemporalOrder
from longlag.tasks.translation import Translation

__all__ = [
    "Adding",
    "AssociativeRecall",
    "Batch",
    "BinaryAddition",
    "BinaryMultiplication",
    "BucketSort",
    "Captions",
    "Compression",
    "ComputeSqrt",
    "CopyMemory",
    "CycleNavigation",
    "Dates",
    "DuplicateString",
    "EvenPairs",
    "FirstInput",
    "Floor",
    "GroupWord",
    "InContextRecall",
    "InductionHeads",
    "Intents",
    "JapaneseVowels",
    "LagCopy",
    "Memorization",
    "MissingDuplicate",
    "ModularArithmetic",
    "ModularArithmeticBrackets",
    "NextByte",
    "OddsFirst",
    "Parity",
    "ParityDense",
    "Recall",
    "Reverse",
    "SelectiveCopy",
    "SequentialImages",
    "SolveEquation",
    "SpokenDigits",
    "StackManipulation",
    "StateRecall",
    "Task",
    "TemporalOrder",
    "Translation",
    "pad",
]
