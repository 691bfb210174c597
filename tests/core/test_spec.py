from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from longlag.core.spec import Spec, choose


class Plain(Spec):
    width: int
    name: str = "plain"


@dataclasses.dataclass(frozen=True)
class Decorated(Plain):
    """The decorator is not needed; whoever writes it anyway does no harm."""

    depth: int = 1


def test_a_subclass_is_a_dataclass_without_a_decorator():
    assert repr(Plain(3)) == "Plain(width=3, name='plain')"
    assert Plain(3) == Plain(3, "plain") != Plain(4)
    assert hash(Plain(3)) == hash(Plain(3))
    assert dataclasses.replace(Plain(3), width=4) == Plain(4)


def test_a_decorated_subclass_is_the_same():
    assert repr(Decorated(3, depth=2)) == "Decorated(width=3, name='plain', depth=2)"
    assert hash(Decorated(3)) == hash(Decorated(3))
    assert Decorated(3) != Plain(3)


@pytest.mark.parametrize("name", ["tau", "width"])
def test_a_number_that_would_be_no_field_is_refused(name):
    expected = rf"Wide.{name}: expected an annotation, `{name}: float = 0.5` for a field"
    with pytest.raises(ValueError, match=expected):
        type("Wide", (Plain,), {name: 0.5})


def test_a_constant_needs_one_annotation():
    class Told(Plain):
        tau: ClassVar[float] = 0.5
        _hidden = 3

    class Again(Told):
        tau = 0.6

    assert Again(3).tau == 0.6


@pytest.mark.parametrize("spec", [Plain(3), Decorated(3)])
def test_a_specification_is_frozen(spec):
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"width"):
        spec.width = 4
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"width"):
        del spec.width
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"other"):
        spec.other = 4
    assert spec.width == 3


def test_choose_returns_the_name_or_offers_the_nearest():
    assert choose("tanh", ("tanh", "relu"), "activation") == "tanh"
    with pytest.raises(ValueError) as error:
        choose("tahn", ("tanh", "relu"), "activation")
    assert str(error.value) == (
        "unknown activation: expected one of tanh, relu; got 'tahn'. Did you mean 'tanh'?"
    )
    with pytest.raises(ValueError, match="Did you mean 'ugrnn'"):
        choose("UGRNN", ("ugrnn", "gru"), "cell")
    with pytest.raises(ValueError, match="expected one of 'GRU, reset after', 'LSTM'; got 'lstm'"):
        choose("lstm", ("GRU, reset after", "LSTM"), "arm")
    with pytest.raises(ValueError) as error:
        choose("zzz", ("tanh", "relu"), "activation")
    assert "Did you mean" not in str(error.value)
