"""A program takes the way of the platform that it is lowered for, whatever the host is."""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import longlag
import longlag as ll
from longlag.attention import DotProduct
from longlag.attention import attention as attention_module
from longlag.cells import GLA
from longlag.contrib.newton_method import newton
from longlag.core.platforms import on_cpu_or_else
from longlag.training import compiled_dispatch, init_states
from tests.helpers import tiny

OTHERS = ("cuda", "tpu")
B, T, D, H = 2, 5, 3, 4
GRU, FULL = ll.GRU(H), DotProduct(H, heads=2)
XS = jax.ShapeDtypeStruct((B, T, D), jnp.float32)


def parameters(layer: Any) -> Any:
    return jax.eval_shape(lambda: layer.init(jax.random.key(0), D))


def gradient(run: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda *args: run(*args).sum(), argnums=(0, 1))


def of_cell(cell: ll.Cell) -> Any:
    return gradient(lambda params, xs: ll.unroll(cell, params, xs)[1]), (parameters(cell), XS)


def of_attention() -> Any:
    xs = jax.ShapeDtypeStruct((attention_module.LEAST + 1, B, D), jnp.float32)
    return gradient(lambda params, xs: FULL.apply(params, xs)[1]), (parameters(FULL), xs)


def of_newton() -> Any:
    return gradient(lambda params, xs: newton(GRU, params, xs)[1]), (parameters(GRU), XS)


def of_training() -> Any:
    """One dispatch: seeds one after another, or side by side."""
    model: Any = tiny.Affine()
    task, training = tiny.Sums(), tiny.TRAINING
    states = jax.eval_shape(lambda: init_states(model, training, 2))
    # Without its own `jit`, which keeps what it has traced.
    step = functools.partial(inspect.unwrap(compiled_dispatch), model, task, training)
    return step, (states, jax.ShapeDtypeStruct((2,), jnp.int32))


CASES = {
    "linear cell": functools.partial(of_cell, ll.MinGRU(H)),
    "matrix cell": functools.partial(of_cell, GLA(H, heads=2)),
    "attention": of_attention,
    "newton": of_newton,
    "training": of_training,
}
# Operations that tell the ways apart. What joins the two in one program has none of them.
TELLING = ("custom_call", "while", "dot_general", "pad", "concatenate", "exponential", "sort")


def operations(lowered: Any) -> Counter[str]:
    found = re.findall(r"stablehlo\.(\w+)", lowered.as_text())
    return Counter(name for name in found if name in TELLING)


@pytest.mark.parametrize("name", CASES)
def test_the_platform_of_the_lowering_decides(name: str, monkeypatch: pytest.MonkeyPatch):
    run, args = CASES[name]()

    def lowered(traced: Any, platform: str) -> Counter[str]:
        return operations(traced.trace(*args).lower(lowering_platforms=(platform,)))

    chosen = {platform: lowered(jax.jit(run), platform) for platform in ("cpu", *OTHERS)}
    for way, platforms in {"cpu": ("cpu",), "default": OTHERS}.items():
        # The same program, in which this way is the only one.
        take = lambda *args, way=way, **ways: ways[way](*args)  # noqa: E731
        monkeypatch.setattr(jax.lax, "platform_dependent", take)
        run, args = CASES[name]()
        for platform in platforms:
            assert chosen[platform] == lowered(jax.jit(run), platform), platform
    assert chosen["cpu"] != chosen["cuda"]


def either(x: jax.Array) -> jax.Array:
    return on_cpu_or_else(lambda x: jnp.sin(x), lambda x: jnp.cos(2 * x), x)


MESH = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
ROWS = PartitionSpec("rows")
TRANSFORMED: dict[str, Callable[[Callable], Callable]] = {
    "op by op": lambda f: f,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "vmap of jit": lambda f: jax.vmap(jax.jit(f)),
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, row: (c + f(row), row), 0.0, x),
    "checkpoint": lambda f: jax.grad(lambda x: jax.checkpoint(f)(x).sum()),
    "shard_map": lambda f: jax.shard_map(f, mesh=MESH, in_specs=ROWS, out_specs=ROWS),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_it_goes_under_every_transformation(name: str):
    xs = jnp.linspace(0.1, 1.0, 3)
    transform = TRANSFORMED[name]
    want = transform(jnp.sin)(xs)
    for run in (transform(either), jax.jit(transform(either))):
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6), run(xs), want)


def test_only_what_is_about_this_process_asks_for_its_devices():
    """Whatever is part of a program asks `longlag.core.platforms`."""
    asks = re.compile(r"default_backend|get_default_device|\b(local_)?devices\(|get_backend")
    root = Path(longlag.__file__).parent
    asking = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if asks.search(path.read_text(encoding="utf-8"))
    }
    # The record of a run, the workers of a sweep and the mesh of a run are about devices that are
    # here. The kernel of cuDNN cannot be traced without one. The last says why not to ask.
    assert asking == {
        *("system/machine.py", "system/devices.py", "training/meshes.py", "contrib/cudnn.py"),
        "core/platforms.py",
    }
