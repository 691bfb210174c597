"""Run by `test_time_over_devices.py` with four CPU devices: time over devices, beside one device.

Names what differs, a line each, and ends with the number of cases that were tried. Arguments are
names of `TRIES`, or "all"; without one it takes those in `QUICK`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import longlag as ll
from longlag.attention import over_devices
from longlag.core.scans import linear_methods, matrix_methods

MESH = jax.make_mesh((4,), ("time",), axis_types=(AxisType.Auto,))
TWO_AXES = jax.make_mesh((2, 2), ("data", "time"), axis_types=(AxisType.Auto,) * 2)
B, D = 4, 4
HYBRID = (
    ll.Repeated(ll.Residual(ll.Stack((ll.ShortConvolution(), ll.Recurrent(ll.MinGRU(D))))), 2),
    ll.Residual(ll.DotProduct(D, heads=2)),
    ll.Residual(ll.DotProduct(D, heads=2, window=3)),
    ll.Residual(ll.Recurrent(ll.GatedDeltaNet(D, heads=2))),
    ll.Bidirectional(ll.MinGRU(3)),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """Something that runs over `[T, B, D]`.

    Attributes:
        layer: or a cell, with `options` of `unroll`.
        options: of `unroll`.
        steps: T.
        flags: "mask" (with resets and with NaN where a mask hides it), "resets" or "".
        state: whether one is given and compared.
        dtype: of everything.
    """

    layer: Any
    options: tuple[tuple[str, Any], ...] = ()
    steps: int = 16
    flags: str = "mask"
    state: bool = True
    dtype: Any = jnp.float64

    def begin(self, params: Any) -> Any:
        """The state that is given, or None."""
        if not self.state:
            return None
        if isinstance(self.layer, ll.Cell):
            return self.layer.initial_carry(params, (B,))
        return self.layer.init_state(params, (B,), self.steps)

    def run(self, params: Any, xs: Any, state: Any, mask: Any, resets: Any) -> Any:
        """The state and the outputs."""
        flags: Any = {"mask": mask, "resets": resets}
        if isinstance(self.layer, ll.Cell):
            options: Any = dict(self.options) | {"time_major": True}
            return ll.unroll(self.layer, params, xs, state, **flags, **options)
        return self.layer.apply(params, xs, state, **flags)


def of_cell(
    cell: Any, *, steps: int = 16, flags: str = "mask", dtype: Any = jnp.float64, **options: Any
) -> Case:
    return Case(cell, tuple(options.items()), steps, flags, dtype=dtype)


def of_ring(layer: Any, flags: str = "mask", steps: int = 28) -> Case:
    return Case(layer, steps=steps, flags=flags, state=False)


CASES = {
    "MinGRU": of_cell(ll.MinGRU(3, learned_carry=True)),
    "MinGRU, float32": of_cell(ll.MinGRU(3), dtype=jnp.float32),
    "MinGRU, no flags": of_cell(ll.MinGRU(3), flags=""),
    "MinGRU, reverse": of_cell(ll.MinGRU(3), reverse=True),
    "MinGRU, zoneout": of_cell(ll.MinGRU(3), zoneout=0.2),
    **{
        f"MinGRU, {method}": of_cell(ll.MinGRU(3), method=method)
        for method in ("scan", "associative", "chunked", "fused")
    },
    "LRU, reverse": of_cell(ll.LRU(3), reverse=True),
    "S5": of_cell(ll.S5(4)),
    "S6": of_cell(ll.S6(3)),
    "GSA": of_cell(ll.GSA(4, heads=2, slots=2)),
    "LinearAttention": of_cell(ll.LinearAttention(4, heads=2)),
    "GLA": of_cell(ll.GLA(4, heads=2)),
    "GLA, no flags": of_cell(ll.GLA(4, heads=2), flags=""),
    "GatedDeltaNet": of_cell(ll.GatedDeltaNet(4, heads=2, learned_carry=True)),
    "GatedDeltaNet, float32": of_cell(ll.GatedDeltaNet(4, heads=2), dtype=jnp.float32),
    "DeltaNet, scan, reverse": of_cell(ll.DeltaNet(4, heads=2), method="scan", reverse=True),
    "MLSTM": of_cell(ll.MLSTM(4, heads=2, learned_carry=True)),
    "MLSTM, reverse, resets": of_cell(ll.MLSTM(4, heads=2), reverse=True, flags="resets"),
    "convolution": Case(ll.ShortConvolution(4)),
    "convolution, resets": Case(ll.ShortConvolution(4), flags="resets"),
    "convolution, wider than a part": Case(ll.ShortConvolution(6), steps=8, flags=""),
    "window": Case(ll.DotProduct(4, heads=2, window=3)),
    "window, resets": Case(ll.DotProduct(4, heads=2, window=3), flags="resets", steps=32),
    "window, wider than a part": Case(ll.DotProduct(4, heads=2, window=6)),
    "window, additive": Case(ll.Additive(3, window=1), state=False),
    "ring": of_ring(ll.DotProduct(4, heads=2)),
    "ring, float32": dataclasses.replace(of_ring(ll.DotProduct(4, heads=2)), dtype=jnp.float32),
    "ring, resets": of_ring(ll.DotProduct(4, kv_heads=1, positions="alibi"), flags="resets"),
    "ring, no flags": of_ring(ll.DotProduct(4, heads=2, positions="learned"), flags="", steps=8),
    "ring, additive": of_ring(ll.Read(ll.Additive(3))),
    "ring, multiplicative": of_ring(ll.Multiplicative(4)),
    "ring, dot": of_ring(ll.Multiplicative(4, score="dot")),
    "hybrid": Case(ll.Stack(HYBRID), steps=24, state=False),
}
QUICK = (
    "MinGRU",
    "MinGRU, float32",
    "LRU, reverse",
    "GLA, no flags",
    "GatedDeltaNet, float32",
    "MLSTM",
    "convolution",
    "window",
    "ring",
    "ring, float32",
    "ring, additive",
    "batch and time",
    "derivatives of a linear cell",
    "derivatives of a ring",
)


def arguments(case: Case) -> tuple[tuple[Any, Any, Any], tuple[Any, Any]]:
    """Parameters, inputs and state, mask and resets `[T, B]`."""
    rng = np.random.default_rng(0)
    params = case.layer.init(jax.random.key(0), D)

    def shake(x: Any) -> Any:
        return jnp.asarray(x + 0.1 * rng.normal(size=x.shape), case.dtype)

    params = jax.tree.map(shake, params)
    xs = rng.normal(size=(case.steps, B, D))
    state = case.begin(params)
    if state is not None:
        if isinstance(case.layer, ll.Cell):
            state = jax.tree.map(shake, state)
        else:  # a cache that is in use
            state, _ = case.run(params, xs[3:], state, None, None)
    mask = resets = None
    half = case.steps // 2
    if case.flags:
        resets = rng.random(xs.shape[:2]) < 0.1
        resets[:, 1:] = False
        resets[half + 1, 0], resets[half + 2 :, 0] = True, False
    if case.flags == "mask":
        # The first row is begun in the third part. What is before is NaN, and not to be seen.
        mask = rng.random(xs.shape[:2]) < 0.7
        mask[: half + 1, 0], mask[half + 2, 0], mask[half : half + 4, 1] = False, False, False
        # The third row is live on the devices in the middle alone, the last one nowhere.
        mask[: half // 2, 2], mask[-half // 2 :, 2], mask[:, 3] = False, False, False
        if dict(case.options).get("reverse"):
            assert resets is not None
            mask, resets = mask[::-1], resets[::-1]
        if isinstance(case.layer, ll.Cell | ll.Attention | ll.ShortConvolution):
            xs[~mask] = np.nan  # a layer that acts on each step alone would see it
        if state is not None:
            floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
            state = jax.tree.map(lambda x: x.at[0].set(jnp.nan) if floats(x) else x, state)
    return (params, jnp.asarray(xs, case.dtype), state), (mask, resets)


def total(state: Any, ys: Any, over: Callable[[Any], Any]) -> Any:
    """A number that depends on all outputs and on the last state."""
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return over(jnp.sum(ys * jnp.cos(ys))) + sum(jnp.sum(x**2) for x in floats)


def on_one_device(case: Case, flags: Any) -> Callable[..., Any]:
    def loss(*args):
        state, ys = case.run(*args, *flags)
        return total(state, ys, lambda x: x), (state, ys)

    return loss


def on_all_devices(case: Case, flags: Any, mesh: Any = MESH) -> Callable[..., Any]:
    """Time over the axis "time", and the batch over "data" if there is such an axis."""
    rows = tuple(name for name in mesh.axis_names if name == "data")
    cut, whole = P("time", *rows), P(*rows)

    def local(params, xs, state, flags):
        with ll.time_over_devices("time"):
            state, ys = case.run(params, xs, state, *flags)
        number = total(state, ys, lambda x: jax.lax.psum(x, "time"))
        return jax.lax.psum(number, rows) if rows else number, (state, ys)

    specs = (P(), cut, whole, cut), (P(), (whole, cut))
    mapped: Callable[..., Any] = jax.shard_map(
        local, mesh=mesh, in_specs=specs[0], out_specs=specs[1]
    )
    return lambda *args: mapped(*args, flags)


def compare(got: Any, expected: Any, dtype: Any) -> None:
    """Raises unless all is the same within rounding, and gradients are finite."""
    tolerance = 1e-10 if dtype == jnp.float64 else 1e-5

    def check(x: Any, y: Any) -> None:
        if x.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(x, y, tolerance, tolerance)

    jax.tree.map(check, got, expected)
    for leaf in jax.tree.leaves(got[1]):
        assert leaf.dtype == jax.dtypes.float0 or np.isfinite(leaf).all()


def try_case(case: Case, mesh: Any = MESH) -> None:
    args, flags = arguments(case)
    ways = (on_all_devices(case, flags, mesh), on_one_device(case, flags))
    options: dict[str, Any] = {"argnums": (0, 1, 2), "has_aux": True, "allow_int": True}
    got, expected = (jax.jit(jax.value_and_grad(way, **options))(*args) for way in ways)
    compare(got, expected, case.dtype)


def try_derivatives(case: Case) -> None:
    """Forward mode, and a derivative of second order."""
    args, flags = arguments(dataclasses.replace(case, flags="resets"))
    direction = jax.tree.map(lambda x: jnp.sin(jnp.arange(x.size)).reshape(x.shape), args)

    def second(way: Callable[..., Any]) -> Any:
        loss = lambda *args: way(*args)[0]  # noqa: E731
        gradient: Callable[..., Any] = jax.grad(loss, argnums=(0, 1))
        along = lambda args: sum(map(jnp.vdot, *map(jax.tree.leaves, (gradient(*args), args[:2]))))  # noqa: E731
        return jax.jvp(loss, args, direction), (jax.grad(along)(args),)

    ways = (on_all_devices(case, flags), on_one_device(case, flags))
    compare(*(jax.jit(lambda way=way: second(way))() for way in ways), case.dtype)


TRIES: dict[str, Any] = {name: (try_case, case) for name, case in CASES.items()} | {
    "batch and time": (try_case, CASES["hybrid"], TWO_AXES),
    "derivatives of a linear cell": (try_derivatives, CASES["MinGRU, no flags"]),
    "derivatives of a ring": (try_derivatives, of_ring(ll.Multiplicative(4), steps=12)),
}


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    names = sys.argv[1:] or QUICK
    names = TRIES if names == ["all"] else names
    for name in names:
        attempt, *given = TRIES[name]
        try:
            attempt(*given)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:400]!r}")
    print(len(names))


if __name__ == "__main__":
    # Parts of many chunks and blocks.
    with (
        mock.patch.object(over_devices, "BLOCK", 4),
        mock.patch.object(linear_methods, "CHUNK", 2),
        mock.patch.multiple(matrix_methods, CHUNK=2, CHUNK_PER_KEY=2),
    ):
        main()
