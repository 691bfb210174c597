"""Parameters in a file of the safetensors format, which every framework reads."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.core import Tracer

from longlag.core.ops import Params
from longlag.system.optional_packages import needed_for

__all__ = ["load_safetensors", "save_safetensors"]

# Where the metadata of a file name the dicts that hold nothing, such as those of a `Dropout`.
EMPTY = "longlag.empty"


def _package() -> AbstractContextManager[None]:
    return needed_for("safetensors files", "experiments")


def save_safetensors(path: str | Path, params: Params) -> None:
    """Writes a nested dict of arrays; the name of an array is its path, joined by dots.

    Raises:
        ImportError: the package safetensors is not installed.
        ValueError: an entry that is no dict and no array of numbers, a name with a dot, or nothing
            to write.
    """
    with _package():
        from safetensors.flax import save_file
    flat: dict[str, jax.Array] = {}
    empty: list[str] = []

    def walk(tree: object, name: str) -> None:
        if isinstance(tree, dict):
            if not tree:
                empty.append(name)
            for key, value in tree.items():
                if not isinstance(key, str) or "." in key:
                    raise ValueError(f"params: expected names without a dot, got {key!r}")
                walk(value, f"{name}.{key}" if name else key)
        elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
            if isinstance(tree, Tracer) or jnp.issubdtype(
                jnp.result_type(tree), jax.dtypes.extended
            ):
                raise ValueError(f"params: expected an array of numbers at {name!r}, got {tree}")
            flat[name] = jnp.asarray(tree)
        else:
            raise ValueError(f"params: expected an array at {name!r}, got {type(tree).__name__}")

    walk(params, "")
    if not flat:
        raise ValueError("params: expected at least one array, got none")
    save_file(flat, str(path), metadata={EMPTY: json.dumps(empty)} if empty else None)


def load_safetensors(path: str | Path) -> Params:
    """Reads what `save_safetensors` wrote, or any file of arrays whose names are paths.

    Raises:
        ImportError: the package safetensors is not installed.
        ValueError: it is no such file, there is no array in it, or one name is a part of another.
    """
    with _package():
        from safetensors import SafetensorError, safe_open
        from safetensors.flax import load_file
    try:
        with safe_open(str(path), framework="flax") as file:
            empty = json.loads((file.metadata() or {}).get(EMPTY, "[]"))
        flat = load_file(str(path))
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"expected a safetensors file at {path}; {error}") from error
    params: Params = {}
    if not flat:
        raise ValueError(f"expected a safetensors file with an array in it at {path}; got none")
    for name, array in (*flat.items(), *((name, {}) for name in empty)):
        *parents, last = name.split(".")
        at = params
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(
                    f"{path}: expected names that are paths, got {name!r} beside {parent!r}, which "
                    "is an array"
                )
        if last in at:
            raise ValueError(f"{path}: expected names that are paths, got {name!r} and more in it")
        at[last] = array
    return params
