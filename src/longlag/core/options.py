"""The options of a scan, in one object, so that a new one is one line here."""

from __future__ import annotations

import dataclasses

from longlag.core.scans.linear import Method
from longlag.core.scans.step import Backward

__all__ = ["ScanOptions"]


@dataclasses.dataclass(frozen=True)
class ScanOptions:
    """How `Cell.scan` runs. What is an array (first carry, mask, resets, key) is an argument.

    Attributes:
        reverse: from the last step to the first.
        method: one step after another or in parallel, see `unroll`. For a backend, its own name.
        backward: how gradients are taken, see `unroll`.
        every_carry: return the carries after every step, leaves `[T, B, ...]`, not the last.
    """

    reverse: bool = False
    method: Method = "auto"
    backward: Backward = "auto"
    every_carry: bool = False
