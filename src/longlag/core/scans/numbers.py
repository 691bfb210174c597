"""Numbers of a linear recurrence: real or complex, plain or with an exponent of their own.

A number is a tuple of arrays, `(re,)` or `(re, im)`, so that real and complex states are one code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from longlag.core.checks import as_array
from longlag.core.placement import zeros_like
from longlag.core.promotion import add, multiply

# A complex number as the user has it, `(re, im)`, and a number of either kind in here.
Complex = tuple[jax.Array, jax.Array]
Number = tuple[Any, ...]
StateT = TypeVar("StateT", jax.Array, Complex)


def _as_number(name: str, x: Any) -> Number:
    """A real array or a pair `(re, im)` as a number."""
    if not isinstance(x, tuple):
        return (as_array(f"linear_scan: {name}", x),)
    x = tuple(as_array(f"linear_scan: {name}", part) for part in x)
    if len(x) != 2 or jnp.shape(x[0]) != jnp.shape(x[1]):
        shapes = ", ".join(str(jnp.shape(part)) for part in x)
        raise ValueError(
            f"linear_scan: expected {name} as an array or a pair (re, im) of one shape, "
            f"got a tuple of shapes {shapes}"
        )
    return x


def _times(x: Number, y: Number) -> Number:
    if len(x) == 1:
        return tuple(multiply(x[0], part) for part in y)
    if len(y) == 1:
        return _times(y, x)
    real = multiply(x[0], y[0]) - multiply(x[1], y[1])
    return real, multiply(x[0], y[1]) + multiply(x[1], y[0])


def _plus(x: Number, y: Number) -> Number:
    return tuple(add(p, q) for p, q in zip(x, y, strict=True))


def _affine(a: Number, x: Number, b: Number) -> Number:
    return _plus(_times(a, x), b)


def _conj(x: Number) -> Number:
    return (x[0], *(-part for part in x[1:]))


def _zeros(x: Number) -> Number:
    return tuple(map(zeros_like, x))


def _product(x: Number, y: Number, contracting: bool) -> Number:
    """`x * y`; zero where y is, even where x has overflowed, as it may unless `contracting`."""
    product = _times(x, y)
    if contracting:
        return product
    is_zero = functools.reduce(jnp.logical_and, [part == 0 for part in y])
    return tuple(jnp.where(is_zero, 0, part) for part in product)


class Arithmetic(NamedTuple):
    """How the parallel methods calculate: from numbers, in numbers of their own kind, and back."""

    lift: Callable[[Number], Any]
    times: Callable[[Any, Any], Any]
    affine: Callable[[Any, Any, Any], Any]  # a * x + b
    lower: Callable[[Any], Number]


class Wide(NamedTuple):
    """A number `parts * 2 ** exponent` that neither overflows nor underflows.

    Attributes:
        parts: the larger of them is in [2, 4), or all are zero.
        exponent: int32, of the shape of a part.
    """

    parts: Number
    exponent: jax.Array


# The exponent of zero: less than that of any product, and two of them still fit in an int32.
OF_ZERO = -(2**29)


def _normalise(parts: Number, exponent: Any) -> Wide:
    size = functools.reduce(jnp.maximum, map(jnp.abs, parts))
    info, bias = _format(size)
    bits = jax.lax.bitcast_convert_type(size, f"int{info.bits}")
    # With parts in [2, 4) the factor is a normal number whatever they were: from 2^-126 to 2^127.
    shift = jnp.maximum(bits >> info.nmant, 1).astype(jnp.int32) - (bias + 1)
    exponent = jnp.where(size == 0, OF_ZERO, exponent + shift)
    return Wide(_scale(parts, -shift), exponent)


def _scale(parts: Number, exponent: jax.Array) -> Number:
    """`parts * 2 ** exponent`, where 2 ** exponent is at most a number of their dtype."""
    info, bias = _format(parts[0])
    # The bits of a factor that is too small are those of zero.
    bits = jnp.maximum(exponent + bias, 0).astype(f"int{info.bits}") << info.nmant
    factor = jax.lax.bitcast_convert_type(bits, parts[0].dtype)
    return tuple(part * factor for part in parts)


def _format(x: jax.Array) -> tuple[Any, int]:
    """Of a floating number: what numpy knows, and the bias of its exponent."""
    info = jnp.finfo(x.dtype)
    return info, 2 ** (info.nexp - 1) - 1


def _wide_times(x: Wide, y: Wide) -> Wide:
    return _normalise(_times(x.parts, y.parts), x.exponent + y.exponent)


def _wide_affine(a: Wide, x: Wide, b: Wide) -> Wide:
    product, exponent = _times(a.parts, x.parts), a.exponent + x.exponent
    top = jnp.maximum(exponent, b.exponent)
    both = _scale(product, exponent - top), _scale(b.parts, b.exponent - top)
    return _normalise(_plus(*both), top)


def _lower(x: Wide) -> Number:
    """As numbers of the dtype, infinite or zero where they are out of its range."""
    _, bias = _format(x.parts[0])
    exponent = jnp.clip(x.exponent, -2 * bias, 2 * bias)
    # In two factors, since the parts are not as small or large as the number may be.
    half = exponent >> 1
    return _scale(_scale(x.parts, half), exponent - half)


PLAIN = Arithmetic(lambda x: x, _times, _affine, lambda x: x)
WIDE = Arithmetic(lambda x: _normalise(x, 0), _wide_times, _wide_affine, _lower)


def _at(x: Number, t: int) -> Number:
    return tuple(part[t] for part in x)


def _reduce(x: Number, like: Number) -> Number:
    """Sums the axes along which `like` was broadcast; a real `like` takes the real part."""
    axes = tuple(i for i, n in enumerate(like[0].shape) if n != x[0].shape[i])
    return tuple(part.sum(axes, keepdims=True) for part, _ in zip(x, like))
