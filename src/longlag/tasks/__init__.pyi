# Written by tests/helpers/stubs.py from what the modules export. Do not edit.

from longlag.core.batch import Batch as Batch
from longlag.tasks.adding import Adding as Adding
from longlag.tasks.associative_recall import AssociativeRecall as AssociativeRecall
from longlag.tasks.binary_addition import BinaryAddition as BinaryAddition
from longlag.tasks.binary_multiplication import BinaryMultiplication as BinaryMultiplication
from longlag.tasks.bucket_sort import BucketSort as BucketSort
from longlag.tasks.captions import Captions as Captions
from longlag.tasks.compression import Compression as Compression
from longlag.tasks.compute_sqrt import ComputeSqrt as ComputeSqrt
from longlag.tasks.copy_memory import CopyMemory as CopyMemory
from longlag.tasks.cycle_navigation import CycleNavigation as CycleNavigation
from longlag.tasks.dates import Dates as Dates
from longlag.tasks.duplicate_string import DuplicateString as DuplicateString
from longlag.tasks.even_pairs import EvenPairs as EvenPairs
from longlag.tasks.first_input import FirstInput as FirstInput
from longlag.tasks.group_word import GroupWord as GroupWord
from longlag.tasks.in_context_recall import InContextRecall as InContextRecall
from longlag.tasks.induction_heads import InductionHeads as InductionHeads
from longlag.tasks.intents import Intents as Intents
from longlag.tasks.japanese_vowels import JapaneseVowels as JapaneseVowels
from longlag.tasks.lag_copy import LagCopy as LagCopy
from longlag.tasks.memorization import Memorization as Memorization
from longlag.tasks.missing_duplicate import MissingDuplicate as MissingDuplicate
from longlag.tasks.modular_arithmetic import ModularArithmetic as ModularArithmetic
from longlag.tasks.modular_arithmetic_brackets import (
    ModularArithmeticBrackets as ModularArithmeticBrackets,
)
from longlag.tasks.next_byte import NextByte as NextByte
from longlag.tasks.odds_first import OddsFirst as OddsFirst
from longlag.tasks.parity import Parity as Parity
from longlag.tasks.parity_dense import ParityDense as ParityDense
from longlag.tasks.recall import Recall as Recall
from longlag.tasks.reverse import Reverse as Reverse
from longlag.tasks.selective_copy import SelectiveCopy as SelectiveCopy
from longlag.tasks.sequential_images import SequentialImages as SequentialImages
from longlag.tasks.solve_equation import SolveEquation as SolveEquation
from longlag.tasks.spoken_digits import SpokenDigits as SpokenDigits
from longlag.tasks.stack_manipulation import StackManipulation as StackManipulation
from longlag.tasks.state_recall import StateRecall as StateRecall
from longlag.tasks.task import Floor as Floor
from longlag.tasks.task import Task as Task
from longlag.tasks.task import pad as pad
from longlag.tasks.temporal_order import TemporalOrder as TemporalOrder
from longlag.tasks.translation import Translation as Translation
