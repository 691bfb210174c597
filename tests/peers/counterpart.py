"""What a counterpart is, and how a layer of somebody else is run and differentiated.

Carries are ours on both sides; weights are in the layout of whoever has them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from longlag import Cell
from longlag.nn import Bidirectional, Layer

# Batch, time, features in and out, heads. Attentions read what is H wide.
B, T, D, H, N = 3, 20, 5, 8, 2

Weights = Any
Apply = Callable[[Weights, jax.Array, Any], tuple[Any, jax.Array]]


class Peer(NamedTuple):
    """A layer of somebody else, in its own terms.

    Attributes:
        fresh: a tree of its weights as it makes them, arrays or their shapes.
        run: from `weights, xs [B, T, D], first carry` and from weights for what comes out, to
            `(last carry, ys), gradients in the three`. Carries are ours.
    """

    fresh: Weights
    run: Callable[..., tuple[Any, Any]]


# Options that are named, where they are not these.
OPTIONS = {
    "activation": "tanh",
    "reset": None,
    "positions": None,
    "kv_heads": None,
    "window": None,
    "score": None,
}


@dataclass(frozen=True)
class Counterpart:
    """One thing that is here and elsewhere.

    Attributes:
        ours: the cell or layer.
        package: whose theirs is, as pip has it.
        name: theirs.
        build: makes theirs, in the precision that jax is in.
        to_theirs: from the parameters that are drawn to theirs.
        from_theirs: from theirs to ours, where `longlag.interop` has that.
        to_ours: from the parameters that are drawn to ours.
        drawn: from both sides' weights to what is drawn like: ours, unless one side has fewer.
        note: what is to be known beside the name.
        features: of the inputs.
        float64: whether theirs is float64 all through, given that.
    """

    ours: Cell | Layer
    package: str
    name: str
    build: Callable[[], Peer]
    to_theirs: Callable[[Any], Weights]
    from_theirs: Callable[[Weights], Any] | None = None
    to_ours: Callable[[Any], Any] = lambda params: params
    drawn: Callable[[Any, Any], Any] = lambda ours, theirs: ours
    note: str = ""
    features: int = D
    float64: bool = True

    def __str__(self) -> str:
        return f"{self.here} and {self.name}"

    @property
    def here(self) -> str:
        """Ours, with what makes it another: "GRU, reset before"."""
        inner = f"({type(self.ours.cell).__name__})" if isinstance(self.ours, Bidirectional) else ""
        said = [f"{type(self.ours).__name__}{inner}"]
        for option, usual in OPTIONS.items():
            value = getattr(self.ours, option, usual)
            said += [] if value == usual else [f"{option.replace('_', ' ')} {value}"]
        return ", ".join([*said, *([self.note] if self.note else [])])

    @property
    def has_carry(self) -> bool:
        """Whether a first and a last carry are compared too."""
        return isinstance(self.ours, Cell)


def differentiated(run: Apply) -> Callable[..., tuple[Any, Any]]:
    """`Peer.run` of a function that jax can differentiate."""

    @jax.jit
    def results(weights, xs, first, pulled):
        out, pull = jax.vjp(run, weights, xs, first)
        return out, pull(pulled)

    return results


def like(first: Any, leaves: Sequence[Any]) -> Any:
    """The leaves as a carry of ours."""
    return jax.tree.unflatten(jax.tree.structure(first), leaves)


def dtype() -> Any:
    """Of the precision that jax is in."""
    return jnp.result_type(float)


def inputs(features: int = D) -> jax.Array:
    """Zeros, for what a layer makes its weights by."""
    return jnp.zeros((B, T, features))


def nnx_function(module: nnx.Module) -> tuple[Callable[..., Any], Weights]:
    """The module as a function of a dict of its weights, and such a dict."""
    graph, state, rest = nnx.split(module, nnx.Param, ...)

    def call(weights, *given, **named):
        other = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(other, weights)
        return nnx.merge(graph, other, rest)(*given, **named)

    return call, nnx.to_pure_dict(state)


def with_weights(module: Any, weights: Any) -> Any:
    """An equinox module with other arrays; a name may have dots."""
    for name, value in weights.items():
        path = name.split(".")
        module = eqx.tree_at(lambda m, p=path: functools.reduce(getattr, p, m), module, value)
    return module


def keras_peer(
    make: Callable[..., Any], shape: Sequence[Any], run: Callable[..., tuple[Any, Any]]
) -> Peer:
    """`run(call, weights, xs, first)`, where `call(weights, ...)` is the layer as a function."""
    layer = make(dtype=dtype().name)
    layer.build(*shape)
    # Seeds are all that it has beside its weights.
    others = [variable.value for variable in layer.non_trainable_variables]

    def call(weights, *given, **named):
        return layer.stateless_call(weights, others, *given, **named)[0]

    return Peer(layer.get_weights(), differentiated(functools.partial(run, call)))


def torch_peer(module: torch.nn.Module, run: Callable[[Callable[..., Any], Any, Any], Any]) -> Peer:
    """`run(module, xs, first)` returns the last carry's leaves and the outputs."""
    module = module.double() if dtype() == jnp.float64 else module.float()

    def results(weights, xs, first, pulled):
        leaves = jax.tree.map(
            lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), (weights, xs, first)
        )
        call = functools.partial(torch.func.functional_call, module, leaves[0])
        last, ys = run(lambda *given, **named: call(given, named), leaves[1], leaves[2])
        pulled = [torch.tensor(np.asarray(leaf)) for leaf in jax.tree.leaves(pulled)]
        torch.autograd.backward([*last, ys], pulled)
        gradients = jax.tree.map(lambda leaf: leaf.grad.numpy(), leaves)
        return (like(first, [leaf.detach().numpy() for leaf in last]), ys.detach().numpy()), (
            gradients
        )

    fresh = {name: value.numpy() for name, value in module.state_dict().items()}
    return Peer(fresh, results)
