"""File writes that are complete or absent, with one clear message if the disk refuses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["DiskError", "sync_folder", "write_file", "writing"]


class DiskError(OSError):
    """An error of the file system. The message names what was written, where, and the reason."""


@contextlib.contextmanager
def writing(what: str, path: Path, instead: str = "") -> Iterator[None]:
    """Turns every `OSError` of its block into one `DiskError` with a clear message.

    Args:
        what: what is being written, for the message ("the metrics").
        path: where to.
        instead: a last sentence of the message: what the user may do.

    Raises:
        DiskError: the disk is full or read-only, a permission is missing, and so on.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot write {what} to {path}: {reason}. What was there before is untouched."
        disk_error = DiskError(f"{message} {instead}" if instead else message)
        disk_error.errno = error.errno
        raise disk_error from error


def write_file(path: Path, text: str) -> None:
    """Writes a new file and waits until the disk has it; an existing file is an `OSError`."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, text: str) -> None:
    """Replaces a file. The old one stays until the new one is complete."""
    aside = path.with_name(f"{path.name}.partial")
    aside.unlink(missing_ok=True)
    try:
        write_file(aside, text)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Waits until the disk has the names in a folder: a rename is durable only after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
