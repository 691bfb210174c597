"""The contract of a cell.

A cell is a frozen dataclass of hyperparameters with pure methods; its parameters are a plain nested
dict. Four kinds say what the library may do with it, and the author writes the maths once:

| kind         | the recurrence                     | the author writes                     |
| ------------ | ---------------------------------- | ------------------------------------- |
| `Cell`       | anything                           | `init`, `initial_carry`, `step`       |
| `DenseCell`  | products with recurrent kernels,   | `gates`, `update`, perhaps `mix`      |
|              | then an update                     |                                       |
| `LinearCell` | `h = a * h + b`, elementwise       | `gates`, `project`, perhaps `readout` |
| `MatrixCell` | `S = A S + k uᵀ`, a matrix         | `gates`, `project`, perhaps `readout` |

The first two are here, `LinearCell` is in `linear_cell.py` and `MatrixCell` in `matrix_cell.py`.
Whatever the kind, `longlag.unroll` runs it over a sequence with masks, resets and streaming, and
every layer, model, task and experiment takes it.

Letters: B batch, T time, D input features, H `features`, G number of gates.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Generic, Literal

import flax.struct
import jax
import jax.numpy as jnp
from typing_extensions import TypeVar

from longlag.core.checks import check_like, check_rows
from longlag.core.ops import Params, keep_dtype
from longlag.core.options import ScanOptions
from longlag.core.promotion import at_least_float32
from longlag.core.scans import step
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

    Whatever in the input does not meet the carry belongs into `project`, which sees the whole
    sequence at once; `step` then holds only what must be done one step after another.
    """

    @abc.abstractmethod
    def init(self, key: jax.Array, in_features: int) -> Params:
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

    def project(self, params: Params, xs: jax.Array, *, key: jax.Array | None = None) -> Any:
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
    def step(self, params: Params, carry: CarryT, z: Any) -> tuple[CarryT, jax.Array]:
        """One step, the body of `jax.lax.scan`.

        Args:
            params: parameters.
            carry: the state, leaves `[*batch, ...]`.
            z: what `project` made of the present input, leaves `[*batch, ...]`.

        Returns:
            The new carry, of the same structure and shapes, and the output `y` `[*batch, ...]`.
        """

    def probe(self, params: Params, carry: CarryT, z: Any) -> dict[str, jax.Array]:
        """Gates and other quantities worth looking at, by name, before the step is taken."""
        del params, carry, z
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
        mask: jax.Array | None,
        resets: jax.Array | None,
        key: jax.Array | None,
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
        method, backward = options.method, options.backward
        if method not in ("auto", "scan"):
            raise ValueError(
                f"method: expected 'auto' or 'scan' for {type(self).__name__}, which is not a "
                f"linear cell; got {method!r}"
            )

        def project(consts, inputs):
            xs, live, reset = inputs
            return (xs if noisy else self._project(consts[0], xs, live)), live, reset

        def begin(consts, carry, inputs):
            z, live, reset = inputs
            given, first = carry, jax.tree.map(_as_wide, consts[1], carry)
            carry = jax.tree.map(_as_wide, carry, consts[1])
            if reset is not None:
                carry = select(reset, first, carry)
            # A masked step is computed and thrown away. It starts from a clean carry, since zero
            # times a NaN in the kept one would be a NaN in the gradient.
            start = carry if live is None else select(live, carry, first)
            return jax.tree.map(keep_dtype, carry, given), start, z, live

        def mix(consts, carry, inputs):
            _, start, z, _ = begin(consts, carry, inputs)
            return self._mix(consts[0], start, z)

        def update(consts, carry, inputs, mixed):
            carry, start, z, live = begin(consts, carry, inputs)
            new, y = checked_step(self, self._update(consts[0], start, z, mixed), start)
            check_rows("a step's output", y, (rows,), str(self))
            new = jax.tree.map(keep_dtype, new, carry)
            if live is not None:
                new = select(live, new, carry)
                y = select(live, y, jax.tree.map(jnp.zeros_like, y))
            return new, y

        rows = xs.shape[1]
        # Noise is drawn for the whole sequence, whatever the chunks.
        noisy = key is not None
        return step.scan(
            project,
            mix,
            update,
            (params, first),
            carry,
            (self._project(params, xs, mask, key) if noisy else xs, mask, resets),
            reverse=options.reverse,
            every_carry=options.every_carry,
            backward=self._backward() if backward == "auto" else backward,
            rows=rows,
        )

    def _project(self, params, xs, mask, key=None):
        """`project` of a sequence whose masked inputs may be anything."""
        xs = xs if mask is None else select(mask, xs, jnp.zeros_like(xs))
        return self.project(params, xs, key=key)

    def _mix(self, params, carry, z) -> Any:
        """The part of a step whose result the backward may store; nothing, in general."""
        del params, carry, z
        return ()

    def _update(self, params, carry, z, mixed):
        """The rest of the step."""
        del mixed
        return self.step(params, carry, z)

    def _backward(self) -> Literal["recompute", "store"]:
        """What "auto" stands for."""
        return "recompute"


def checked_step(cell: Cell, found: Any, carry: Any) -> tuple[Any, Any]:
    """What a step returned, refused unless it is a carry like the one before, and an output."""
    if not (isinstance(found, tuple) and len(found) == 2):
        raise ValueError(
            f"{cell}: expected a step to return two things, the new carry and the output; got "
            f"{type(found).__name__}"
        )
    check_like("a step's new carry", found[0], carry, str(cell))
    return found


def _as_wide(leaf: jax.Array, natural: jax.Array) -> jax.Array:
    """A leaf of a carry that a step can take: of at least the dtype that the cell's own has."""
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(at_least_float32(leaf, natural)) if floating else leaf
