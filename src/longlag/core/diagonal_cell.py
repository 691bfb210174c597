"""Linear cells whose state is complex, with a diagonal recurrence."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey, StepOutputs
from longlag.core.cell import Carry
from longlag.core.linear_cell import LinearCell
from longlag.core.ops import Params, dot, lecun
from longlag.core.promotion import add

__all__ = ["DiagonalCell"]


class DiagonalCell(LinearCell):
    """A complex, diagonal state that is read out by a matrix: write `init` and `project`.

        y = copies Re(C h') + D x

    `project` gives the decay and the input of the state as pairs `(re, im)`, and D x.

    Attributes:
        features: H, the width of the output.
        state: N, the number of complex states; None: H.
        copies: 2 where one of every pair of conjugate states is kept.
    """

    state: int | None = None

    gates = ("re", "im")
    contracting = True
    copies: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.states < 1:
            raise ValueError(f"{type(self).__name__}.state: expected at least 1, got {self.states}")

    @property
    def states(self) -> int:
        """The number of complex states, N."""
        return self.features if self.state is None else self.state

    def add_maps(self, params: Params, B: jax.Array, C: jax.Array, key: PRNGKey) -> Params:
        """Adds the maps around the recurrence to its parameters; the skip is drawn LeCun normal.

        B is `[D, 2N]`, Re B beside Im B, and C is `[2N, H]`, Re C above -Im C.
        """
        skip = lecun(key, B.shape[0], self.features)
        named = {"input": B, "output": C, "skip": skip}
        params = params | {name: {"kernel": kernel} for name, kernel in named.items()}
        if self.learned_carry:
            params["carry"] = self.zero_carry((), B.dtype)
        return params

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        """h as a pair `(re, im)`, each `[*batch, N]`."""
        shape = (*batch_shape, self.states)
        return Carry(h=(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)))

    def readout(self, params: Params, h: Any, aux: jax.Array) -> StepOutputs:
        """`copies` Re(C h) + D x."""
        return add(self.copies * dot(jnp.concatenate(h, axis=-1), params["output"]["kernel"]), aux)
