from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from longlag.runs import CheckpointError, checkpoint, checkpoints, restore, save
from longlag.system.atomic_files import DiskError
from tests.helpers.small_disk import contents, fill, make_read_only, small_disk


class Carry(NamedTuple):
    h: Any
    c: Any


def make_tree(step: int) -> dict[str, Any]:
    """A state of every kind: nested, named, bfloat16, counters, flags, None, no values at all."""
    return {
        "params": {"cell": {"kernel": jnp.full((3, 4), step, jnp.float32)}, "a/b.c": jnp.ones(2)},
        "carry": Carry(jnp.full((2,), 0.1, jnp.bfloat16), None),
        "done": (jnp.array([True, False]), None),
        "step": jnp.asarray(step, jnp.int32),
        "host": np.asarray(1 / 3, np.float64),
        "empty": jnp.zeros((0, 3)),
        "integer_gradient": np.zeros((2,), jax.dtypes.float0),
    }


def assert_equal(got: Any, expected: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_tree_comes_back_exactly(tmp_path: Path):
    tree = make_tree(7)
    assert save(tmp_path / "new" / "folder", 7, tree) == tmp_path / "new/folder/step_00000007"
    restored = restore(tmp_path / "new" / "folder", make_tree(0))
    assert (restored.step, restored.skipped) == (7, ())
    assert_equal(restored.tree, tree)


def test_like_may_be_shapes(tmp_path: Path):
    tree = {"kernel": jnp.ones((3, 4)), "count": jnp.zeros((), jnp.int32)}
    save(tmp_path, 1, tree)
    assert_equal(restore(tmp_path, jax.eval_shape(lambda: tree)).tree, tree)


def test_float64_needs_x64_and_comes_back_under_it(tmp_path: Path):
    with jax.enable_x64(True):
        tree = {"kernel": jnp.full((2,), 1 / 3, jnp.float64)}
        save(tmp_path, 1, tree)
        assert_equal(restore(tmp_path, tree).tree, tree)
    like = {"kernel": jax.ShapeDtypeStruct((2,), np.float64)}
    with pytest.raises(ValueError, match=r"expected float64; got float32.*x64"):
        restore(tmp_path, like)


def test_the_newest_two_stay(tmp_path: Path):
    for step in (1, 2, 10):
        save(tmp_path, step, make_tree(step))
    assert list(checkpoints(tmp_path)) == [2, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000002", "step_00000010"]
    save(tmp_path, 11, make_tree(11), keep=1)
    assert list(checkpoints(tmp_path)) == [11]


def test_a_step_that_exists_is_replaced(tmp_path: Path):
    save(tmp_path, 5, make_tree(5))
    save(tmp_path, 5, make_tree(6))
    assert_equal(restore(tmp_path, make_tree(0)).tree, make_tree(6))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


def test_a_step_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 5, make_tree(5))
    before, rename = contents(tmp_path), os.rename

    def refuse(source: Any, target: Any) -> None:
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(DiskError, match="Input/output error"):
        save(tmp_path, 5, make_tree(6))
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    save(folder, 1, make_tree(1))
    save(folder, 2, make_tree(2))
    return folder


def test_each_file_cut_in_half_is_named_and_the_checkpoint_before_is_used(
    two: Path, tmp_path: Path
):
    names = list(contents(two / "step_00000002"))
    assert "manifest.json" in names and len(names) > 5
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        file = folder / "step_00000002" / name
        assert file.stat().st_size > 0  # or a cut in half would be no damage
        size = file.stat().st_size
        os.truncate(file, size // 2)
        before = contents(folder)
        restored = restore(folder, make_tree(0))
        assert restored.step == 1
        assert_equal(restored.tree, make_tree(1))
        (message,) = restored.skipped
        why = "cut off" if name == "manifest.json" else f"expected {size} bytes; got {size // 2}"
        assert f"step_00000002: {name}: {why}" in message
        assert contents(folder) == before


@pytest.mark.parametrize("harm", ["flipped", "missing", "empty manifest", "other step", "a shape"])
def test_other_damage_is_found(two: Path, tmp_path: Path, harm: str):
    folder = tmp_path / "copy"
    shutil.copytree(two, folder)
    newest = folder / "step_00000002"
    manifest = newest / "manifest.json"
    files = [path for path in (newest / "arrays").rglob("*") if path.is_file()]
    file = max(files, key=lambda path: path.stat().st_size)
    if harm == "flipped":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif harm == "missing":
        file.unlink()
    elif harm == "empty manifest":
        manifest.write_text("{}")
    elif harm == "other step":
        newest.rename(folder / "step_00000003")
    else:
        manifest.write_text(manifest.read_text().replace("float32", "float16"))
    restored = restore(folder, make_tree(0))
    assert restored.step == 1 and len(restored.skipped) == 1


def test_what_the_manager_of_orbax_does_not_promise(tmp_path: Path):
    """Once this fails, `CheckpointManager` may do, and most of `checkpoint` may go."""
    x = jax.random.normal(jax.random.key(0), (2000,))  # no pattern that a compression would see
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(20, args=ocp.args.StandardSave({"x": x}))
        file = max(tmp_path.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        other = manager.restore(20, args=ocp.args.StandardRestore({"x": x}))["x"]
        assert other.shape == x.shape and (other != x).any(), "damage is not noticed"
        assert not manager.save(15, args=ocp.args.StandardSave({"x": x})), "nothing is saved"
        assert manager.all_steps() == [20]


def test_what_does_not_belong_is_ignored_and_cleaned(two: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(two, folder)
    shutil.copytree(folder / "step_00000002", folder / "step_00000003.partial")
    (folder / "step_00000002" / "notes.txt").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    restored = restore(folder, make_tree(0))
    assert (restored.step, restored.skipped) == (2, ())
    save(folder, 3, make_tree(3))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["notes.txt", "step_00000002", "step_00000003"]


def test_none_intact_names_all(two: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(two, folder)
    for path in checkpoints(folder).values():
        os.truncate(path / "manifest.json", 10)
    with pytest.raises(CheckpointError, match=r"(?s)00002: manifest\.json.*00001: manifest\.json"):
        restore(folder, make_tree(0))
    with pytest.raises(CheckpointError, match="there is none yet"):
        restore(tmp_path / "nowhere", make_tree(0))


def test_a_damaged_checkpoint_does_not_push_out_an_intact_one(tmp_path: Path):
    for step in (1, 2):
        save(tmp_path, step, make_tree(step))
    os.truncate(tmp_path / "step_00000002" / "manifest.json", 10)
    save(tmp_path, 3, make_tree(3))
    assert list(checkpoints(tmp_path)) == [1, 3]


def test_going_on_before_a_damaged_checkpoint(tmp_path: Path):
    for step in (10, 20):
        save(tmp_path, step, make_tree(step))
    os.truncate(tmp_path / "step_00000020" / "manifest.json", 10)
    save(tmp_path, 15, make_tree(15))
    assert restore(tmp_path, make_tree(0)).step == 15
    save(tmp_path, 20, make_tree(20))
    restored = restore(tmp_path, make_tree(0))
    assert (restored.step, restored.skipped) == (20, ())


def test_later_checkpoints_do_not_push_out_earlier_ones(tmp_path: Path):
    for step in (10, 20, 15):
        save(tmp_path, step, make_tree(step))
    assert list(checkpoints(tmp_path)) == [10, 15, 20]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.ones((2, 4))}, r"\['a'\]: expected float32\[2, 4\]; got float32\[2, 3\]"),
        (
            {"a": jnp.ones((2, 3), jnp.bfloat16)},
            r"\['a'\]: expected bfloat16\[2, 3\]; got float32\[2, 3\]",
        ),
        (
            {"a": jnp.ones((2, 3)), "b": jnp.ones(1)},
            r"\['b'\]: expected float32\[1\]; got nothing",
        ),
        ({"b": None}, r"\['a'\]: expected nothing; got float32\[2, 3\]"),
    ],
)
def test_another_state_is_refused(tmp_path: Path, like: Any, message: str):
    save(tmp_path, 1, {"a": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match=message) as caught:
        restore(tmp_path, like)
    assert not isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jax.random.key(0), r"\['x'\].*typed PRNG key.*key_data"),
        (1.0, r"\['x'\]: expected an array; got float"),
        (jnp.asarray(1.0), r"\['x'\].*weakly typed"),
        (None, "at least one array"),
    ],
)
def test_what_would_not_come_back_is_refused(tmp_path: Path, leaf: Any, message: str):
    with pytest.raises(ValueError, match=message):
        save(tmp_path, 1, {"x": leaf})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, step: int, keep: int):
    with pytest.raises(ValueError, match="expected step >= 0 and keep >= 1"):
        save(tmp_path, step, make_tree(0), keep=keep)


class Died(BaseException):
    pass


@pytest.mark.parametrize(("step", "left"), [(3, {2, 3}), (2, {1, 2})])
def test_a_process_that_dies_at_any_moment_leaves_an_intact_checkpoint(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, left: set[int]
):
    """Dies before each call that changes the disk, in turn; a dead process changes nothing more.

    A call is known by its name, its arguments and how often it has come, not by its number: orbax
    makes more or fewer of them, and the garbage collector deletes what other tests left.
    """

    def save_and_die(folder: Path, before: Any) -> list[Any]:
        calls: list[Any] = []
        dead = False

        def mortal(name: str, function: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal dead
                if threading.current_thread() is threading.main_thread():
                    named = [arg for arg in args if not isinstance(arg, int)]
                    what = (name, *(str(arg).replace(str(folder), "") for arg in named))
                    calls.append((*what, sum(what == made[:-1] for made in calls)))
                    dead |= calls[-1] == before
                    if dead:
                        raise Died
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", mortal("fsync", lambda _: None))  # as before, but quick
            for owner, name in ((os, "rename"), (os, "mkdir"), (os, "unlink"), (shutil, "rmtree")):
                patch.setattr(owner, name, mortal(name, getattr(owner, name)))
            with contextlib.suppress(Died):
                save(folder, step, make_tree(step))
        return calls

    def copied(name: str) -> Path:
        return Path(shutil.copytree(two, tmp_path / name))

    calls = save_and_die(copied("whole"), None)
    assert len(calls) > 10
    found = set()
    for i, last in enumerate(calls):
        folder = copied(str(i))
        save_and_die(folder, last)
        restored = restore(folder, make_tree(0))
        assert restored.skipped == ()
        assert_equal(restored.tree, make_tree(restored.step))
        found.add(restored.step)
        save(folder, 4, make_tree(4))
        assert list(checkpoints(folder)) == [restored.step, 4]
        assert len(list(folder.iterdir())) == 2
    assert found == left


KILLED = """
import sys, pathlib, jax.numpy as jnp
from longlag.runs.checkpoint import save
for step in range(1, 10_000):
    save(pathlib.Path(sys.argv[1]), step, {"x": jnp.full((2000,), step, jnp.float32)})
    print(step, flush=True)
"""


def test_kill_9_while_saving(tmp_path: Path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        saved = [int(process.stdout.readline()) for _ in range(3)]
        time.sleep(0.02)  # into the next one
        process.kill()
        saved += map(int, process.stdout.read().split())
    restored = restore(tmp_path, {"x": jax.ShapeDtypeStruct((2000,), np.float32)})
    assert restored.step in (saved[-1], saved[-1] + 1) and restored.skipped == ()
    assert_equal(restored.tree, {"x": jnp.full((2000,), restored.step, jnp.float32)})


@pytest.mark.parametrize("free", [0, 2**15])
def test_a_full_disk_says_so_once_and_leaves_the_checkpoints(
    tmp_path: Path, free: int, capfd: Any, caplog: Any
):
    with small_disk(tmp_path / "disk", "2m") as disk:
        save(disk / "run", 1, make_tree(1))
        before = contents(disk / "run")
        fill(disk, free)
        with pytest.raises(DiskError, match=r"the checkpoint of step 2 to .*disk/run: No space"):
            save(disk / "run", 2, make_tree(2))
        assert capfd.readouterr() == ("", "") and not caplog.records
        assert contents(disk / "run") == before
        (disk / "filler").unlink()
        save(disk / "run", 2, make_tree(2))
        assert_equal(restore(disk / "run", make_tree(0)).tree, make_tree(2))


def test_a_disk_that_fills_up_while_orbax_writes(tmp_path: Path, monkeypatch: Any, capfd: Any):
    with small_disk(tmp_path / "disk", "300k") as disk:
        save(disk / "run", 1, {"x": jnp.ones(3)})
        before = contents(disk / "run")
        big = {"x": jax.random.normal(jax.random.key(0), (200_000,))}
        monkeypatch.setattr(checkpoint, "_reserve", lambda *_: None)
        with pytest.raises(DiskError, match="No space left"):
            save(disk / "run", 2, big)
        assert contents(disk / "run") == before
        capfd.readouterr()  # the tracebacks of orbax's threads, which _reserve is there to avoid


def test_a_read_only_disk_says_so_and_can_be_restored_from(tmp_path: Path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        save(disk / "run", 1, make_tree(1))
        make_read_only(disk)
        with pytest.raises(DiskError, match=r"the checkpoint of step 2 .*Read-only file system"):
            save(disk / "run", 2, make_tree(2))
        assert_equal(restore(disk / "run", make_tree(0)).tree, make_tree(1))


def test_a_file_in_the_way_is_a_disk_error(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DiskError, match=r"to .*file/run: Not a directory"):
        save(tmp_path / "file" / "run", 1, make_tree(1))


def test_no_thread_is_left_behind(tmp_path: Path):
    save(tmp_path, 1, make_tree(1))
    restore(tmp_path, make_tree(0))
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [thread.name for thread in threading.enumerate() if not thread.daemon] == ["MainThread"]
