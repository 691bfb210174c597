"""The plan of the house: which room may import which, how long a file may be, what is promised."""

from __future__ import annotations

import ast
import difflib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import longlag
from tests.helpers import stubs

SOURCE = Path(longlag.__path__[0])
# A room may import from itself and from the floors above it in this list.
FLOORS = (
    ("kernels",),
    ("core", "system"),
    ("cells", "nn", "data", "report"),
    ("attention", "tasks", "interop"),
    ("models", "testing"),
    ("training",),
    ("runs",),
    ("analysis",),
    ("cli", "contrib"),  # so that nothing builds on what is in contrib
)
LONGEST, LONGEST_CONTRACT = 400, 200


def imported_rooms(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "longlag":
                yield rest[0] if rest else "longlag"
            elif top in ("experiments", "benchmarks", "tests"):
                yield top


@pytest.mark.parametrize("room", list(itertools.chain(*FLOORS)))
def test_imports_go_to_lower_floors_only(room):
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    allowed = {room, *itertools.chain(*FLOORS[:floor])}
    wrong = {
        f"{file.relative_to(SOURCE)} imports {name}"
        for file in (SOURCE / room).rglob("*.py")
        for name in imported_rooms(file)
        if name not in allowed
    }
    assert not wrong


def test_every_room_has_a_floor():
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert rooms == {*itertools.chain(*FLOORS)}
    assert {path.name for path in SOURCE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_file_is_past_400_lines():
    files = {
        str(path): len(path.read_text(encoding="utf-8").splitlines())
        for folder in (SOURCE, Path("experiments"), Path("benchmarks"))
        for path in folder.rglob("*.py")
    }
    assert {name: n for name, n in files.items() if n > LONGEST} == {}
    assert files[str(SOURCE / "core" / "cell.py")] < LONGEST_CONTRACT


# Locals name what they hold. These words hide it.
HIDING = {"found", "said", "asked", "told", "lost"}


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and the name of everything that a module binds.

    A stored name is an assignment, or the target of a loop, of `with`, of a comprehension or of a
    walrus. The others are arguments, exceptions and patterns.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store(), lineno=line):
                yield line, name
            case ast.arg(arg=name, lineno=line):
                yield line, name
            case (
                ast.ExceptHandler(name=str(name), lineno=line)
                | ast.MatchAs(name=str(name), lineno=line)
                | ast.MatchStar(name=str(name), lineno=line)
            ):
                yield line, name


def test_no_name_hides_what_it_holds():
    hiding = [
        f"{path}:{line} {name}"
        for folder in (SOURCE, Path("experiments"), Path("benchmarks"))
        for path in sorted(folder.rglob("*.py"))
        for line, name in bindings(ast.parse(path.read_text(encoding="utf-8")))
        if name.lower() in HIDING
    ]
    assert not hiding


def test_no_module_has_the_name_of_its_function_or_nearly_that_of_its_neighbour():
    for room in itertools.chain(*FLOORS):
        for folder in {path.parent for path in (SOURCE / room).rglob("*.py")}:
            files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
            for path in files:
                tree = ast.parse(path.read_text(encoding="utf-8"))
                functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
                assert path.stem not in functions, f"{path} has a function of its own name"
            for one, other in itertools.combinations([path.stem for path in files], 2):
                matcher = difflib.SequenceMatcher(None, one, other)
                same = sum(block.size for block in matcher.get_matching_blocks())
                assert max(len(one), len(other)) - same > 1 or room in ("cells", "tasks"), (
                    one,
                    other,
                )


@pytest.mark.parametrize("package", stubs.PACKAGES)
def test_stubs_name_what_is_exported(package):
    fresh = stubs.text_of(package)
    if stubs.path_of(package).read_text(encoding="utf-8") != fresh:
        stubs.path_of(package).write_text(fresh, encoding="utf-8")
        pytest.fail(f"{stubs.path_of(package)} was old. It has been written anew: commit it.")


def test_what_is_promised_is_there_once_and_in_a_group():
    assert len(set(longlag.__all__)) == len(longlag.__all__)
    for name in longlag.__all__:
        assert getattr(longlag, name) is not None
    with pytest.raises(AttributeError, match=r"no attribute 'Paritty'\. Did you mean 'Parity'"):
        _ = longlag.Paritty
    assert longlag.__version__


LIGHT = """
import sys
import jax, flax.struct
before = {*sys.modules}
import longlag
cell = longlag.GRU(8)
longlag.unroll, longlag.DotProduct, longlag.build
new = {name.partition(".")[0] for name in {*sys.modules} - before}
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("longlag.")}
print(sorted(new & {"orbax", "optax", "matplotlib", "jinja2", "tyro", "safetensors", "jaxtyping"}))
print(sorted(rooms & {"tasks", "data", "training", "runs", "report", "cli"}))
print(sorted({*sys.modules} & {"scipy.stats", "sklearn"}))
"""


def test_a_cell_and_a_model_cost_neither_orbax_nor_tasks():
    """Without `-m tests.helpers.stubs` the editor knows the names; Python imports them late."""
    output = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines() == ["[]", "[]", "[]"]
