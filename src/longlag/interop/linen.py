"""flax linen: `SimpleCell`, `LSTMCell` and `OptimizedLSTMCell`, `GRUCell`, and cells inside cells.

flax has a kernel for every gate; the bias of an LSTM is at its recurrent kernels. A `SimpleCell`
has the activation that its `activation_fn` says. flax's `MGUCell` is not our `MGU` but a GRU whose
gates r and z are one: its weights come in as those of a `GRU`, twice, and cannot go back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.interop.shared import (
    Weights,
    check_fit,
    check_params,
    join_gates,
    kind_of,
    length_of,
    make_params,
    shapes_of,
    split_gates,
    weights_of,
)

__all__ = ["LinenCell", "OfLinen", "from_linen", "to_linen"]


def to_linen(cell: Cell, params: Params) -> dict[str, Any]:
    """The `params` of the flax cell, for `linen_cell.apply({"params": ...})`.

    Raises:
        ValueError: a cell that flax has not, or parameters that are not the cell's.
    """
    kind = kind_of(cell, "flax linen", "after", activation=None)
    check_params(cell, params)
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    if kind == "elman":
        return {"i": {"kernel": W, "bias": b}, "h": {"kernel": U}}
    if kind == "lstm":
        inputs = {f"i{g}": {"kernel": w} for g, w in zip("ifgo", split_gates(W, 4))}
        both = zip("ifgo", split_gates(U, 4), split_gates(b, 4))
        return inputs | {f"h{g}": {"kernel": u, "bias": v} for g, u, v in both}
    inputs = {
        f"i{g}": {"kernel": w, "bias": v}
        for g, w, v in zip("rzn", split_gates(W, 3), split_gates(b, 3))
    }
    states: dict[str, Any] = {f"h{g}": {"kernel": u} for g, u in zip("rzn", split_gates(U, 3))}
    states["hn"]["bias"] = params["recurrent"]["bias"]
    return inputs | states


def from_linen(cell: Cell, theirs: Mapping[str, Any], *, prefix: str | None = None) -> Params:
    """The longlag parameters from the `params` of the flax cell; a GRU's from an `MGUCell` too.

    Args:
        cell: an Elman, LSTM or GRU(reset="after").
        theirs: the parameters, or the variables of a whole model that has the cell.
        prefix: the path of the cell in a model ("params/LSTMCell_0"); None: the only one there.

    Raises:
        ValueError: a cell that flax has not, several cells, or weights that are missing, left over
            or of another shape.
    """
    kind = kind_of(cell, "flax linen", "after", activation=None)
    anchor = {"elman": "h/kernel", "lstm": "hi/kernel", "gru": "hn/kernel"}[kind]
    return from_names(cell, kind, weights_of(theirs, (anchor,), "/", prefix))


def from_names(cell: Cell, kind: str, arrays: Weights) -> Params:
    """`from_linen` of one cell, by names such as "hi/kernel"."""
    gates = "ifgo" if kind == "lstm" else "rzn"
    if kind == "gru" and "hf/kernel" in arrays:  # an MGUCell
        gates = "ffn"
        if "hn/bias" not in arrays:
            raise ValueError("theirs: expected an MGUCell with reset_gate=True, got one without")
    first = "i/kernel" if kind == "elman" else f"i{gates[0]}/kernel"
    expected = shapes_of(cell, length_of(arrays, first, 0), to_linen)
    if gates == "ffn":
        expected = {
            name.replace("r", "f"): part for name, part in expected.items() if name[1] != "z"
        }
    check_fit(expected, arrays, "/", cell)
    if kind == "elman":
        return make_params(kind, arrays["i/kernel"], arrays["h/kernel"], arrays["i/bias"])
    kernel = join_gates(arrays[f"i{g}/kernel"] for g in gates)
    recurrent = join_gates(arrays[f"h{g}/kernel"] for g in gates)
    if kind == "lstm":
        return make_params(kind, kernel, recurrent, join_gates(arrays[f"h{g}/bias"] for g in gates))
    bias = join_gates(arrays[f"i{g}/bias"] for g in gates)
    return make_params(kind, kernel, recurrent, bias, arrays["hn/bias"])


class LinenCell(linen.RNNCellBase):
    """A longlag cell inside `flax.linen.RNN`.

    Attributes:
        cell: any cell of one batch axis with inputs `[B, D]`.
    """

    cell: Cell

    @linen.compact
    def __call__(self, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        """One step; the parameters are under "cell"."""
        params = self.param("cell", lambda key: self.cell.init(key, inputs.shape[-1]))
        return self.cell.step(params, carry, self.cell.project(params, inputs))

    @linen.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> Any:
        """The zero carry: flax has no parameters here, so a learned first state is refused."""
        del rng
        if getattr(self.cell, "learned_carry", False):
            raise ValueError(
                f"LinenCell: expected a cell without a learned first state, since flax makes the "
                f"carry without parameters; got {self.cell}"
            )
        shapes = jax.eval_shape(lambda k: self.cell.init(k, input_shape[-1]), jax.random.key(0))
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return self.cell.initial_carry(params, input_shape[:-1])

    @property
    def num_feature_axes(self) -> int:
        """One: features."""
        return 1


class OfLinen(Cell[Any]):
    """A flax linen cell as a longlag cell: `unroll(OfLinen(nn.MGUCell(64)), ...)`.

    Attributes:
        inner: the flax cell; any `flax.linen.RNNCellBase` with inputs `[B, D]`.
    """

    inner: linen.RNNCellBase

    def init(self, key: jax.Array, in_features: int) -> Params:
        """The variables of the flax cell, all of which are parameters."""
        x = jnp.zeros((1, in_features))
        carry = self.inner.initialize_carry(key, x.shape)
        return {"params": dict(self.inner.init(key, carry, x))["params"]}

    def initial_carry(self, params: Params, batch_shape: Any = ()) -> Any:
        """What the flax cell makes without a key of its own: zeros, for all of flax's."""
        width = jax.tree.leaves(params)[0].shape[-1]
        return self.inner.initialize_carry(jax.random.key(0), (*batch_shape, width))

    def step(self, params: Params, carry: Any, u: jax.Array, /) -> tuple[Any, jax.Array]:
        """One call of the flax cell."""
        results: Any = self.inner.apply(params, carry, u)
        return results
