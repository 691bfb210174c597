"""Cells whose recurrence is linear and elementwise, `h = a * h + b`: parallel in time."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from longlag.core.affine_cell import AffineCell
from longlag.core.array_types import (
    Gate,
    PRNGKey,
    StepInputs,
    StepOutputs,
    TimeMajorMask,
    TimeMajorResets,
)
from longlag.core.cell import Carry
from longlag.core.checks import check_rows
from longlag.core.ops import Params, keep_dtype
from longlag.core.options import ScanOptions
from longlag.core.scans.linear import linear_scan, linear_step
from longlag.core.scans.step import Backward
from longlag.core.selection import select

__all__ = ["GatedLinearCell", "LinearCell"]


class LinearCell(AffineCell[Carry]):
    """A cell of the form `h = a * h + b`: write `gates` and `project`, perhaps `readout`.

    The state may have any shape; `zero_carry` says which if it is not `[*batch, H]`. It may be
    complex: `b`, the state, and as a rule `a` are then pairs of arrays `(re, im)`. All time steps
    are computed by `longlag.linear_scan`, one after another or in parallel. A class whose decays
    never exceed one in size sets `contracting = True`, which saves work in parallel.
    """

    contracting: ClassVar[bool] = False

    @abc.abstractmethod
    def project(
        self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None
    ) -> tuple[Any, Any, Any]:
        """Decay `a` and input `b`, broadcastable to `[..., *state]`, and what `readout` needs."""

    def readout(self, params: Params, h: Any, aux: Any) -> StepOutputs:
        """The output from the state, for any leading axes; by default the state itself."""
        del params, aux
        return h

    def step(self, params: Params, carry: Carry, u: tuple[Any, Any, Any], /) -> tuple[Carry, Any]:
        """`h = a * h + b`, then `readout`."""
        a, b, aux = self._check_parts(u)
        h = linear_step(a, b, carry.h)
        return Carry(h), self.readout(params, h, aux)

    def scan(
        self,
        params: Params,
        carry: Carry,
        xs: jax.Array,
        options: ScanOptions,
        *,
        first: Carry,
        mask: TimeMajorMask | None,
        resets: TimeMajorResets | None,
        key: PRNGKey | None,
    ) -> tuple[Carry, jax.Array]:
        """As `Cell.scan`, by `linear_scan`; `readout` is taken for all steps at once."""
        refuse_backward(self, options.backward)
        a, b, aux = self._check_parts(self._prepare(params, xs, mask, key))
        if mask is not None:
            # `mask` gets axes of size 1, so that an `a` or `b` that broadcasts over the state stays
            # small.
            state_axes = jax.tree.leaves(carry.h)[0].ndim - 1
            live = mask.reshape(mask.shape + (1,) * state_axes)
            b = jax.tree.map(lambda part: jnp.where(live, part, 0), b)
            a = where_live(live, a, 1)
        hs: Any = linear_scan(
            a,
            b,
            carry.h,
            resets=resets,
            h_reset=None if resets is None else first.h,
            method=options.method,
            reverse=options.reverse,
            contracting=self.contracting,
        )
        # As in `core/flagged_steps.py`, a masked step reads out a clean state, since 0 * NaN is NaN
        # in the gradient.
        live_hs = hs if mask is None else select(mask, hs, jax.tree.map(keep_dtype, first.h, hs))
        ys = self.readout(params, live_hs, aux)
        check_rows("readout", ys, xs.shape[:2], str(self))
        if mask is not None:
            ys = select(mask, ys, jnp.zeros_like(ys))
        if not options.every_carry:
            at = 0 if options.reverse else -1
            hs = jax.tree.map(lambda h: h[at], hs) if xs.shape[0] else carry.h
        return Carry(jax.tree.map(keep_dtype, hs, carry.h)), ys

    def _check_parts(self, returned: Any) -> tuple[Any, Any, Any]:
        """Returns what `project` returned, if that is a, b and what `readout` needs."""
        if not (isinstance(returned, tuple) and len(returned) == 3):
            kind = (
                f"a tuple of {len(returned)}"
                if isinstance(returned, tuple)
                else type(returned).__name__
            )
            raise ValueError(f"{self}.project: expected three things, (a, b, aux); got {kind}")
        return returned


class GatedLinearCell(LinearCell):
    """A linear cell whose gate bounds the decay to [0, 1], and may widen it to [-1, 1].

    A decay that cannot be negative cannot count modulo two: parity is beyond any number of such
    layers at every length (Grazzi et al. 2025, arXiv 2411.12537). Give `bounded` a gate in
    [0, 1], and `project` has what it needs.

    Attributes:
        negative_eigenvalues: the decay is `2 a - 1` in place of `a`; the input stays as it is.
    """

    contracting = True

    negative_eigenvalues: bool = dataclasses.field(default=False, kw_only=True)

    def bounded(self, a: Gate) -> Gate:
        """The decay from a gate in [0, 1]."""
        return 2 * a - 1 if self.negative_eigenvalues else a


def where_live(flag: jax.Array, a: Any, otherwise: float) -> Any:
    """`a`, real or a pair, where the flag is true, and a real number elsewhere."""
    if not isinstance(a, tuple):
        return jnp.where(flag, a, otherwise)
    return jnp.where(flag, a[0], otherwise), jnp.where(flag, a[1], 0)


def refuse_backward(cell: Any, backward: Backward) -> None:
    """Raises `ValueError` for a backward that a parallel kind of cell does not have.

    Such a cell stores no products, so "store" means nothing. "recompute" and "autodiff" are
    accepted and do the same as "auto": its one derivative serves forward mode too.
    """
    if backward not in ("auto", "recompute", "autodiff"):
        raise ValueError(
            f"backward: expected 'auto', 'recompute' or 'autodiff', which are the same for "
            f"{type(cell).__name__}: it stores no products; got {backward!r}"
        )
