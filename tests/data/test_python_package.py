"""Files of the Python index: known by their checksum, unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from longlag.cli.arguments import plain_errors
from longlag.data import python_package
from longlag.data.python_package import Distribution


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("words/a.txt", "hello")
    return buffer.getvalue()


def sdist(name: str = "words-1.2/data/a.txt") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    return buffer.getvalue()


def known(content: bytes, file: str) -> Distribution:
    digest = hashlib.sha256(content).hexdigest()
    return Distribution("words", "1.2", len(content), digest, "none", file)


BINARY, SOURCE = wheel(), sdist()  # made once: an archive holds the time
WHEEL = known(BINARY, "words-1.2-py3-none-any.whl")
SDIST = known(SOURCE, "words-1.2.tar.gz")
FILES = [
    (WHEEL, BINARY, "words/a.txt", "--only-binary"),
    (SDIST, SOURCE, "words-1.2/data/a.txt", "--no-binary"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGLAG_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str = "") -> list[list[str]]:
    """In place of pip: leaves this as the file, or fails; returns what it is called with."""
    calls: list[list[str]] = []

    def run(command, **_):
        calls.append([*command])
        work = Path(command[command.index("--dest") + 1])
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        calls[-1].append(wanted)
        if content is not None:
            package = SDIST if "--no-binary" in command else WHEEL
            (work / package.file).write_bytes(content)
        return subprocess.CompletedProcess(command, int(content is None), "", said)

    monkeypatch.setattr(python_package.subprocess, "run", run)
    return calls


@pytest.mark.parametrize(("package", "content", "inside", "kind"), FILES)
def test_pip_fetches_one_file_of_a_known_checksum(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys, package, content, inside, kind
):
    calls = pip(monkeypatch, content)
    folder = package.folder()
    assert (folder / inside).read_text() == "hello" and [*cache.iterdir()] == [folder]
    ((*command, wanted),) = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[command.index(kind) + 1] == ":all:" and "--no-deps" in command
    assert (
        wanted == f"words==1.2 --hash=sha256:{package.sha256}\n" and "--require-hashes" in command
    )
    assert package.folder() == folder and len(calls) == 1, "once it is there, nothing is fetched"
    assert "fetching words" in capsys.readouterr().err


def test_a_file_may_be_brought(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = pip(monkeypatch, None)
    cache.mkdir()
    (cache / WHEEL.file).write_bytes(BINARY)
    assert (WHEEL.folder() / "words/a.txt").is_file() and not calls
    assert WHEEL.folder(cache / WHEEL.file) == WHEEL.folder()
    assert WHEEL.folder(tmp_path) == tmp_path
    with pytest.raises(ValueError, match=r"expected the path of words-1\.2-py3-none-any\.whl"):
        WHEEL.folder(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [BINARY[:-1], BINARY[:-1] + b"x"])
def test_a_file_that_is_another_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
):
    pip(monkeypatch, damage)
    with pytest.raises(ValueError, match=r"expected version 1\.2, .* got words-1\.2-py3"):
        WHEEL.folder()
    assert [*cache.iterdir()] == []
    with pytest.raises(ValueError, match=r"Put words-1.2-py3.* of that version into .*cache\."):
        WHEEL.folder()
    brought = cache / WHEEL.file
    brought.write_bytes(damage)
    with pytest.raises(ValueError, match=r"Remove .*none-any\.whl to have it fetched\."):
        WHEEL.folder()
    with pytest.raises(ValueError, match=r"Give the path of that one\."):
        WHEEL.folder(brought)
    assert [*cache.iterdir()] == [brought]


def test_without_a_network_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pip(monkeypatch, None, "WARNING: Retrying\nERROR: No matching distribution\nmore")
    with pytest.raises(SystemExit) as ended, plain_errors():
        WHEEL.folder()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "Retrying" not in said and "Traceback" not in said
    for words in ("ERROR: No matching distribution", "a network", "pip download", "put it"):
        assert words in said


@pytest.mark.parametrize("file", ["words-1.2-py3-none-any.whl", "words-1.2.tar.gz"])
@pytest.mark.parametrize("content", [BINARY[:-9], SOURCE[:30]], ids=["zip", "gz"])
def test_what_is_no_archive_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes
):
    pip(monkeypatch, content)
    with pytest.raises(ValueError, match=f"expected {file} to be an archive"):
        known(content, file).folder()
    assert [*cache.iterdir()] == []


def test_no_file_leaves_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = sdist("../../outside")
    pip(monkeypatch, content)
    with pytest.raises(ValueError, match="outside"):
        known(content, "words-1.2.tar.gz").folder()
    assert not (tmp_path / "outside").exists()


def test_a_cache_that_cannot_be_written_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch):
    calls = pip(monkeypatch, BINARY)
    cache.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write the data to .*cache.* Set LONGLAG_DATA to"):
        WHEEL.folder()
    assert not calls, "nothing is fetched that cannot be kept"
