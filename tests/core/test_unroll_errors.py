"""What is wrong is refused before anything is compiled, with what was expected and what came.

Every call goes through `jax.eval_shape`, which traces and compiles nothing: an error that only a
run would show could not be raised here.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from longlag import (
    GRU,
    LSTM,
    Carry,
    DenseCell,
    LinearCell,
    LSTMCarry,
    MinGRU,
    gate_projection,
    unroll,
)
from tests.testing.test_sketches import Odd, OddCell

B, T, D, H = 2, 5, 3, 4


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def attempt(cell=GRU(H), xs=array(B, T, D), carry=None, mask=None, resets=None, **options):  # noqa: B008
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    run = functools.partial(unroll, cell, **options)
    return jax.eval_shape(run, params, xs, carry, mask=mask, resets=resets)


def test_the_right_call_is_right():
    carry, ys = attempt(carry=Carry(array(B, H)), mask=array(B, T, dtype="bool"))
    assert ys.shape == (B, T, H)
    assert carry.h.shape == (B, H)
    # Floats of another precision are welcome: the carry keeps the dtype that it comes with.
    carry, _ = attempt(carry=Carry(array(B, H, dtype="bfloat16")))
    assert carry.h.dtype == "bfloat16"


ODD = {"h": array(B, H), "count": array(B, dtype="int32"), "seen": array(B, dtype="bool")}

CASES = {
    "a vector": ({"xs": array(D)}, "xs: expected [B, T, ...], got shape (3,)"),
    "no batch": (
        {"xs": array(T, D)},
        "xs: expected [B, T, D] with D = 3, the input features of GRU(features=4",
    ),
    "no batch, got": ({"xs": array(T, D)}, "got shape (5, 3)"),
    "one axis too many": ({"xs": array(B, T, 1, D)}, "got shape (2, 5, 1, 3)"),
    "features": ({"xs": array(B, T, D + 1)}, "with D = 3, the input features of GRU"),
    "features, got": ({"xs": array(B, T, D + 1)}, "got shape (2, 5, 4)"),
    "features, time-major": (
        {"xs": array(T, B, D + 1), "time_major": True},
        "xs: expected [T, B, D] with D = 3",
    ),
    "mask of another shape": (
        {"mask": array(T, B, dtype="bool")},
        "mask: expected bool of shape (2, 5), the leading axes of xs; got bool of shape (5, 2)",
    ),
    "mask of numbers": (
        {"mask": array(B, T)},
        "mask: expected bool of shape (2, 5), the leading axes of xs; got float32 of shape (2, 5)",
    ),
    "mask of lengths": ({"mask": array(B, dtype="int32")}, "got int32 of shape (2,)"),
    "resets of another shape": (
        {"resets": array(B, T, 1, dtype="bool")},
        "resets: expected bool of shape (2, 5), the leading axes of xs; "
        "got bool of shape (2, 5, 1)",
    ),
    "resets of numbers": (
        {"resets": array(B, T, dtype="int32")},
        "resets: expected bool of shape (2, 5), the leading axes of xs; got int32",
    ),
    "carry of another cell": (
        {"cell": LSTM(H), "carry": Carry(array(B, H))},
        "carry: expected the structure PyTreeDef(CustomNode(LSTMCarry",
    ),
    "carry of another cell, got": (
        {"cell": LSTM(H), "carry": Carry(array(B, H))},
        "got PyTreeDef(CustomNode(Carry",
    ),
    "carry as a bare array": ({"carry": array(B, H)}, "got PyTreeDef(*)"),
    "carry of another batch": (
        {"carry": Carry(array(B + 1, H))},
        "carry.h: expected float32 of shape (2, 4) (GRU(features=4, learned_carry=False, "
        "reset='after'), batch 2); got float32 of shape (3, 4)",
    ),
    "carry without batch": (
        {"cell": LSTM(H), "carry": LSTMCarry(array(B, H), array(H))},
        "carry.c: expected float32 of shape (2, 4)",
    ),
    "carry of another width": (
        {"cell": MinGRU(H), "carry": Carry(array(B, H + 1))},
        "carry.h: expected float32 of shape (2, 4)",
    ),
    "integers for floats": (
        {"carry": Carry(array(B, H, dtype="int32"))},
        "carry.h: expected float32 of shape (2, 4)",
    ),
    "floats for integers": (
        {
            "cell": OddCell(H),
            "carry": Odd(**{**ODD, "count": array(B)}, key=jax.random.split(jax.random.key(0), B)),
        },
        "carry.count: expected int32 of shape (2,) (OddCell(features=4), batch 2); "
        "got float32 of shape (2,)",
    ),
    "numbers for typed keys": (
        {"cell": OddCell(H), "carry": Odd(**ODD, key=array(B, dtype="uint32"))},
        "carry.key: expected key<fry> of shape (2,)",
    ),
    "unknown method": (
        {"method": "asociative"},
        "unknown method: expected one of auto, scan, associative, chunked, fused, cudnn; "
        "got 'asociative'. Did you mean 'associative'?",
    ),
    "unknown carries": (
        {"carries": "lst"},
        "unknown carries: expected one of last, all; got 'lst'. Did you mean 'last'?",
    ),
    "associative on a nonlinear cell": (
        {"method": "associative"},
        "method: expected 'auto', 'scan' or 'fused' for GRU, which is not a linear cell; "
        "got 'associative'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_refused(case):
    arguments, message = CASES[case]
    with pytest.raises(ValueError) as error:
        attempt(**arguments)
    assert message in str(error.value)


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'masks'"):
        unroll(GRU(H), {}, jnp.ones((B, T, D)), masks=None)  # type: ignore[call-arg]


class Returning(DenseCell):
    """What a step returns is up to a test."""

    returned: str = "carry and output"

    gates = ("r", "n")

    def update(self, params, carry, z):
        h = jnp.tanh(z[1])
        return {
            "carry and output": (Carry(h), h),
            "a narrower state": (Carry(h[..., 1:]), h),
            "the state alone": (h, h),
            "the mean of the output": (Carry(h), h.mean()),
            "one thing": Carry(h),
            "whole numbers": (Carry(h.astype(jnp.int32)), h),
        }[self.returned]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("a narrower state", r"new carry.h: expected float32 of shape \(2, 4\).*; got .* \(2, 3\)"),
        ("the state alone", r"a step's new carry: expected the structure .*Carry"),
        ("the mean of the output", r"a step's output: expected the shape \[2, ...\] .*; got \(\)"),
        ("one thing", r"Returning\(features=4.*expected a step to return two things.* got Carry"),
        ("whole numbers", r"new carry.h: expected float32 of shape \(2, 4\) .*; got int32"),
    ],
)
def test_a_step_that_returns_something_else_is_refused(returned, message):
    attempt(Returning(H))
    with pytest.raises(ValueError, match=message):
        attempt(Returning(H, returned=returned))


class ReturningLinear(LinearCell):
    """What `project` and `readout` return is up to a test."""

    returned: str = "a, b and aux"

    gates = ("a", "b")

    def project(self, params, xs, *, key=None):
        a, b = gate_projection(params["input"], xs, 2)
        return [a, b] if self.returned == "a list" else (a, b, a)[: 3 - (self.returned == "a, b")]

    def readout(self, params, h, aux):
        return h.mean() if self.returned == "the mean of the output" else h


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            "a, b",
            r"ReturningLinear\(.*project: expected three things, \(a, b, aux\); got a tuple of",
        ),
        ("a list", r"expected three things, \(a, b, aux\); got list"),
        ("the mean of the output", r"readout: expected the shape \[5, 2, ...\] .*; got \(\)"),
    ],
)
def test_a_linear_cell_that_returns_something_else_is_refused(returned, message):
    attempt(ReturningLinear(H))
    with pytest.raises(ValueError, match=message):
        attempt(ReturningLinear(H, returned=returned))


@pytest.mark.parametrize("other", [GRU(H), LSTM(2 * H)], ids=["cell", "width"])
def test_parameters_of_another_cell_are_refused(other):
    params = jax.eval_shape(lambda: other.init(jax.random.key(0), D))
    with pytest.raises(ValueError, match=r"params.*: expected .*those of LSTM\(features=4.*D = 3"):
        jax.eval_shape(functools.partial(unroll, LSTM(H)), params, array(B, T, D))


def test_parameters_that_init_does_not_draw_may_be_there():
    params = jax.eval_shape(lambda: GRU(H).init(jax.random.key(0), D))
    unroll_gru = functools.partial(unroll, GRU(H))
    assert jax.eval_shape(unroll_gru, params | {"of my own": array(3)}, array(B, T, D))


@pytest.mark.parametrize(
    ("cell", "xs", "message"),
    [
        (GRU, array(B, T, D), r"cell: expected a cell, such as GRU\(8\); got the class GRU"),
        (GRU(H), "text", r"xs: expected an array of real numbers, got str"),
    ],
)
def test_what_is_no_cell_and_no_array_is_refused(cell, xs, message):
    with pytest.raises(ValueError, match=message):
        unroll(cell, {}, xs)


def test_a_gate_that_is_not_there_is_refused_with_those_that_are():
    cell = Returning(H)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    with pytest.raises(ValueError, match=r"unknown gate: expected one of r, n; got 'z'"):
        cell.recurrent_kernel(params, "z")


@pytest.mark.parametrize("named", ["rn", None, ("r", 1)], ids=str)
def test_gates_that_are_no_names_are_refused(named):
    class Misnamed(Returning):
        gates = named

    with pytest.raises(ValueError, match=r"Misnamed.gates: expected a tuple of names"):
        Misnamed(H)
