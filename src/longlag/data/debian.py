"""Files of Debian packages: fetched by apt, unpacked by Python. No root is needed."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from longlag.data.package_file import PackageFile, cache

__all__ = ["Package", "cache"]


class Package(PackageFile):
    """One version of a Debian package; the fields are those of `PackageFile`."""

    @property
    def file(self) -> str:
        """The usual name of the package file."""
        return f"{self.name}_{self.version}_all.deb"

    def _download(self, work: Path) -> Path:
        help_ = (
            f"{self.file} is not in {cache()}. Fetch it from a Debian mirror (package {self.name}) "
            "and put it there, or give its path, or that of the folder it was unpacked into "
            "(`dpkg -x`)"
        )
        if shutil.which("apt-get") is None:
            raise FileNotFoundError(f"{self.name}: there is no apt here, and {help_}")
        print(f"fetching {self.name} ({self.size / 1e6:.0f} MB) by apt-get", file=sys.stderr)
        done = subprocess.run(
            ["apt-get", "download", "-qq", self.name], cwd=work, capture_output=True, text=True
        )
        files = sorted(work.glob("*.deb"))
        if done.returncode or not files:
            lines = done.stderr.strip().splitlines()
            errors = [line for line in lines if line.startswith("E:")] or lines[-1:]
            error = " ".join(errors) or f"apt-get ended with {done.returncode}"
            raise FileNotFoundError(
                f"{self.name}: apt-get cannot download it ({error}). Perhaps its lists are empty: "
                f"`apt-get update`. Otherwise: {help_}"
            )
        return files[0]

    def _extract(self, content: bytes, folder: Path) -> None:
        for name, part in _members(content):
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=io.BytesIO(part)) as archive:
                    archive.extractall(folder, filter="data")


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
