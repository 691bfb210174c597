"""Specifications: frozen dataclasses that subclasses become without a decorator."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable
from typing import Any, dataclass_transform

__all__ = ["Spec", "choose", "refuse_idle"]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Spec:
    """Base of everything that is configured: cells, layers, models, tasks.

    Each subclass is made a frozen dataclass when it is defined, so a forgotten decorator cannot
    drop a field. An instance therefore prints, compares, hashes and can be replaced
    (`dataclasses.replace`), and two equal instances are one static argument to `jax.jit`. Writing
    `@dataclasses.dataclass(frozen=True)` as well does no harm. A number without an annotation would
    be no field, or not the new default of one, and go unseen by all of these; it is refused.
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
        dataclasses.dataclass(frozen=True)(cls)
        # Spec's own __setattr__ already freezes every instance. Without the generated ones, a
        # user's explicit decorator finds nothing of its own to overwrite.
        del cls.__setattr__, cls.__delattr__

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
    if name in options:
        return name
    lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
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
