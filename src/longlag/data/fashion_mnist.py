"""Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28, in ten classes.

From the Debian package dataset-fashion-mnist; docs/data.md says how it comes here.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
from pathlib import Path

import numpy as np

from longlag.data.debian import Package

__all__ = ["CLASSES", "PACKAGE", "Images", "load"]

PACKAGE = Package(
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    size=30_900_652,
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    licence="Expat",
)
CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag"),
    "ankle boot",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Pictures with their classes.

    Attributes:
        train: `[60000, 28, 28]` uint8, 0 is background.
        train_labels: `[60000]` int32, an index into `CLASSES`.
        test: `[10000, 28, 28]` uint8, the standard test part.
        test_labels: `[10000]` int32.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


@functools.cache
def load(path: str | Path | None = None) -> Images:
    """Reads the data set, once per process.

    Args:
        path: the package file or a folder that it was unpacked into; None: the cache, or apt.

    Raises:
        ValueError, FileNotFoundError, DiskError: see `longlag.data.debian.Package.folder`.
    """
    root = PACKAGE.folder(path)
    files = sorted(root.rglob("train-images-idx3-ubyte.gz"))
    if not files:
        raise FileNotFoundError(f"{PACKAGE.name}: expected train-images-idx3-ubyte.gz in {root}")
    folder = files[0].parent
    images = [_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
    labels = [_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")]
    for pictures, classes, count in zip(images, labels, (60_000, 10_000)):
        if pictures.shape != (count, 28, 28) or classes.shape != (count,):
            raise ValueError(
                f"{folder}: expected {count:,} pictures of 28 x 28 and as many labels; got "
                f"{list(pictures.shape)} and {list(classes.shape)}"
            )
    return Images(images[0], labels[0].astype(np.int32), images[1], labels[1].astype(np.int32))


def _idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format: two zeros, the type, the number of axes, their sizes."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: expected an IDX file of bytes; it begins with {content[:4]!r}")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
