"""The splits of a data set, the same everywhere: for training, for validation, for the test."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

__all__ = ["Splits", "share"]


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """Indices of the pairs of each split. No pair is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def share(key: str) -> float:
    """A number in [0, 1), the same for a string everywhere."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
