"""The wheel in a fresh environment: what it holds, what it needs, and a run by its command."""

from __future__ import annotations

import email
import json
import os
import platform
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import longlag
from longlag.kernels.compiling import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
HARD = {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"}
MINE = """
import jax.numpy as jnp
import longlag as ll

print("longlag is", ll.__file__)

class Mine(ll.DenseCell):
    gates = ("keep", "new")

    def update(self, params, carry, z):
        keep = 1 / (1 + jnp.exp(-z[0]))
        h = keep * carry.h + (1 - keep) * jnp.tanh(z[1])
        return ll.Carry(h), h

class Odd(ll.Parity):
    base: int = 2
"""
OPTIONS = (
    *("--cell", "mine.py:Mine", "--task", "mine.py:Odd", "--task.max-length", "8", "--steps", "4"),
    *("--dispatch", "2", "--batch-size", "4", "--eval-size", "8", "--seeds", "1", "--width", "8"),
    *("--depth", "1", "--test-lags", "12", "--out", "run"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation, pip asks no index for hatchling: it is in the extra "dev".
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("longlag-*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, and the dependencies of this one.

    The checkout is not among them: what makes an editable install is a `.pth` file, which Python
    reads in the environment's own folder only.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "others.pth").write_text("\n".join(others))
    pip("--python", folder / "bin" / "python", "install", "--no-deps", wheel)
    return folder / "bin"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def in_folder(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables)


def test_the_wheel_holds_the_package_and_needs_six_others(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("longlag/")]
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        fields = email.message_from_bytes(archive.read(metadata))
        scripts = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    source = ROOT / "src"
    files = [path for path in (source / "longlag").rglob("*") if path.is_file()]
    tracked = {str(path.relative_to(source)) for path in files if path.suffix != ".pyc"}
    assert {*names} == tracked
    assert {"longlag/py.typed", "longlag/__init__.pyi", "longlag/report/page.html.jinja"} <= tracked
    needed = fields.get_all("Requires-Dist") or []
    hard = {re.split(r"[^\w-]", line)[0] for line in needed if "extra ==" not in line}
    assert hard == HARD
    assert "longlag = longlag.cli.commands:main" in scripts
    assert fields["Version"] == longlag.__version__


def test_a_cell_and_a_task_of_ones_own_train_by_the_command(fresh: Path, tmp_path: Path):
    (tmp_path / "mine.py").write_text(MINE)
    done = in_folder(tmp_path, fresh / "longlag", "compare", *OPTIONS)
    assert done.returncode == 0, done.stderr
    (imported,) = {line for line in done.stdout.splitlines() if line.startswith("longlag is ")}
    assert Path(imported.removeprefix("longlag is ")).is_relative_to(fresh.parent)
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [(row["task"], row["arm"], row["lag"]) for row in rows] == [
        ("odd", "Mine", 8),
        ("odd", "Mine", 12),
    ]
    assert "Mine on odd" in (tmp_path / "run" / "report.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "run"}


@pytest.mark.deep
def test_a_wheel_with_native_loops_needs_no_compiler(tmp_path: Path, monkeypatch):
    """It has a library for each instruction set, and takes another where one does not load."""
    monkeypatch.setenv("LONGLAG_WHEEL", "native")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    (path,) = tmp_path.glob("longlag-*.whl")
    assert path.stem.endswith(f"py3-none-linux_{platform.machine()}")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "installed")
    settings = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "longlag.kernels"]
    for variant in VARIANTS[platform.machine()]:
        library = tmp_path / "installed" / "longlag" / "kernels" / "built" / f"loop-{variant}.so"
        done = subprocess.run(
            command, capture_output=True, text=True, env=settings, cwd=tmp_path, check=True
        )
        assert done.stdout == "loops over time run by: native\n", done.stderr
        library.write_text("this is no library")
    done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=tmp_path)
    assert "found no C++ compiler" in done.stdout
    assert not [*(ROOT / "src").rglob("loop-*.so")]
