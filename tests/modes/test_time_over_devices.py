"""A sequence over the devices of a mesh is the sequence on one device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

import longlag as ll
from longlag.core.chunks import sum_over_time

ROOT = Path(__file__).resolve().parents[2]
T, B, D = 16, 2, 4


def report(*arguments: str) -> str:
    """In a process of its own: how many devices there are is settled when jax starts."""
    devices = "--xla_force_host_platform_device_count=4"
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.on_four_devices", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_four_devices_are_as_one():
    """Values, gradients, forward mode, second order, masks, resets, NaN, states, both dtypes."""
    assert report() == "14\n"


@pytest.mark.deep
def test_four_devices_are_as_one_in_every_case():
    assert report("all") == "39\n"


CUT = P("time")


def mapped(function: Any, axis: str | None = "time", out: Any = CUT, count: int = 4) -> Any:
    """A function of parameters and `[T, B, D]` over devices that are not there."""
    mesh = AbstractMesh((count,), ("time",), axis_types=(AxisType.Auto,))

    def local(params, xs):
        with ll.time_over_devices(axis):
            return function(params, xs)

    return jax.shard_map(local, mesh=mesh, in_specs=(P(), CUT), out_specs=out)


def traced(layer: Any, function: Any, **options: Any) -> Any:
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), D))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    return jax.eval_shape(mapped(function, **options), params, xs)


def unrolled(cell: Any, **options: Any) -> Any:
    return lambda params, xs: ll.unroll(cell, params, xs, time_major=True, **options)[1]


def applied(layer: Any, **options: Any) -> Any:
    return lambda params, xs: layer.apply(params, xs, **options)[1]


FULL, LAYER = ll.DotProduct(4, heads=2), ll.Recurrent(ll.LSTM(3))
LOCAL = ll.Local(3, attention=ll.Multiplicative(4))
REFUSED = {
    "a dense cell": (ll.GRU(3), unrolled(ll.GRU(3)), "`time_chunk="),
    "a cell of steps": (ll.SLSTM(4, heads=2), unrolled(ll.SLSTM(4, heads=2)), "linear or a matrix"),
    "a dense cell in a layer": (LAYER, applied(LAYER), "LSTM"),
    "a backend": (ll.MinGRU(3), unrolled(ll.MinGRU(3), method="cudnn"), "method"),
    "remat": (ll.MinGRU(3), unrolled(ll.MinGRU(3), remat=4), "remat: expected None"),
    "a cache of everything": (
        FULL,
        lambda params, xs: FULL.apply(params, xs, FULL.init_state(params, (B,), T))[1],
        "give the attention a window",
    ),
    "local attention": (LOCAL, applied(LOCAL), "no `read_part`"),
    "weights": (FULL, FULL.weights, "weights: cannot run"),
    "variational dropout": (
        ll.VariationalDropout(4, 0.5),
        applied(ll.VariationalDropout(4, 0.5), key=jax.random.key(0)),
        "use Dropout",
    ),
    "newton": (
        ll.MinGRU(3),
        lambda p, xs: ll.newton(ll.MinGRU(3), p, xs)[1],
        "use `longlag.unroll`",
    ),
    "chunks of time": (
        ll.MinGRU(3),
        lambda params, xs: sum_over_time(lambda s, x, i: (s, x.sum()), (), xs, chunk=2)[1],
        "sum_over_time: cannot run",
    ),
    "a sequence that is not cut": (
        ll.MinGRU(3),
        lambda params, xs: unrolled(ll.MinGRU(3))(params, jnp.zeros((T, B, D))),
        "whose time is cut along 'time'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_over_devices_says_so(name):
    layer, function, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        traced(layer, function)


def test_an_axis_that_is_not_there_is_refused():
    cell = ll.MinGRU(3)
    for axis in ("tim", "data"):
        with pytest.raises(ValueError, match=f"of a jax.shard_map around it; got '{axis}'"):
            traced(cell, unrolled(cell), axis=axis)
    params = cell.init(jax.random.key(0), D)
    with ll.time_over_devices("time"), pytest.raises(ValueError, match="shard_map around"):
        ll.unroll(cell, params, jnp.zeros((B, T, D)))


def test_what_was_traced_without_it_is_not_taken_with_it():
    """Jax's caches know of the context, so an inner `jit` is traced anew."""
    cell = ll.MinGRU(3)
    params = cell.init(jax.random.key(0), D)
    inner = jax.jit(unrolled(cell))

    def both(params, xs):
        with ll.time_over_devices(None):
            alone = inner(params, xs)
        return alone, inner(params, xs)

    text = str(jax.make_jaxpr(mapped(both))(params, jnp.zeros((T, B, D))))
    assert text.count("ppermute") > 0
    alone = jax.make_jaxpr(mapped(both, axis=None))(params, jnp.zeros((T, B, D)))
    assert "ppermute" not in str(alone)


def test_a_device_has_noise_of_its_own():
    layer = ll.Dropout(0.5)
    mesh = jax.make_mesh((1,), ("time",), axis_types=(AxisType.Auto,))

    def local(xs):
        with ll.time_over_devices("time"):
            return layer.apply({}, xs, key=jax.random.key(0))[1]

    run = jax.shard_map(local, mesh=mesh, in_specs=CUT, out_specs=CUT)
    xs = jnp.ones((T, B, D))
    folded = jax.random.fold_in(jax.random.key(0), 0)
    np.testing.assert_array_equal(run(xs), layer.apply({}, xs, key=folded)[1])


WINDOW = ll.DotProduct(4, heads=2, window=3)
LINEAR = ll.Stack((ll.Recurrent(ll.MinGRU(4)), ll.Recurrent(ll.GatedDeltaNet(4, heads=2))))
STATES = ll.Stack((LINEAR, ll.ShortConvolution(4), WINDOW))


def gradient(layer: Any, steps: int, count: int = 4) -> Any:
    """The program of a device for the gradient in a sequence of so many steps."""
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), D))
    xs = jax.ShapeDtypeStruct((steps, B, D), jnp.float32)
    loss = lambda params, xs: jax.lax.psum(applied(layer)(params, xs).sum(), "time")  # noqa: E731
    function = jax.grad(mapped(loss, out=P(), count=count), argnums=(0, 1))
    return jax.make_jaxpr(function)(params, xs).jaxpr


def equations(jaxpr: Any) -> Iterator[Any]:
    """Those of a program and of its parts."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_devices_exchange_states_and_no_steps():
    """Whatever is sent from device to device is as large for a sequence of any length."""

    def sent(steps: int) -> list[tuple[int, ...]]:
        collectives = [e for e in equations(gradient(STATES, steps)) if "axis_name" in e.params]
        collectives = [e for e in collectives if e.primitive.name != "axis_index"]
        return sorted(v.aval.shape for e in collectives for v in e.invars)

    few = sent(64)
    assert len(few) > 20 and few == sent(256)


@pytest.mark.parametrize("layer", [STATES, FULL], ids=["states", "ring"])
def test_the_memory_of_a_device_does_not_grow_with_their_number(layer):
    def largest(count: int) -> int:
        bodies = [e for e in gradient(layer, 16 * count, count).eqns if "mesh" in e.params]
        assert bodies
        inside = [e for body in bodies for e in equations(body.params["jaxpr"])]
        return max(v.aval.size for e in inside for v in e.outvars)

    assert largest(4) == largest(32)
