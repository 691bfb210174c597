"""Layers that unroll a cell, in one direction or in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.array_types import PRNGKey
from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.core.over_devices import before, time_axis, time_over_devices
from longlag.core.unrolling import unroll
from longlag.nn.layer import Layer, State

__all__ = ["Bidirectional", "Recurrent"]


class Recurrent(Layer):
    """A cell unrolled over the sequence; its state is the carry.

    Attributes:
        cell: any cell.
        zoneout: as in `unroll`, while training with the key that `apply` is given.
    """

    cell: Cell
    zoneout: float = 0.0

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """The cell's own parameters."""
        return self.cell.init(key, in_features)

    def decays(self, params: Params) -> Any:
        """As the cell says."""
        return self.cell.decays(params)

    def out_features(self, in_features: int) -> int:
        """The cell's `features`, read off its output where it has no such field."""
        params = jax.eval_shape(lambda: self.init(jax.random.key(0), in_features))
        xs = jax.ShapeDtypeStruct((1, 1, in_features), jnp.float32)
        with time_over_devices(None):
            return jax.eval_shape(lambda p, x: unroll(self.cell, p, x), params, xs)[1].shape[-1]

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """The cell's initial carry."""
        del capacity
        return self.cell.initial_carry(params, batch_shape)

    def apply(
        self,
        params: Params,
        xs: jax.Array,
        state: State = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        """See `Layer.apply`."""
        carry, ys = unroll(
            self.cell,
            params,
            xs,
            state,
            mask=mask,
            resets=resets,
            key=key,
            zoneout=self.zoneout,
            time_major=True,
        )
        return (None if state is None else carry), ys

    def probe(
        self,
        params: Params,
        xs: jax.Array,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Inputs, as `longlag.analysis.diagnostics` wants them, and outputs."""
        return {"inputs": xs, **super().probe(params, xs, mask=mask, resets=resets)}


class Bidirectional(Layer):
    """A cell from the first step to the last beside one from the last to the first.

    The output is the forward output beside the backward one. The backward one at a step has seen
    the rest of the sequence up to the next reset, so this layer does not stream: it is for
    encoders, and refuses a state.

    Attributes:
        cell: of both directions, each with parameters of its own, `forward` and `backward`.

    Reference: Schuster and Paliwal 1997, IEEE Transactions on Signal Processing 45(11).
    """

    cell: Cell

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """`forward` and `backward`."""
        forward, backward = jax.random.split(key)
        return {
            "forward": self.cell.init(forward, in_features),
            "backward": self.cell.init(backward, in_features),
        }

    def decays(self, params: Params) -> Any:
        """As the cell says, in both directions."""
        return {name: self.cell.decays(of_one) for name, of_one in params.items()}

    def out_features(self, in_features: int) -> int:
        """Twice that of the cell."""
        return 2 * Recurrent(self.cell).out_features(in_features)

    def init_state(self, params: Params, batch_shape: Sequence[int], capacity: int) -> State:
        """Raises `ValueError`: it needs the whole sequence."""
        raise ValueError(f"{self}: expected the whole sequence at once; it has no state to stream")

    def apply(
        self,
        params: Params,
        xs: jax.Array,
        state: State = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        """See `Layer.apply`."""
        if state is not None:
            raise ValueError(f"{self}: expected no state, since it does not stream; got one")
        keys = (None, None) if key is None else jax.random.split(key)
        options: dict[str, Any] = {"mask": mask, "time_major": True}
        _, forward = unroll(self.cell, params["forward"], xs, resets=resets, key=keys[0], **options)
        if resets is not None:
            # Backwards a sequence begins where the next one has begun.
            last, axis = jnp.ones_like(resets[:1]), time_axis(xs)
            if axis is not None:
                last = before(axis, resets[:1], last, reverse=True)
            resets = jnp.concatenate([resets[1:], last])
        _, backward = unroll(
            self.cell,
            params["backward"],
            xs,
            resets=resets,
            key=keys[1],
            reverse=True,
            **options,
        )
        return None, jnp.concatenate([forward, backward], axis=-1)
