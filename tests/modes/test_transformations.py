"""What jax can do to a function, it can do to everything here."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from longlag.cells import GRU, DeltaNet, MinGRU
from longlag.training import compiled_dispatch, init_states
from tests.helpers.everything import MEMBERS, flags, loss, of_cell
from tests.helpers.members import D
from tests.helpers.tiny import TRAINING, Affine, Sums

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "dense": lambda: of_cell(GRU(3)),
    "linear": lambda: of_cell(MinGRU(3)),
    "matrix": lambda: of_cell(DeltaNet(4, heads=2)),
}


def moved(tree, seed):
    """Numbers like those of a tree, other ones."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=x.shape)) for x in leaves])


def inner(x, y):
    return sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))


# One of each derivative that is the library's own, and of each that is put together from them.
FEW = ("GRU", "GRU-store", "MinGRU", "DeltaNet-chunked", "newton-dense", "additive", "window-2")


def few(names):
    """Of the other members the numbers are left to `make test-deep`."""
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.deep) for name in names]


@pytest.mark.parametrize("name", few(name for name in MEMBERS if name != "hybrid"))
def test_forward_mode_is_the_transpose_of_reverse_mode(x64, name):
    member = MEMBERS[name]()
    mask, resets = flags()

    def run(params, xs):
        return member.run(params, xs, mask, resets)

    @jax.jit
    def both(args, tangents):
        out, pushed = jax.jvp(run, args, tangents)
        weights = jax.tree.map(lambda y: jnp.cos(jnp.arange(1.0, y.size + 1)).reshape(y.shape), out)
        pulled = jax.vjp(run, *args)[1](weights)
        return inner(weights, pushed), inner(pulled, tangents)

    args = jax.tree.map(lambda x: x.astype(float), (member.params, member.xs))
    forward, reverse = both(args, moved(args, 1))
    np.testing.assert_allclose(forward, reverse, 1e-4 if "newton" in name else 1e-9)
    assert forward != 0


@pytest.mark.parametrize("kind", ["dense", "linear"])
def test_derivatives_of_second_order_in_every_order_of_modes(x64, kind):
    member = KINDS[kind]()
    xs = member.xs[:2, :3].astype(float)
    mask, resets = (flag[:2, :3] for flag in flags())
    direction = moved(xs, 1)

    def along(at):
        """The loss along a line, a function of one number."""
        return loss(member, member.params, xs + at * direction, mask, resets)

    @jax.jit
    def second(at):
        return (
            jax.hessian(along)(at),
            jax.grad(jax.grad(along))(at),
            jax.jacrev(jax.jacfwd(along))(at),
            jax.jacfwd(jax.jacfwd(along))(at),
            jax.linearize(jax.grad(along), at)[1](1.0),
        )

    found = second(0.1)
    step = 1e-5
    slope = jax.jit(jax.grad(along))
    expected = (slope(0.1 + step) - slope(0.1 - step)) / (2 * step)
    np.testing.assert_allclose(found, jnp.full(5, expected), 1e-5)


# Layers that only hold others, or act on a step alone, are traced inside the hybrid and the blocks.
INSIDE = ("dense", "scale", "mlp", "norm", "dropout", "stack", "residual", "gated")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.deep] * (n in INSIDE)) for n in MEMBERS]
)
def test_gradients_are_traced_for_any_shape_and_mapped_twice(name):
    """One trace for both: where jax refuses, it refuses here."""
    member = MEMBERS[name]()
    gradient = jax.grad(functools.partial(loss, member))
    twice = jax.vmap(jax.vmap(gradient, (None, 0, None, None)), (None, 0, None, None))
    b, t = export.symbolic_shape("b, t")
    xs = jax.ShapeDtypeStruct((2, 3, b, t, *member.xs.shape[2:]), member.xs.dtype)
    flag = jax.ShapeDtypeStruct((b, t), bool)
    grads = jax.eval_shape(twice, member.params, xs, flag, flag)
    for grad, leaf in zip(jax.tree.leaves(grads), jax.tree.leaves(member.params), strict=True):
        assert grad.shape == (2, 3, *leaf.shape)


def few_leaks(names):
    """To look for a leak takes jax seconds each."""
    return [n if n == "MinGRU" else pytest.param(n, marks=pytest.mark.deep) for n in names]


@pytest.mark.parametrize("name", few_leaks(MEMBERS))
def test_no_gradient_leaks_a_tracer(name):
    member = MEMBERS[name]()
    with jax.checking_leaks():
        gradient = jax.grad(functools.partial(loss, member))
        jax.eval_shape(gradient, member.params, member.xs, *flags())


@pytest.mark.parametrize("kind", ["dense", "linear"])
def test_what_was_exported_has_the_right_values(kind):
    member = KINDS[kind]()
    b, t = export.symbolic_shape("b, t")
    xs = jax.ShapeDtypeStruct((b, t, D), jnp.float32)
    flag = jax.ShapeDtypeStruct((b, t), bool)
    gradient = jax.jit(jax.value_and_grad(functools.partial(loss, member)))
    exported = export.export(gradient)(member.params, xs, flag, flag)
    given = member.params, member.xs, *flags()
    got, expected = exported.call(*given), gradient(*given)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), got, expected)


@pytest.mark.parametrize("kind", ["dense", "linear"])
def test_mapped_twice_is_one_by_one(kind):
    member = KINDS[kind]()
    # The map inside the gradient and the map around it.
    function = functools.partial(loss, member)
    mapped = jax.vmap(jax.vmap(function, (None, 0, None, None)), (0, None, None, None))
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), member.params)
    xs = jnp.stack([member.xs, -member.xs])

    @jax.jit
    def gradients(params, xs):
        inside = jax.grad(lambda params: mapped(params, xs, *flags()).sum())(params)
        around = jax.vmap(
            jax.vmap(jax.grad(function), (None, 0, None, None)), (0, None, None, None)
        )
        one = jax.grad(function)(jax.tree.map(lambda leaf: leaf[1], params), xs[1], *flags())
        return inside, around(params, xs, *flags()), one

    inside, around, one = gradients(params, xs)

    def check(x, y, z):
        np.testing.assert_allclose(x, y.sum(1), 1e-4, 1e-5)
        np.testing.assert_allclose(y[1, 1], z, 1e-4, 1e-5)

    jax.tree.map(check, inside, around, one)


@pytest.mark.parametrize("name", few(MEMBERS))
def test_without_jit(name):
    member = MEMBERS[name]()
    given = member.params, member.xs[:2, :3], *(flag[:2, :3] for flag in flags())
    run = functools.partial(loss, member)
    expected = jax.jit(run)(*given)
    with jax.disable_jit():
        got = run(*given)
    np.testing.assert_allclose(got, expected, 1e-5)


def test_a_training_without_jit_and_without_leaks():
    model: Any = Affine()
    how = dataclasses.replace(TRAINING, steps=4, dispatch=2, seeds_as="map")
    run = functools.partial(compiled_dispatch, model, Sums(), how)

    def after():
        return run(init_states(model, how, 1), jnp.full(1, how.steps))[1]

    expected = after()
    with jax.disable_jit():
        np.testing.assert_allclose(after(), expected, 1e-5)
    with jax.checking_leaks():
        jax.eval_shape(after)


def test_meshes_and_shard_map():
    """In a process of its own: how many devices there are is settled when jax starts."""
    devices = "--xla_force_host_platform_device_count=2"
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}"}
    found = subprocess.run(
        [sys.executable, "-m", "tests.helpers.on_two_devices"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == f"{len(MEMBERS)}\n", found.stdout + found.stderr
