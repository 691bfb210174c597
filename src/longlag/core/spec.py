"""Specifications: frozen dataclasses that subclasses become without a decorator."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, Union, dataclass_transform

import jax
import numpy as np
from jax.core import Tracer

__all__ = ["Spec", "choose", "refuse_idle", "take"]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Spec:
    """Base of everything that is configured: cells, layers, models, tasks.

    Each subclass is made a frozen dataclass when it is defined, so a forgotten decorator cannot
    drop a field. An instance therefore prints, compares, hashes and can be replaced
    (`dataclasses.replace`), and two equal instances are one static argument to `jax.jit`. Writing
    `@dataclasses.dataclass(frozen=True)` as well does no harm. A number without an annotation would
    be no field, or not the new default of one, and go unseen by all of these; it is refused.

    A field holds what its annotation says, by the rules of `take`: a NumPy integer or a whole float
    becomes an int, a list becomes a tuple, and anything else of another type raises `ValueError`.
    This is so before `__post_init__` runs.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = cls.__mro__[1:]
        specs = [base for base in bases if dataclasses.is_dataclass(base)]
        constants = {name for base in bases for name in inspect.get_annotations(base)}
        constants -= {field.name for base in specs for field in dataclasses.fields(base)}
        known = constants | {*inspect.get_annotations(cls)}
        for name, value in vars(cls).items():
            numeric = isinstance(value, (bool, int, float)) and not name.startswith("_")
            if numeric and name not in known:
                kind = type(value).__name__
                raise ValueError(
                    f"{cls.__name__}.{name}: expected an annotation, `{name}: {kind} = {value}` "
                    f"for a field or `{name}: ClassVar[{kind}] = {value}` for a constant; got none"
                )
        if "__post_init__" in vars(cls):
            cls.__post_init__ = _take_fields_first(vars(cls)["__post_init__"])  # type: ignore[method-assign]
        dataclasses.dataclass(frozen=True)(cls)
        # Spec's own __setattr__ already freezes every instance. Without the generated ones, a
        # user's explicit decorator finds nothing of its own to overwrite.
        del cls.__setattr__, cls.__delattr__

    def __post_init__(self) -> None:
        """Refuses impossible fields; overridden by a specification with rules of its own."""
        _take_fields(self)

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"{type(self).__name__}.{name} is frozen")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"{type(self).__name__}.{name} is frozen")


def choose(name: str, options: Iterable[str], what: str) -> str:
    """Returns `name` if it is one of `options`, else raises `ValueError` with the nearest one.

    Args:
        name: what the user wrote.
        options: the names that exist.
        what: the kind of thing, for the message ("task", "cell").
    """
    options = list(options)
    if isinstance(name, str) and name in options:
        return name
    lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    if any("," in option for option in options):
        options = [repr(option) for option in options]
    raise ValueError(f"unknown {what}: expected one of {', '.join(options)}; got {name!r}.{hint}")


def refuse_idle(what: str, value: Any, default: Any, why: str) -> None:
    """Raises `ValueError` if an option that has no effect was set: nothing is silently ignored.

    Args:
        what: the option, for the message ("model heads").
        value: what it was set to.
        default: what it has to be left at.
        why: when it has no effect, for the message ("without attention").
    """
    if value != default:
        raise ValueError(
            f"{what}: expected {default!r}, since it has no effect {why}; got {value!r}"
        )


def take(what: str, value: Any, hint: Any) -> Any:
    """Returns a value as what an annotation says, or raises `ValueError` with what came.

    A meaning that is plain is taken: an integer of NumPy, a whole float such as `1e4` and an array
    of one of these are an `int`; any real number is a `float`; a list or a range is a tuple. A bool
    is no number, and NaN is no `float`. What jax traces cannot be looked at and is left as it is,
    and so is a value whose annotation is no class, union, tuple, mapping or `Literal`.

    Args:
        what: the field or argument, for the message ("GRU.features").
        value: what the user gave.
        hint: the annotation, resolved.
    """
    if isinstance(value, Tracer):
        return value
    try:
        return _take(value, hint)
    except _UnlikeError:
        shown = f"the class {value.__name__}" if isinstance(value, type) else _words(value)
        raise ValueError(f"{what}: expected {_name(hint)}, got {shown}") from None


class _UnlikeError(Exception):
    """A value is not what its annotation says."""


def _take(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        # What fits as it is comes first: 8 stays an int where a float may stand too.
        for member in arguments:
            with contextlib.suppress(_UnlikeError):
                if _take(value, member) is value:
                    return value
        for member in arguments:
            with contextlib.suppress(_UnlikeError):
                return _take(value, member)
        raise _UnlikeError
    if hint is None or hint is type(None):
        return _refuse_if(value is not None, value)
    if origin is Literal:
        kinds = {type(argument) for argument in arguments}
        # `choose` names the strings there are, with the nearest one.
        return _refuse_if(type(value) not in kinds and not isinstance(value, str), value)
    if origin is tuple:
        _refuse_if(not isinstance(value, list | tuple | range), value)
        several = len(arguments) == 2 and arguments[1] is Ellipsis
        members = arguments[:1] * len(value) if several else arguments
        _refuse_if(len(members) != len(value), value)
        items = tuple(map(_take, value, members))
        same = type(value) is tuple and all(new is old for new, old in zip(items, value))
        return value if same else items
    kind = origin or hint
    if kind in (bool, int, float) and isinstance(value, np.ndarray | np.generic | jax.Array):
        value = value.item() if value.size == 1 and value.ndim == 0 else value
    if kind in (int, float):
        return _number(value, kind)
    if not isinstance(kind, type) or kind in (object, Any):
        return value
    return _refuse_if(not isinstance(value, kind), value)


def _number(value: Any, kind: type) -> Any:
    """An int or a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnlikeError
    if kind is int:
        _refuse_if(not math.isfinite(value) or value != int(value), value)
        return value if type(value) is int else int(value)
    _refuse_if(math.isnan(value), value)
    return value if type(value) in (int, float) else float(value)


def _refuse_if(wrong: bool, value: Any) -> Any:
    if wrong:
        raise _UnlikeError
    return value


def _name(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_name, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        several = len(arguments) == 2 and arguments[1] is Ellipsis
        return f"a tuple, each {_name(arguments[0])}" if several else "a tuple"
    words = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}
    if hint is None or hint is type(None):
        return "None"
    return words.get(hint, f"a {getattr(origin or hint, '__name__', hint)}")


def _words(value: Any) -> str:
    """A value with its type."""
    if value is None or isinstance(value, bool):
        return repr(value)
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) < 80 else shown[:77] + '...'}"


def _take_fields(spec: Spec) -> None:
    """Puts every field of a specification as its annotation has it."""
    for name, hint in _hints(type(spec)).items():
        value = getattr(spec, name)
        if type(value) is hint and hint in (int, bool, str):
            continue
        new = take(f"{type(spec).__name__}.{name}", value, hint)
        if new is not value:
            object.__setattr__(spec, name, new)


def _take_fields_first(post_init: Any) -> Any:
    @functools.wraps(post_init)
    def take_then_init(self: Spec, *args: Any) -> None:
        _take_fields(self)
        post_init(self, *args)

    return take_then_init


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The annotations of the fields that can be resolved."""
    hints = {}
    for base in reversed(cls.__mro__):
        names = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, hint in inspect.get_annotations(base).items():
            if isinstance(hint, str):
                try:
                    # Not by `typing.get_type_hints`, which gives up at the first unknown name.
                    hint = eval(hint, dict(names), dict(vars(base)))
                except Exception:
                    hint = Any
            hints[name] = hint
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
