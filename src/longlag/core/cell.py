"""The contract of a cell.

A cell is a frozen dataclass of hyperparameters with pure methods; its parameters are a plain nested
dict. Four kinds say what the library may do with it, and the author writes the maths once:

| kind         | the recurrence                     | the author writes                     |
| ------------ | ---------------------------------- | ------------------------------------- |
| `Cell`       | anything                           | `init`, `initial_carry`, `step`       |
| `DenseCell`  | products with recurrent kernels,   | `gates`, `update`, perhaps `mix`      |
|              | then an update                     |                                       |
| `LinearCell` | `h = a * h + b`, elementwise       | `gates`, `project`, perhaps `readout` |
| `MatrixCell` | `S = A S + k wᵀ`, a matrix         | `gates`, `project`, perhaps `readout` |

`Cell` is here, and each other kind in a file of its own name.
Whatever the kind, `longlag.unroll` runs it over a sequence with masks, resets and streaming, and
every layer, model, task and experiment takes it.

Letters: B batch, T time, D input features, H `features`, G number of gates. What `project` returned
is `u`, and the pre-activations that the `mix` of a dense cell returned are `z`. Inside a method a
cell may use a letter for what the equation in its docstring says.

Time leads inside: `unroll` turns `[B, T, ...]` to `[T, B, ...]` once, so that a step of a scan is a
slice `[B, ...]`. `core/reference.py` has the semantics in forty lines.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Generic, Literal

import flax.struct
import jax
import jax.numpy as jnp
from typing_extensions import TypeVar

from longlag.core.array_types import (
    PRNGKey,
    StepInputs,
    StepOutputs,
    TimeMajorMask,
    TimeMajorResets,
)
from longlag.core.flagged_steps import scan_steps
from longlag.core.ops import Params
from longlag.core.options import ScanOptions
from longlag.core.selection import select
from longlag.core.spec import Spec
from longlag.core.weight_decay import by_name

__all__ = ["Carry", "Cell"]


@flax.struct.dataclass
class Carry:
    """The state of a cell that has one array of state.

    Attributes:
        h: `[*batch, H]`, or another state shape for a linear cell; a complex state is a pair of
            arrays `(re, im)`, as in `linear_scan`.
    """

    h: Any


CarryT = TypeVar("CarryT", default=Any)


class Cell(Spec, abc.ABC, Generic[CarryT]):
    """A recurrent cell of any form. Write `init`, `initial_carry` and `step`; the rest is optional.

    Whatever in the input does not meet the carry belongs into `project`. It is given many steps at
    once: a chunk of the sequence, or all of it where there is noise. It must treat every step by
    itself. `step` then holds only what must be done one step after another.
    """

    @abc.abstractmethod
    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Draws parameters.

        Args:
            key: a typed key.
            in_features: D.
        """

    @abc.abstractmethod
    def initial_carry(self, params: Params, batch_shape: Sequence[int] = ()) -> CarryT:
        """The state before the first step and after a reset; each leaf is `[*batch_shape, ...]`.

        It takes the parameters, so that a first state may be learned. Leaves may be numbers of any
        dtype, bools, typed keys or None.
        """

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Any:
        """All that does not depend on the carry, for any leading axes; by default the input itself.

        Args:
            params: parameters.
            xs: `[..., D]`.
            key: source of noise, for a cell that has any; None means no noise.

        Returns:
            A tree of arrays `[..., *]`, best one array for each gate: XLA:CPU runs a scan over one
            fused `[T, B, G * H]` array 4 to 5 times slower.
        """
        del params, key
        return xs

    @abc.abstractmethod
    def step(self, params: Params, carry: CarryT, u: Any, /) -> tuple[CarryT, StepOutputs]:
        """One step, the body of `jax.lax.scan`.

        Args:
            params: parameters.
            carry: the state, leaves `[*batch, ...]`.
            u: what `project` made of the present input, leaves `[*batch, ...]`.

        Returns:
            The new carry, of the same structure and shapes, and the output `y` `[*batch, ...]`.
        """

    def probe(self, params: Params, carry: CarryT, u: Any, /) -> dict[str, jax.Array]:
        """Gates and other quantities worth looking at, by name, before the step is taken."""
        del params, carry, u
        return {}

    def decays(self, params: Params) -> Any:
        """Which parameters weight decay shrinks: a tree of bools like `params`.

        By default kernels and embeddings, by their names (`core.weight_decay.by_name`). Override
        it if a kernel goes by another name, or something named so sets a decay or a step.

        Args:
            params: parameters, or their shapes.
        """
        return by_name(params)

    def in_features(self, params: Params) -> int | None:
        """D as the parameters have it, so that `unroll` can refuse a wrong input; None: any."""
        del params
        return None

    def scan(
        self,
        params: Params,
        carry: CarryT,
        xs: jax.Array,
        options: ScanOptions,
        *,
        first: CarryT,
        mask: TimeMajorMask | None,
        resets: TimeMajorResets | None,
        key: PRNGKey | None,
    ) -> tuple[CarryT, jax.Array]:
        """Runs the cell over a sequence. Each kind has its own; authors and users call `unroll`.

        Args:
            params: parameters.
            carry: the state before the first step.
            xs: inputs `[T, B, ...]`.
            options: how; this kind knows only the methods "auto" and "scan".
            first: the carry after a reset.
            mask: `[T, B]` bool or None.
            resets: `[T, B]` bool or None.
            key: source of noise for `project`.

        Returns:
            The carry or carries, and the outputs `[T, B, ...]`.
        """
        return scan_steps(
            self, params, carry, xs, options, first=first, mask=mask, resets=resets, key=key
        )

    # What `scan_steps` calls. Authors of cells override none of these.

    def _prepare(
        self,
        params: Params,
        xs: jax.Array,
        mask: jax.Array | None,
        key: jax.Array | None = None,
    ) -> Any:
        """`u`: `project` of a sequence `[T, B, ...]` whose masked inputs may be anything."""
        xs = xs if mask is None else select(mask, xs, jnp.zeros_like(xs))
        return self.project(params, xs, key=key)

    def _begin(self, params: Params, carry: CarryT, u: Any) -> Any:
        """`z`: the part of a step whose result the backward may store; nothing, in general."""
        del params, carry, u
        return ()

    def _finish(self, params: Params, carry: CarryT, u: Any, z: Any) -> tuple[CarryT, jax.Array]:
        """The rest of the step, from what `_prepare` and `_begin` returned."""
        del z
        return self.step(params, carry, u)

    def _auto_backward(self) -> Literal["recompute", "store"]:
        """What `backward="auto"` stands for."""
        return "recompute"
