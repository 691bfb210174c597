"""Dense cells: recurrent products of the state, then an update."""

from __future__ import annotations

import abc
from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from longlag.core.affine_cell import AffineCell, DenseCarryT
from longlag.core.array_types import Gates, Kernel, PRNGKey, StepInputs, StepOutputs
from longlag.core.ops import Params, dot, gate_projection
from longlag.core.spec import choose

__all__ = ["DenseCell"]


# Width from which keeping what `mix` returned is faster than computing it again in the backward.
STORE_FROM = 128


class DenseCell(AffineCell[DenseCarryT]):
    """A cell whose state meets recurrent kernels, then an update: write `gates` and `update`.

    `mix` says which products are taken; by default the carry's first field times one fused kernel.
    Parameters: `input.kernel` `[D, G * H]`, `input.bias` `[G * H]`, `recurrent.kernel`
    `[H, G * H]`, the parts of a gate side by side in the order of `gates`.
    """

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """Draws parameters: LeCun normal input kernel, orthogonal recurrent kernels, zero biases.

        Orthogonal kernels keep the norm of a signal that is passed from step to step (Saxe et al.
        2014, arXiv 1312.6120); one is drawn for each gate.
        """
        input_key, recurrent_key = jax.random.split(key)
        params = super().init(input_key, in_features)
        params["recurrent"] = self.init_recurrent(recurrent_key)
        return params

    def init_recurrent(self, key: PRNGKey) -> Params:
        """What `params["recurrent"]` begins as; overridden by a cell of other kernels."""
        shape = (self.features, self.features)
        kernels = [
            initializers.orthogonal()(k, shape) for k in jax.random.split(key, len(self.gates))
        ]
        return {"kernel": jnp.concatenate(kernels, axis=1)}

    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Gates:
        """The input's part of every gate: `u`, a tuple of `[..., H]` in the order of `gates`."""
        del key
        return gate_projection(params["input"], xs, len(self.gates))

    def mix(self, params: Params, carry: DenseCarryT, u: Gates, /) -> Gates:
        """The pre-activations `z`: the input's part of every gate and the state's, added.

        Returns:
            A tuple of `[..., H]` in the order of `gates`. `update` does not see `u`: whatever it
            needs of the input must be in here. Return the sum of the two parts where you can, since
            a backward may store what is returned.
        """
        products = dot(jax.tree.leaves(carry)[0], params["recurrent"]["kernel"])
        return tuple(map(jnp.add, u, jnp.split(products, len(self.gates), axis=-1)))

    @abc.abstractmethod
    def update(
        self, params: Params, carry: DenseCarryT, z: Gates, /
    ) -> tuple[DenseCarryT, StepOutputs]:
        """The new carry and the output from the pre-activations `z` that `mix` returned."""

    def recurrent_kernel(self, params: Params, gate: str) -> Kernel:
        """The recurrent kernel of one gate, `[H, H]`, for a `mix` of one's own."""
        start = self.gates.index(choose(gate, self.gates, "gate")) * self.features
        return params["recurrent"]["kernel"][:, start : start + self.features]

    def step(
        self, params: Params, carry: DenseCarryT, u: Gates, /
    ) -> tuple[DenseCarryT, StepOutputs]:
        """`update` after `mix`. With a step of your own, `backward="store"` stores nothing."""
        return self.update(params, carry, self.mix(params, carry, u))

    def _has_two_parts(self) -> bool:
        """Whether a step is `update` after `mix`, and not one of the author's own."""
        return type(self).step is DenseCell.step

    def _begin(self, params: Params, carry: DenseCarryT, u: Gates) -> Gates:
        return self.mix(params, carry, u) if self._has_two_parts() else ()

    def _finish(
        self, params: Params, carry: DenseCarryT, u: Gates, z: Gates
    ) -> tuple[DenseCarryT, jax.Array]:
        if self._has_two_parts():
            return self.update(params, carry, z)
        return self.step(params, carry, u)

    def _auto_backward(self) -> Literal["recompute", "store"]:
        return "recompute" if self.features < STORE_FROM else "store"
