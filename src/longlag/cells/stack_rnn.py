"""A recurrence with a differentiable stack."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from longlag.core.array_types import Gates, PRNGKey, StepOutputs
from longlag.core.dense_cell import DenseCell
from longlag.core.ops import Params, affine, dot, lecun

__all__ = ["StackCarry", "StackRNN"]


@flax.struct.dataclass
class StackCarry:
    """The state of a `StackRNN`.

    Attributes:
        h: `[*batch, H]`.
        stack: `[*batch, depth, width]`, the top first.
    """

    h: jax.Array
    stack: jax.Array


class StackRNN(DenseCell[StackCarry]):
    """A tanh recurrence that reads the top of a stack, and pushes, pops or leaves it softly.

        h' = tanh(W x + b + U h + P s[0])
        (push, pop, keep) = softmax(A h' + b_a)
        s'[0] = push (V h' + b_v) + pop s[1]   + keep s[0]
        s'[i] = push s[i-1]       + pop s[i+1] + keep s[i]
        y  = h'

    What is pushed beyond the depth is lost, and what is popped from below is zero.

    Attributes:
        features: H.
        depth: entries of the stack.
        width: of an entry.

    Parameters: `input.kernel` `[D, H]`, `input.bias` `[H]`, `recurrent.kernel` `[H, H]`;
    `top.kernel` `[width, H]`, P; `action.kernel` `[H, 3]`, A, `push.kernel` `[H, width]`, V, and
    their biases.

    Reference: Joulin and Mikolov 2015, arXiv 1503.01007, in the form of Delétang et al. 2023, arXiv
    2207.02098 (tanh, one stack, an affine map to what is pushed).

    Cost: H (D + H + 2 width + 4) + width + 3 parameters, carry H + depth width, three recurrent
    products, one after another.
    """

    depth: int = 30
    width: int = 8

    gates = ("h",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("depth", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"StackRNN.{name}: expected at least 1, got {getattr(self, name)}")

    def init(self, key: PRNGKey, in_features: int) -> Params:
        """As every dense cell, and LeCun normal kernels with zero biases for the stack."""
        key, *keys = jax.random.split(key, 4)
        H, width = self.features, self.width
        return super().init(key, in_features) | {
            "top": {"kernel": lecun(keys[0], width, H)},
            "action": {"kernel": lecun(keys[1], H, 3), "bias": jnp.zeros(3)},
            "push": {"kernel": lecun(keys[2], H, width), "bias": jnp.zeros(width)},
        }

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> StackCarry:
        """An empty stack."""
        return StackCarry(
            h=jnp.zeros((*batch_shape, self.features), dtype),
            stack=jnp.zeros((*batch_shape, self.depth, self.width), dtype),
        )

    def mix(self, params: Params, carry: StackCarry, u: Gates) -> Gates:
        """W x + b + U h + P s[0]."""
        (recurrent,) = super().mix(params, carry, u)
        return (recurrent + dot(carry.stack[..., 0, :], params["top"]["kernel"]),)

    def update(self, params: Params, carry: StackCarry, z: Gates) -> tuple[StackCarry, StepOutputs]:
        """The equations above."""
        h = jnp.tanh(z[0])
        push, pop, keep = (action[..., None, None] for action in self._actions(params, h))
        pushed = affine(params["push"], h)
        down = jnp.concatenate([pushed[..., None, :], carry.stack[..., :-1, :]], axis=-2)
        up = jnp.concatenate([carry.stack[..., 1:, :], jnp.zeros_like(down[..., :1, :])], axis=-2)
        return StackCarry(h, push * down + pop * up + keep * carry.stack), h

    def probe(self, params: Params, carry: StackCarry, u: Gates) -> dict[str, jax.Array]:
        """How much is pushed, popped and kept."""
        push, pop, keep = self._actions(params, jnp.tanh(self.mix(params, carry, u)[0]))
        return {"push": push, "pop": pop, "keep": keep}

    def _actions(self, params: Params, h: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.moveaxis(jax.nn.softmax(affine(params["action"], h)), -1, 0))
