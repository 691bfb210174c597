"""Files of Debian packages: found in the cache, or fetched by apt, checked, and unpacked by Python.

Nothing is installed, no root is needed, and where there is no apt the user may bring the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from longlag.disk import writing

__all__ = ["Package", "cache"]


def cache() -> Path:
    """Where fetched data are kept: LONGLAG_DATA, or a folder of the user's cache."""
    named = os.environ.get("LONGLAG_DATA")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "longlag" / "data"


@dataclasses.dataclass(frozen=True)
class Package:
    """One version of a Debian package, known by its size and checksum.

    Attributes:
        name: of the package.
        version: whose size and checksum these are.
        size: of the package file, in bytes.
        sha256: of the package file.
        licence: of what is in it, as Debian names it.
    """

    name: str
    version: str
    size: int
    sha256: str
    licence: str

    def folder(self, given: str | Path | None = None) -> Path:
        """The unpacked package.

        Args:
            given: a package file, or a folder that it was unpacked into, where there is no apt.
                None: the cache, and apt if it is not there yet.

        Raises:
            ValueError: `given` is neither, or a file is not the one that is known.
            FileNotFoundError: it is not there, and apt cannot fetch it; the message says what to
                do.
            DiskError: the cache cannot be written.
        """
        if given is not None:
            path = Path(given)
            if path.is_dir():
                return path
            if path.is_file():
                return self._unpacked(path)
            raise ValueError(
                f"{self.name}: expected the path of {self.file} or of a folder it was unpacked "
                f"into; got {path}"
            )
        there = cache() / f"{self.name}-{self.sha256[:12]}"
        if there.is_dir():
            return there
        with tempfile.TemporaryDirectory(prefix="longlag-") as work:
            return self._unpacked(self._download(Path(work)))

    @property
    def file(self) -> str:
        """The usual name of the package file."""
        return f"{self.name}_{self.version}_all.deb"

    def _download(self, work: Path) -> Path:
        help_ = (
            f"{self.file} is not in {cache()}. Fetch it from a Debian mirror (package {self.name}) "
            "and give its path, or that of the folder it was unpacked into (`dpkg -x`)"
        )
        if shutil.which("apt-get") is None:
            raise FileNotFoundError(f"{self.name}: there is no apt here, and {help_}")
        print(f"fetching {self.name} ({self.size / 1e6:.0f} MB) by apt-get", file=sys.stderr)
        done = subprocess.run(
            ["apt-get", "download", "-qq", self.name], cwd=work, capture_output=True, text=True
        )
        found = sorted(work.glob("*.deb"))
        if done.returncode or not found:
            said = done.stderr.strip() or f"apt-get ended with {done.returncode}"
            raise FileNotFoundError(
                f"{self.name}: apt-get cannot download it ({said}). Perhaps its lists are empty: "
                f"`apt-get update`. Otherwise: {help_}"
            )
        return found[0]

    def _unpacked(self, file: Path) -> Path:
        """Checks a package file and unpacks it into the cache, whole or not at all."""
        content = file.read_bytes()
        got = hashlib.sha256(content).hexdigest()
        if len(content) != self.size or got != self.sha256:
            raise ValueError(
                f"{self.name}: expected version {self.version}, {self.size:,} bytes with sha256 "
                f"{self.sha256}; got {file.name}, {len(content):,} bytes with {got}"
            )
        there = cache() / f"{self.name}-{self.sha256[:12]}"
        if there.is_dir():
            return there
        with writing("the data", there):
            there.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{there.name}-", dir=there.parent))
            try:
                for name, part in _members(content):
                    if name.startswith("data.tar"):
                        with tarfile.open(fileobj=io.BytesIO(part)) as archive:
                            archive.extractall(aside, filter="data")
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


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an ar archive, which a package file is."""
    if not content.startswith(b"!<arch>\n"):
        raise ValueError("expected a Debian package file, which begins with !<arch>")
    at = 8
    while at + 60 <= len(content):
        name = content[at : at + 16].decode().strip().rstrip("/")
        size = int(content[at + 48 : at + 58])
        yield name, content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
