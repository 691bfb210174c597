"""Debian packages: checked before they are believed, unpacked whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from longlag.data import debian
from longlag.data.debian import Package


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian package file with these in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    made = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", buffer.getvalue())):
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        made += head.encode() + content + b"\n" * (len(content) % 2)
    return made


CONTENT = deb({"./usr/share/a.txt": b"hello", "./usr/odd": b"abc"})
PACKAGE = Package("words", "1-2", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "none")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGLAG_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / PACKAGE.file
    path.write_bytes(CONTENT)
    return path


def test_a_package_file_is_unpacked_into_the_cache(cache: Path, file: Path):
    folder = PACKAGE.folder(file)
    assert folder.parent == cache and (folder / "usr/share/a.txt").read_bytes() == b"hello"
    assert (folder / "usr/odd").read_bytes() == b"abc"
    file.unlink()
    assert PACKAGE.folder() == folder, "once it is there, nothing is fetched"
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_an_unpacked_folder_is_taken_as_it_is(tmp_path: Path):
    assert PACKAGE.folder(tmp_path) == tmp_path


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"x", b"not a package"])
def test_a_file_that_is_another_is_refused(cache: Path, file: Path, damage: bytes):
    file.write_bytes(damage)
    with pytest.raises(ValueError, match=r"expected version 1-2, .* got words_1-2_all.deb"):
        PACKAGE.folder(file)
    assert not cache.exists()


def test_what_is_no_package_file_is_refused(cache: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected the path of words_1-2_all\.deb"):
        PACKAGE.folder(tmp_path / "nowhere")
    text = tmp_path / "text.deb"
    text.write_bytes(b"text")
    known = dataclasses.replace(PACKAGE, size=4, sha256=hashlib.sha256(b"text").hexdigest())
    with pytest.raises(ValueError, match="begins with !<arch>"):
        known.folder(text)
    assert not any(path.name.startswith("words") for path in cache.iterdir())


def test_no_file_leaves_its_folder(cache: Path, tmp_path: Path):
    content = deb({"../../outside": b"x"})
    path = tmp_path / "evil.deb"
    path.write_bytes(content)
    known = Package("evil", "1", len(content), hashlib.sha256(content).hexdigest(), "none")
    with pytest.raises(tarfile.OutsideDestinationError):
        known.folder(path)
    assert not (tmp_path / "outside").exists() and [*cache.iterdir()] == []


def test_apt_fetches_it(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def run(command, cwd, **_):
        assert command == ["apt-get", "download", "-qq", "words"]
        (cwd / PACKAGE.file).write_bytes(CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(debian.subprocess, "run", run)
    assert (PACKAGE.folder() / "usr/odd").is_file()
    assert "fetching words" in capsys.readouterr().err


def test_what_to_do_without_apt_or_its_lists(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no apt here.*words_1-2_all.deb.*dpkg -x"):
        PACKAGE.folder()
    said = "W: unsandboxed as root\nE: Unable to locate package words\n"
    failed = subprocess.CompletedProcess([], 100, "", said)
    monkeypatch.setattr(debian.shutil, "which", lambda name: "there")
    monkeypatch.setattr(debian.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(FileNotFoundError, match=r"\(E: Unable to locate.*apt-get update"):
        PACKAGE.folder()


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("LONGLAG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert debian.cache() == tmp_path / "longlag" / "data"
