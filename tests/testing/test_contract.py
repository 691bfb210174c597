"""The contract tests can fail: each clause finds a cell that breaks it, and says what is broken."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import longlag as ll
from longlag.testing import cells as contract
from longlag.testing import running
from longlag.testing.cells import check_compiles_once, check_types


class Plain(ll.DenseCell):
    gates = ("h",)

    def update(self, params, carry, z):
        h = jnp.tanh(z[0])
        return ll.Carry(h), h


class LowPrecision(Plain):
    def initial_carry(self, params, batch_shape=()):
        return self.zero_carry(tuple(batch_shape), jnp.bfloat16)


class AnotherStructure(Plain):
    def update(self, params, carry, z):
        h = jnp.tanh(z[0])
        return ll.LSTMCarry(h, h), h


class AnotherShape(Plain):
    def update(self, params, carry, z):
        h = jnp.tanh(z[0])
        return ll.Carry(h[..., :1]), h


class OneBatchAxis(Plain):
    def zero_carry(self, batch_shape, dtype):
        return ll.Carry(jnp.zeros((*batch_shape[:1], self.features), dtype))


class AnotherEveryTime(Plain):
    tag: object = dataclasses.field(default_factory=object, init=False)


class SeesTheFuture(Plain):
    def project(self, params, xs, *, key=None):
        (u,) = super().project(params, xs)
        return (u + u.sum(0),) if u.ndim == 3 else (u,)


class SeesItsNeighbour(Plain):
    def project(self, params, xs, *, key=None):
        (u,) = super().project(params, xs)
        return (u + u.sum(-2, keepdims=True),) if u.ndim == 3 else (u,)


class NormOfNothing(Plain):
    def update(self, params, carry, z):
        h = z[0]
        h = h / (1 + jnp.linalg.norm(h, axis=-1, keepdims=True))
        return ll.Carry(h), h


class HiddenState(Plain):
    def step(self, params, carry, z):
        # As though a jitted function kept something of its own: the row it is called with decides.
        carry, y = super().step(params, carry, z)
        return carry, y * (2.0 if y.ndim == 2 else 1.0)


@pytest.mark.parametrize(
    ("check", "cell", "message"),
    [
        (check_types, LowPrecision(3), "initial_carry: expected float32, got"),
        (
            check_types,
            AnotherStructure(3),
            "expected from step the carry Carry(h=ShapeDtypeStruct(shape=(3,)",
        ),
        (check_types, AnotherShape(3), "got Carry(h=ShapeDtypeStruct(shape=(1,)"),
        (check_types, OneBatchAxis(5), "initial_carry: expected (4, 3) first, got"),
        (check_compiles_once, AnotherEveryTime(3), "a copy is not equal"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ll.Cell) else "",
)
def test_what_shapes_show(check, cell, message):
    with pytest.raises(AssertionError) as error:
        check(cell, 2)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("clause", "cell", "message"),
    [
        ("check_dependence", SeesTheFuture(3), "sees later inputs"),
        ("check_dependence", SeesItsNeighbour(3), "sees another row"),
        ("check_zero_input", NormOfNothing(3), "is not finite"),
        ("check_loop", HiddenState(3), ".ys"),
    ],
)
def test_what_numbers_show(clause, cell, message, x64, monkeypatch):
    # The carry of three earlier steps would cost a compilation and shows nothing more here.
    monkeypatch.setattr(running, "advance_carry", lambda case: case)
    case = contract.draw(cell, 2, contract.MASK.shape)
    assert case.xs.dtype == jax.tree.leaves(case.carry)[0].dtype == jnp.float64
    rest = (contract.FLAGS["neither"], {"whole": running.WHOLE}, "") * (clause == "check_loop")
    with pytest.raises(AssertionError) as error:
        getattr(contract, clause)(case, *rest)
    assert message in str(error.value)
