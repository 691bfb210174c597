"""Weight decay: which parameters it shrinks."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["by_name", "decay_mask", "describe"]

# What is multiplied with an input, a state or the one-hot vector of a token.
KERNELS = ("kernel", "embedding")


def by_name(params: Any, *others: str) -> Any:
    """Marks kernels and embeddings by their names, as weight decay should shrink them.

    It leaves out biases, scales (peepholes too), learned first states, and whatever sets a decay, a
    step or an eigenvalue: to shrink those is to prefer one memory over another. The authors' code
    does the same: Λ and Δ of S5, ν, θ and γ of LRU, A and D of Mamba, A and the biases of Gated
    DeltaNet, the recurrent scales and biases of IndRNN. Their B, an input kernel, is left out by
    default in the code of S5 and LRU, and is an option there; here it decays like any kernel.
    Tables of embeddings decay, also those of positions, as in BERT.

    Args:
        params: nested dicts of arrays or of their shapes.
        *others: further names of kernels.

    Returns:
        A tree like `params` of bools: whether the innermost key of a leaf is "kernel", "embedding"
        or one of `others`.
    """

    def decays(path: Any, _: Any) -> bool:
        keys = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        return bool(keys) and keys[-1] in (*KERNELS, *others)

    return jax.tree_util.tree_map_with_path(decays, params)


def decay_mask(model: Any, params: Any) -> Any:
    """What `model.decays` says of its parameters, checked.

    Args:
        model: a `longlag.Model`.
        params: its parameters or their shapes.

    Returns:
        A tree like `params` of bools.

    Raises:
        ValueError: it is another tree, or holds something else.
    """
    mask = model.decays(params)
    expected, structure = jax.tree.structure(params), jax.tree.structure(mask)
    if expected != structure:
        raise ValueError(
            f"decays: expected a tree of bools like the parameters, {expected}; got {structure}"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if not isinstance(leaf, bool):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"decays: expected a bool for {name}; got {leaf!r}")
    return mask


def describe(model: Any) -> dict[str, list[str]]:
    """The names of the parameters that weight decay shrinks, and of those that it leaves alone.

    Args:
        model: a `longlag.Model`.

    Returns:
        `decays` and `stays`: sorted, each name once for all layers, such as "recurrent.kernel".
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    names: dict[str, set[str]] = {"decays": set(), "stays": set()}
    for path, decays in jax.tree_util.tree_leaves_with_path(decay_mask(model, params)):
        keys = [str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        # The last two say what a parameter is; those before, and numbers, say in which layer.
        name = ".".join(key for key in keys[-2:] if not key.isdigit())
        names["decays" if decays else "stays"].add(name)
    return {kind: sorted(those) for kind, those in names.items()}
