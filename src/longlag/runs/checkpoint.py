"""Checkpoints: complete or absent, and verified before they are restored.

A checkpoint is a folder `step_00000123` of what orbax wrote, with a `manifest.json` that lists the
size and the SHA-256 of every file and the shape and dtype of every array. It is written aside
under `step_00000123.partial` and renamed when all of it is on the disk, so a process that dies at
any moment leaves the checkpoints before it as they were. A file that was damaged later is found by
the manifest, and `restore` goes back to the checkpoint before.

orbax's `CheckpointManager` (0.12.8) is not used, because it breaks two promises. One flipped bit in
the file of an array is restored as other numbers, without an error. And `save(15)` where a damaged
step 20 exists returns False and saves nothing, so a run could not go on before the damage. Both are
shown by `test_what_the_manager_of_orbax_does_not_promise` in tests/runs/test_checkpoint.py.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from longlag.system.atomic_files import sync_folder, write_file, writing

__all__ = ["CheckpointError", "Restored", "checkpoints", "restore", "save", "verify"]

MANIFEST = "manifest.json"
ARRAYS = "arrays"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or none is intact; the message names each damaged file."""


class Restored(NamedTuple):
    """The result of `restore`.

    Attributes:
        step: the step that the checkpoint was saved at.
        tree: the arrays, in the structure of `like`.
        skipped: one message per newer checkpoint that was damaged, newest first; the caller
            shows them.
    """

    step: int
    tree: Any
    skipped: tuple[str, ...]


def checkpoints(folder: Path) -> dict[int, Path]:
    """Returns the checkpoints of a folder by step, oldest first, intact or not."""
    paths = {}
    if folder.is_dir():
        for path in folder.iterdir():
            if match := re.fullmatch(r"step_(\d{8,})", path.name):
                paths[int(match[1])] = path
    return dict(sorted(paths.items()))


def save(folder: Path, step: int, tree: Any, *, keep: int = 2) -> Path:
    """Saves a tree of arrays as the checkpoint of `step`, then deletes old checkpoints.

    None is structure, not a leaf. float0 leaves and arrays of size zero have no values; they are
    not stored, and `restore` takes them from `like`.

    Args:
        folder: where the checkpoints of one run are; made if missing.
        step: number of steps done, zero or more. A checkpoint of this step is replaced.
        tree: a pytree of jax or numpy arrays.
        keep: how many intact checkpoints stay, this one included. Older ones are deleted once this
            one is complete.

    Returns:
        The folder of the checkpoint.

    Raises:
        ValueError: `step` is negative or `keep` is not positive; a leaf is not an array, is a typed
            PRNG key or is weakly typed; there is nothing to save.
        DiskError: the disk refused. Earlier checkpoints are as they were.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"expected step >= 0 and keep >= 1; got step={step}, keep={keep}")
    folder = folder.absolute()  # tensorstore refuses a relative path
    named = {name: leaf for name, leaf in _leaves(tree).items() if _has_values(leaf)}
    if not named:
        raise ValueError("expected a tree with at least one array to save; got none")
    # As numpy: a checkpoint then knows nothing of devices and is restored on any other.
    arrays = {name: np.asarray(leaf) for name, leaf in jax.device_get(named).items()}

    target = folder / f"step_{step:08d}"
    partial = target.with_suffix(".partial")
    with writing(f"the checkpoint of step {step}", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*folder.glob("step_*.partial"), *folder.glob("step_*.old")):
            shutil.rmtree(leftover)
        try:
            partial.mkdir()
            _reserve(partial, arrays)
            with _orbax() as orbax, _errors_of_tensorstore():
                orbax.save(partial / ARRAYS, args=ocp.args.PyTreeSave(arrays))
            _write_manifest(partial, step, arrays)
            old = _move_aside(target) if target.exists() else None
            try:
                partial.rename(target)
            except OSError:
                if old:
                    old.rename(target)
                raise
        except BaseException:
            # The space goes back to whoever filled the disk; a thread of orbax may still write.
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder)
        if old:
            shutil.rmtree(old)
        _delete_before(folder, step, keep)
    return target


def restore(folder: Path, like: Any) -> Restored:
    """Restores the newest intact checkpoint of a folder; changes nothing on the disk.

    Args:
        folder: where the checkpoints of one run are.
        like: a pytree of arrays or `jax.ShapeDtypeStruct` with the structure, shapes and dtypes
            that are expected. numpy leaves come back as numpy, all others as jax arrays, on the
            devices of `like` where it is committed to some.

    Returns:
        Step, tree and a message for each newer checkpoint that was damaged.

    Raises:
        CheckpointError: there is no checkpoint, or none is intact; names every damaged file.
        ValueError: the newest intact checkpoint has another structure, shape or dtype.
    """
    skipped: list[str] = []
    for step, path in reversed(checkpoints(folder).items()):
        try:
            manifest = verify(path)
        except CheckpointError as damage:
            skipped.append(str(damage))
            continue
        return Restored(step, _fill(like, path, manifest["arrays"]), tuple(skipped))
    if skipped:
        raise CheckpointError("no intact checkpoint is left:\n  " + "\n  ".join(skipped))
    raise CheckpointError(f"expected a checkpoint in {folder}; there is none yet")


def verify(path: Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its manifest and returns the manifest.

    A file that the manifest does not list is ignored: nothing ever reads it.

    Raises:
        CheckpointError: names the checkpoint and its first damaged file.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _digest(manifest):
            raise ValueError(MANIFEST)
        files, step = manifest["files"], manifest["step"]
        if path.name != f"step_{step:08d}":
            raise CheckpointError(f"damaged checkpoint {path}: {MANIFEST} is that of step {step}")
        for name, expected in files.items():
            file = path / name
            fingerprint = _fingerprint(file)
            if fingerprint["bytes"] != expected["bytes"]:
                raise CheckpointError(
                    f"damaged checkpoint {path}: {name}: expected {expected['bytes']} bytes; got "
                    f"{fingerprint['bytes']}"
                )
            if fingerprint != expected:
                raise CheckpointError(f"damaged checkpoint {path}: {name}: its checksum is wrong")
    except OSError as error:
        name = file.relative_to(path)
        raise CheckpointError(f"damaged checkpoint {path}: {name}: {error.strerror}") from error
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"damaged checkpoint {path}: {MANIFEST}: cut off, or not what was written"
        ) from error
    return manifest


def _leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their path, having refused what would not come back."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path) or "the tree"
        if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            raise ValueError(f"{name}: expected an array; got {type(leaf).__name__}")
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"{name}: expected an array; got a typed PRNG key. Derive keys from the seed and "
                "the step by jax.random.fold_in, or keep jax.random.key_data(key)"
            )
        if getattr(leaf, "weak_type", False):
            # It would come back strongly typed and promote other dtypes than before.
            raise ValueError(
                f"{name}: expected an array with a dtype of its own; got a weakly typed one. Make "
                "it with a dtype: jnp.asarray(value, dtype)"
            )
        leaves[name] = leaf
    return leaves


def _has_values(leaf: Any) -> bool:
    return leaf.dtype != jax.dtypes.float0 and 0 not in leaf.shape


def _describe(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": np.dtype(leaf.dtype).name}


def _fill(like: Any, path: Path, stored: dict[str, Any]) -> Any:
    """Reads the arrays of a verified checkpoint into the structure of `like`."""
    leaves = _leaves(like)
    expected = {name: _describe(leaf) for name, leaf in leaves.items() if _has_values(leaf)}
    if expected != stored:
        missing = {"shape": "nothing", "dtype": ""}
        wrong = [
            f"{name}: expected {_show(expected.get(name, missing))}; "
            f"got {_show(stored.get(name, missing))}"
            for name in sorted(expected.keys() | stored.keys())
            if expected.get(name) != stored.get(name)
        ]
        more = [f"and {len(wrong) - 8} more"] if len(wrong) > 8 else []
        raise ValueError(
            f"the checkpoint {path} holds another state:\n  " + "\n  ".join(wrong[:8] + more)
        )
    with _orbax() as orbax:
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in stored}
        wanted = ocp.args.PyTreeRestore(restore_args=as_numpy)
        arrays = orbax.restore((path / ARRAYS).absolute(), args=wanted)
    for name, leaf in leaves.items():
        arrays.setdefault(name, np.zeros(leaf.shape, leaf.dtype))  # one without values
    filled = [_place(arrays[name], leaf, name) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), filled)


def _show(array: dict[str, Any]) -> str:
    return f"{array['dtype']}{array['shape']}"


def _place(value: np.ndarray, leaf: Any, name: str) -> Any:
    if isinstance(leaf, np.ndarray | np.generic) or leaf.dtype == jax.dtypes.float0:
        return value
    # Committing an array that was not committed would compile the training step again.
    array = jax.device_put(value, leaf.sharding if getattr(leaf, "committed", False) else None)
    if array.dtype != value.dtype:
        raise ValueError(
            f"{name}: expected {value.dtype}; got {array.dtype}, because jax_enable_x64 is off"
        )
    return array


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """Yields orbax's synchronous checkpointer: 30 ms for 100 kB; the asynchronous one takes 40."""
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        # One process saves or restores for all, and orbax must not wait for the others.
        here = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process_{here}"
        )
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, multiprocessing_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=options) as orbax:
        yield orbax


@contextlib.contextmanager
def _errors_of_tensorstore() -> Iterator[None]:
    """Gives a full disk its `OSError` back: tensorstore reports one as a `ValueError`."""
    try:
        yield
    except Exception as error:
        if match := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1]))) from error
        raise


def _reserve(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises `OSError` if the disk has no room for `arrays`, before orbax finds out.

    On a full disk each of orbax's threads logs a traceback of its own, and some go on writing
    after the call has failed. This asks for the space first, so that there is one message.
    """
    count = sum(array.nbytes for array in arrays.values()) + 2**11 * len(arrays) + 2**18
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, count)
        except OSError as error:
            # Any other error says that this file system cannot reserve, not that it is full.
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise


def _fingerprint(file: Path, *, sync: bool = False) -> dict[str, Any]:
    with file.open("rb") as opened:
        if sync:
            os.fsync(opened.fileno())
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return {"bytes": opened.tell(), "sha256": digest}


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _write_manifest(folder: Path, step: int, arrays: dict[str, np.ndarray]) -> None:
    """Lists every file of a checkpoint, and waits until the disk has all of them."""
    inside = sorted(folder.rglob("*"))
    manifest = {
        "step": step,
        "arrays": {name: _describe(array) for name, array in arrays.items()},
        "files": {
            file.relative_to(folder).as_posix(): _fingerprint(file, sync=True)
            for file in inside
            if file.is_file()
        },
    }
    manifest["sha256"] = _digest(manifest)
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1))
    for path in (*inside, folder):
        if path.is_dir():
            sync_folder(path)


def _move_aside(path: Path) -> Path:
    """Renames a checkpoint first: one that is half deleted must not pass for a damaged one."""
    return path.rename(path.with_suffix(".old"))


def _delete_before(folder: Path, step: int, keep: int) -> None:
    """Keeps `step` and the `keep - 1` newest intact checkpoints before it.

    A damaged one does not count, or it would push out the one that a resume falls back to. A
    checkpoint of a later step stays: the run that goes on from `step` will replace it.
    """
    kept = 1
    for earlier, path in reversed(checkpoints(folder).items()):
        if earlier >= step:
            continue
        with contextlib.suppress(CheckpointError):
            if kept < keep and verify(path):
                kept += 1
                continue
        shutil.rmtree(_move_aside(path))
