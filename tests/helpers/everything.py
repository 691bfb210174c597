"""Everything, and a hybrid model, as one function of parameters and inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from longlag import unroll
from longlag.cells import GRU, DeltaNet, MinGRU
from longlag.contrib.newton_method import newton
from longlag.runs import Architecture
from longlag.tasks import Parity
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, EACH_CELL, LAYERS, D

B, T = 4, 5


class Member(NamedTuple):
    """Something that runs over sequences.

    Attributes:
        params: its parameters.
        begin: `(params, batch) -> state`.
        run: `(params, xs, mask, resets, state=None) -> (state, ys)`, all `[B, T, ...]`.
        xs: inputs `[B, T, ...]`.
    """

    params: Any
    begin: Callable[[Any, int], Any]
    run: Callable[..., tuple[Any, jax.Array]]
    xs: jax.Array


def flags() -> tuple[np.ndarray, np.ndarray]:
    """Mask and resets `[B, T]`."""
    mask, resets = np.ones((B, T), bool), np.zeros((B, T), bool)
    mask[0, 2] = mask[3, 0] = False
    resets[1, 3] = True
    return mask, resets


def xs(seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (B, T, D))


def of_cell(cell: Any, **options: Any) -> Member:
    def run(params, xs, mask, resets, carry=None):
        return unroll(cell, params, xs, carry, mask=mask, resets=resets, **options)

    params = cell.init(jax.random.key(1), D)
    return Member(params, lambda params, batch: cell.initial_carry(params, (batch,)), run, xs())


def of_newton(cell: Any, **options: Any) -> Member:
    def run(params, xs, mask, resets, carry=None):
        return newton(cell, params, xs, carry, mask=mask, resets=resets, **options)[:2]

    return of_cell(cell)._replace(run=run)


def of_layer(layer: Any) -> Member:
    def run(params, xs, mask, resets, state=None):
        by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, mask, resets))
        xs, mask, resets = by_time
        key = jax.random.key(2)
        state, ys = layer.apply(params, xs, state, mask=mask, resets=resets, key=key)
        return state, jnp.swapaxes(ys, 0, 1)

    params = layer.init(jax.random.key(1), D)
    return Member(params, lambda params, batch: layer.init_state(params, (batch,), 16), run, xs())


def of_model() -> Member:
    """A recurrence with a read of its past, over tokens."""
    model = Architecture("additive", width=8, depth=2, convolution=3).build(Parity(1, 8), GRU(8))

    def run(params, xs, mask, resets, state=None):
        return model.apply(params, xs, state, mask=mask, resets=resets)

    tokens = jnp.arange(B * T).reshape(B, T) % 2
    begin = lambda params, batch: model.init_state(params, batch, 16)  # noqa: E731
    return Member(model.init(jax.random.key(1)), begin, run, tokens)


MEMBERS: dict[str, Callable[[], Member]] = {
    **{type(cell).__name__: lambda cell=cell: of_cell(cell) for cell in EACH_CELL},
    "GRU-store": lambda: of_cell(GRU(3), backward="store"),
    "GRU-autodiff": lambda: of_cell(GRU(3), backward="autodiff"),
    "MinGRU-associative": lambda: of_cell(MinGRU(3), method="associative"),
    "MinGRU-chunked": lambda: of_cell(MinGRU(3), method="chunked"),
    "DeltaNet-chunked": lambda: of_cell(DeltaNet(4, heads=2), method="chunked"),
    "GRU-remat": lambda: of_cell(GRU(3), remat="sqrt"),
    "newton-dense": lambda: of_newton(GRU(3), jacobian="dense"),
    "newton-diagonal": lambda: of_newton(GRU(3), jacobian="diagonal"),
    "newton-linear": lambda: of_newton(MinGRU(3)),
    **{
        name: lambda layer=layer: of_layer(layer)
        for name, layer in (ATTENTION_LAYERS | BLOCKS | LAYERS).items()
    },
    "hybrid": of_model,
}


def loss(member: Member, params: Any, xs: Any, mask: Any, resets: Any, state: Any = None) -> Any:
    """A number that depends on all outputs."""
    ys = member.run(params, xs, mask, resets, state)[1]
    return (ys.astype(float) ** 2).sum()
