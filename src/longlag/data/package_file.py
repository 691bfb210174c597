"""One file of a package archive: found in the cache, or fetched, checked, and unpacked by Python.

Nothing is installed, and where there is no network the user may bring the file. What fetches and
what unpacks it is the subclass's: `longlag.data.debian`, `longlag.data.python_package`.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from longlag.system.atomic_files import writing

__all__ = ["PackageFile", "cache", "check_writable", "explain_write_errors"]


def cache() -> Path:
    """Where fetched data are kept: LONGLAG_DATA, or a folder of the user's cache."""
    named = os.environ.get("LONGLAG_DATA")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "longlag" / "data"


def explain_write_errors(there: Path) -> contextlib.AbstractContextManager[None]:
    """`atomic_files.writing` for a file of the cache: the message says what to do."""
    instead = "Set LONGLAG_DATA to a folder that can be written."
    return writing("the data", there, instead)


def check_writable(there: Path) -> None:
    """Checks that the cache can be written, before something is fetched or made for it.

    Args:
        there: what will be written.

    Raises:
        DiskError: it cannot.
    """
    with explain_write_errors(there):
        there.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=there.parent).close()


@dataclasses.dataclass(frozen=True)
class PackageFile(abc.ABC):
    """One version of a package, known by the size and checksum of its file.

    Attributes:
        name: of the package.
        version: whose size and checksum these are.
        size: of the file, in bytes.
        sha256: of the file.
        licence: of what is in it.
    """

    name: str
    version: str
    size: int
    sha256: str
    licence: str

    @property
    @abc.abstractmethod
    def file(self) -> str:
        """The usual name of the file."""

    @abc.abstractmethod
    def _download(self, work: Path) -> Path:
        """Fetches the file into a folder; `FileNotFoundError` says what to do where it cannot."""

    @abc.abstractmethod
    def _extract(self, content: bytes, folder: Path) -> None:
        """Unpacks the content of the file into an empty folder, and nothing outside it."""

    def folder(self, given: str | Path | None = None) -> Path:
        """The unpacked package.

        Args:
            given: the package file, or a folder that it was unpacked into, where it cannot be
                fetched. None: the cache; the file is fetched if the cache has neither it nor what
                is in it.

        Raises:
            ValueError: `given` is neither, or a file is not the one that is known.
            FileNotFoundError: it is not there, and cannot be fetched; the message says what to do.
            DiskError: the cache cannot be written.
        """
        if given is not None:
            path = Path(given)
            if path.is_dir():
                return path
            if path.is_file():
                return self._unpack(path, "Give the path of that one.")
            raise ValueError(
                f"{self.name}: expected the path of {self.file} or of a folder it was unpacked "
                f"into; got {path}"
            )
        if self._cached_folder.is_dir():
            return self._cached_folder
        brought = cache() / self.file
        if brought.is_file():
            return self._unpack(brought, f"Remove {brought} to have it fetched.")
        check_writable(self._cached_folder)
        with tempfile.TemporaryDirectory(prefix="longlag-") as work:
            fetched = self._download(Path(work))
            return self._unpack(fetched, f"Put {self.file} of that version into {cache()}.")

    @property
    def _cached_folder(self) -> Path:
        """The folder of the cache that it is unpacked into."""
        return cache() / f"{self.name}-{self.sha256[:12]}"

    def _unpack(self, file: Path, otherwise: str) -> Path:
        """Checks a package file and unpacks it into the cache, whole or not at all.

        Args:
            file: the package file.
            otherwise: what the user may do if it is not the one that is known.
        """
        content = file.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        if len(content) != self.size or checksum != self.sha256:
            raise ValueError(
                f"{self.name}: expected version {self.version}, {self.size:,} bytes with sha256 "
                f"{self.sha256}; got {file.name}, {len(content):,} bytes with {checksum}. "
                + otherwise
            )
        there = self._cached_folder
        if there.is_dir():
            return there
        with explain_write_errors(there):
            there.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{there.name}-", dir=there.parent))
            try:
                self._extract(content, aside)
                with contextlib.suppress(FileExistsError, OSError):
                    # Another process may have been quicker; what it put there is the same.
                    aside.rename(there)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        if not there.is_dir():
            raise FileNotFoundError(
                f"{self.name}: expected to unpack into {there}; nothing is there"
            )
        return there
