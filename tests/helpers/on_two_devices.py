"""Run by `test_transformations.py` with two CPU devices: everything on meshes and in shard_map.

Names what fails, a line each, and ends with the number of members that were tried.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from longlag import GRU, build, unroll
from longlag.core.chunks import sum_over_time
from longlag.core.scans.matrix import matrix_scan
from longlag.kernels import native
from longlag.nn.containers import Stack
from longlag.nn.pointwise import Dropout, VariationalDropout
from longlag.tasks import Parity
from longlag.training.objective import losses
from tests.helpers.everything import MEMBERS, B, Member, T, flags, loss

EXPLICIT = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
AUTO = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
SIZES = {"in_features": 2, "out_features": 2, "width": 4, "depth": 2, "heads": 2}
HYBRID = build(inputs="features", cell=GRU(4), attention="full", **SIZES)
# Whose numbers are looked at; of all others the types alone, which is where jax refuses.
RUN = ("GRU", "MinGRU", "hybrid")


def gradient(member: Member, params: Any, xs: Any, flags: tuple[Any, Any], state: Any = None):
    return jax.grad(functools.partial(loss, member))(params, xs, *flags, state)


def over_batch(member: Member, given: bool):
    """Each device has a part of the batch, and the gradients are added up."""

    def local(params: Any, xs: Any, flags: tuple[Any, Any]):
        def total(params):
            state = member.begin(params, len(xs)) if given else None
            return jax.lax.psum(loss(member, params, xs, *flags, state), "data")

        return jax.grad(total)(params)

    specs = (P(), P("data"), P("data"))
    return jax.shard_map(local, mesh=AUTO, in_specs=specs, out_specs=P())


def over_seeds(member: Member):
    """Each device has parameters of its own."""

    def local(params, xs, flags):
        params = jax.tree.map(lambda leaf: leaf[0], params)
        grads = gradient(member, params, xs, flags)
        return jax.tree.map(lambda leaf: leaf[None], grads)

    mapped = jax.shard_map(local, mesh=AUTO, in_specs=(P("data"), P(), P()), out_specs=P("data"))

    def first_of_two(params, xs, flags):
        both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
        return jax.tree.map(lambda leaf: leaf[1], mapped(both, xs, flags))

    return first_of_two


def put(mesh, spec, tree):
    return jax.device_put(tree, NamedSharding(mesh, spec))


def try_member(name: str, member: Member) -> None:
    given = (member.params, member.xs, flags())
    ways = {
        "explicit axes": (functools.partial(gradient, member), EXPLICIT),
        "shard_map over the batch": (over_batch(member, False), None),
        "shard_map over the batch, a state given": (over_batch(member, True), None),
        "shard_map over seeds": (over_seeds(member), None),
        "auto axes": (functools.partial(gradient, member), AUTO),
    }
    if name not in RUN:
        # What these have beside the first two is the same for all, or is XLA's.
        ways = dict(list(ways.items())[:2])
    expected = jax.jit(functools.partial(gradient, member))(*given) if name in RUN else None
    for way, (function, mesh) in ways.items():
        specs = (P(), P("data"), P("data"))
        args = given if mesh is None else [put(mesh, s, x) for s, x in zip(specs, given)]
        try:
            if name not in RUN:
                jax.eval_shape(function, *args)
                continue
            lowered = jax.jit(function).lower(*args)
            got = jax.device_get(lowered.compile()(*args))
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-5), got, expected)
            if name == "GRU" and "shard_map" in way:
                assert native.TARGET in lowered.as_text(), "no native loop"
                if "seeds" in way:
                    jax.tree.map(np.testing.assert_array_equal, got, expected)
        except Exception as error:
            print(f"{name}, {way}: {type(error).__name__}: {str(error)[:300]!r}")
    if name in ("GRU", "hybrid", "window-2"):
        params, xs, marks = [
            put(EXPLICIT, s, x) for s, x in zip((P(), P("data"), P("data")), given)
        ]
        state = put(EXPLICIT, P("data"), member.begin(member.params, len(member.xs)))
        try:
            jax.eval_shape(functools.partial(gradient, member), params, xs, marks, state)
            with jax.set_mesh(EXPLICIT):
                jax.eval_shape(functools.partial(gradient, member), params, xs, marks)
        except Exception as error:
            print(f"{name}, a state given, a mesh set: {str(error)[:300]!r}")


def try_functions() -> None:
    """Looks at the types of functions that are called without a layer around them."""
    task = Parity(1, T)
    batch = put(EXPLICIT, P("data"), task.sample(jax.random.key(0), B))
    answers = put(EXPLICIT, P("data"), jnp.zeros((*batch.targets.shape, task.out_features)))
    steps = put(EXPLICIT, P(None, "data"), jnp.zeros((T, B, 2)))
    state = put(EXPLICIT, P("data"), jnp.zeros((B, 2, 2)))

    marks = {"resets": put(EXPLICIT, P(None, "data"), jnp.ones((T, B), bool))}
    marks["S_reset"] = put(EXPLICIT, P(), jnp.ones((2, 2)))

    def total_of_scan(q: jax.Array, rate: jax.Array, method: Any) -> jax.Array:
        return matrix_scan(q, q, q, state, rate=rate, method=method, **marks)[1].sum()

    def total_in_chunks(params: Any, xs: jax.Array) -> jax.Array:
        def chunk_total(state: Any, xs: jax.Array, index: jax.Array) -> tuple[Any, jax.Array]:
            state, answers = HYBRID.apply(params, xs, state)
            return state, answers.sum()

        return sum_over_time(chunk_total, HYBRID.init_state(params, B, T), xs, chunk=2)[1]

    functions = {
        "time in chunks": (
            total_in_chunks,
            put(EXPLICIT, P(), HYBRID.init(jax.random.key(0))),
            put(EXPLICIT, P("data"), jnp.zeros((B, T, 2))),
        ),
        "losses": (lambda answers: losses(task, answers, batch)[0].sum(), answers),
        **{
            f"matrix_scan by {method}": (
                functools.partial(total_of_scan, method=method),
                steps,
                steps[..., 0],
            )
            for method in ("scan", "chunked")
        },
    }
    for name, (function, *args) in functions.items():
        try:
            jax.eval_shape(jax.grad(function), *args)
        except Exception as error:
            print(f"{name}, explicit axes: {type(error).__name__}: {str(error)[:300]!r}")

    key, noisy = jax.random.key(0), Stack((Dropout(0.5), VariationalDropout(2, 0.5)))
    noises = {
        "dropout": lambda xs: noisy.apply(noisy.init(key, 2), xs, key=key)[1].sum(),
        "zoneout": lambda xs: (
            unroll(GRU(2), GRU(2).init(key, 2), jnp.swapaxes(xs, 0, 1), zoneout=0.5, key=key)[1]
        ).sum(),
    }
    for name, function in noises.items():
        try:
            with jax.set_mesh(EXPLICIT):
                jax.eval_shape(jax.grad(function), steps)
        except Exception as error:
            print(f"{name}, a mesh set: {type(error).__name__}: {str(error)[:300]!r}")


if __name__ == "__main__":
    try_functions()
    for name, make in MEMBERS.items():
        try_member(name, make())
    print(len(MEMBERS))
