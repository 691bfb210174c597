"""The base of the dense, linear and matrix kinds: an affine projection of the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.nn import initializers
from typing_extensions import TypeVar

from longlag.core.array_types import PRNGKey
from longlag.core.cell import Carry, Cell
from longlag.core.ops import Params
from longlag.core.promotion import at_least_float32

__all__ = ["AffineCell", "SeparableCell"]

DenseCarryT = TypeVar("DenseCarryT", default=Carry)


class AffineCell(Cell[DenseCarryT]):
    """What the other kinds share: an affine projection of the input, one part per gate.

    Attributes:
        features: H.
        learned_carry: the first state is a parameter (begun at zero) rather than zero.
    """

    features: int
    learned_carry: bool = dataclasses.field(default=False, kw_only=True)

    gates: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        gates = getattr(self, "gates", None)
        if not (isinstance(gates, tuple) and all(isinstance(gate, str) for gate in gates)):
            raise ValueError(
                f"{type(self).__name__}.gates: expected a tuple of names, one for each part of the "
                f'input\'s projection, such as ("r", "z"); got {gates!r}'
            )
        if self.features < 1:
            raise ValueError(
                f"{type(self).__name__}.features: expected at least 1, got {self.features}"
            )

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Draws parameters: `input.kernel` `[D, G * H]`, LeCun normal; `input.bias` `[G * H]`, 0.

        G * H stands for the sum of `gate_widths`.

        `carry`, the first state, is there if `learned_carry` is set.
        """
        width = sum(self.gate_widths())
        params: Params = {
            "input": {
                "kernel": initializers.lecun_normal()(key, (in_features, width)),
                "bias": jnp.zeros(width),
            }
        }
        if self.learned_carry:
            params["carry"] = self.zero_carry((), params["input"]["kernel"].dtype)
        return params

    def gate_widths(self) -> tuple[int, ...]:
        """Widths of the parts of the input's projection, in the order of `gates`: H each."""
        return (self.features,) * len(self.gates)

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> DenseCarryT:
        """The zero state; overridden by a cell whose state is not one `[*batch_shape, H]` array."""
        return Carry(h=jnp.zeros((*batch_shape, self.features), dtype))  # type: ignore[return-value]

    def initial_carry(self, params: Params, batch_shape: Sequence[int] = ()) -> DenseCarryT:
        """Zeros in at least float32, or the learned first state in every row."""
        batch_shape = tuple(batch_shape)
        dtype = at_least_float32(*jax.tree.leaves(params))
        if not self.learned_carry:
            return self.zero_carry(batch_shape, dtype)
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(jnp.array(leaf, dtype), batch_shape + leaf.shape),
            params["carry"],
        )

    def in_features(self, params: Params) -> int | None:
        """D, read off the input kernel, if there is one."""
        return params["input"]["kernel"].shape[0] if "input" in params else None


class SeparableCell(AffineCell[DenseCarryT]):
    """A cell whose input kernel may be left to the layers before it, as published blocks do.

    Attributes:
        input_kernel: whether the cell multiplies its input by a kernel. If not, the input is what
            the kernel would have made of it: the parts of all gates, side by side in the order of
            `gates`, to which the biases are added.
    """

    input_kernel: bool = dataclasses.field(default=True, kw_only=True)

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As its kind, with or without the kernel."""
        width = sum(self.gate_widths())
        if not self.input_kernel and in_features != width:
            raise ValueError(
                f"{self}: expected {width} features, the parts of {', '.join(self.gates)}, since "
                f"it has no input kernel; got {in_features}"
            )
        params = super().init(key, in_features)
        if not self.input_kernel:
            del params["input"]["kernel"]
        return params

    def in_features(self, params: Params) -> int | None:
        """D, read off the kernel; without one, the width of all parts."""
        return super().in_features(params) if self.input_kernel else sum(self.gate_widths())
