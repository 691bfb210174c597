"""Parameters in a file of the safetensors format, which every framework reads."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors import SafetensorError, safe_open
from safetensors.flax import load_file, save_file

from longlag.cell import Params

__all__ = ["load_safetensors", "save_safetensors"]


def save_safetensors(path: str | Path, params: Params) -> None:
    """Writes a nested dict of arrays; the name of an array is its path, joined by dots.

    Raises:
        ValueError: an entry that is no dict and no array, or a name with a dot.
    """
    flat: dict[str, jax.Array] = {}

    def walk(tree: object, name: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                if not isinstance(key, str) or "." in key:
                    raise ValueError(f"params: expected names without a dot, got {key!r}")
                walk(value, f"{name}.{key}" if name else key)
        elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
            flat[name] = jnp.asarray(tree)
        else:
            raise ValueError(f"params: expected an array at {name!r}, got {type(tree).__name__}")

    walk(params, "")
    save_file(flat, str(path))


def load_safetensors(path: str | Path) -> Params:
    """Reads what `save_safetensors` wrote, or any file of arrays whose names are paths.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with safe_open(str(path), framework="flax"):
            pass
        flat = load_file(str(path))
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"expected a safetensors file at {path}; {error}") from error
    params: Params = {}
    for name, array in flat.items():
        *parents, last = name.split(".")
        at = params
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = array
    return params
