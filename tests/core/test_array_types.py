"""The array types of public functions: all are resolved, and checked while functions are traced.

A method is held to its contract: what it leaves untyped, or calls `jax.Array`, has the type that it
has in the method that is overridden.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any, Union

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from beartype import beartype
from beartype.vale import Is
from jaxtyping import TypeCheckError, jaxtyped

import longlag as ll
from longlag.attention.attention import Attention
from longlag.core import array_types
from longlag.core.spec import Spec
from longlag.tasks import Task
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, EACH_CELL, LAYERS, D
from tests.helpers.small_tasks import SMALL

# How many functions, methods and dataclasses had array types when this was written.
AT_LEAST = {"functions": 21, "methods": 232, "classes": 8}
B, T, L = 2, 5, 3
KEY = jax.random.key(0)


def _loaded_anew() -> dict[str, Any]:
    """The words of the glossary as types of jaxtyping, which is imported by now."""
    assert "jaxtyping" in sys.modules
    spec = importlib.util.spec_from_file_location("checked_array_types", array_types.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


GLOSSARY = _loaded_anew()


def resolved(annotation: Any, module: str) -> Any:
    if not isinstance(annotation, str):
        return annotation
    names = vars(sys.modules[module])
    words = {name for name in names if names[name] is vars(array_types).get(name, sys)}
    return eval(annotation, names | {name: GLOSSARY[name] for name in words})


def only_arrays(hint: Any) -> Any:
    """The part of a type that is about arrays; None if there is none."""
    if hint is jax.Array or (isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)):
        return hint
    if isinstance(hint, type) and hint in CLASSES:
        return Annotated[hint, Is[functools.partial(fields_fit, hint)]]
    parts = hint if isinstance(hint, list) else typing.get_args(hint)
    kept = [only_arrays(part) for part in parts]
    if not any(part is not None for part in kept):
        return None
    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple[tuple(part if part is ... else new or Any for part, new in zip(parts, kept))]
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, (new or part for part, new in zip(parts, kept)))
    return hint  # a callable, whose arrays are seen only where it is checked itself


def has_word(hint: Any) -> bool:
    """Whether a type says more of arrays than that they are."""
    return "jaxtyping." in repr(hint) or fields_fit.__name__ in repr(hint)


def hints_of(function: Callable) -> dict[str, Any]:
    function = inspect.unwrap(function)
    hints = {
        name: only_arrays(resolved(annotation, function.__module__))
        for name, annotation in inspect.get_annotations(function).items()
    }
    return {name: hint for name, hint in hints.items() if hint is not None}


def contract(kind: type, name: str) -> dict[str, Any]:
    """The array types of a method, and for the rest those of the methods that it overrides."""
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("longlag.") and name in vars(base):
            own = hints_of(vars(base)[name])
            hints |= {name: own[name] for name in own if name not in hints or has_word(own[name])}
    return hints


def checked(function: Callable, hints: dict[str, Any], label: Any = None) -> Callable:
    """The function with these types alone, under jaxtyping's checker."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        CALLED.add(label)
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=hints.get(p.name, Any)) for p in parameters],
        return_annotation=hints.get("return", Any),
    )
    return jaxtyped(call, typechecker=beartype)


def fields_fit(kind: type, instance: Any) -> bool:
    """Raises unless the fields of a dataclass have their types, with one size for one letter."""
    constructor = checked(kind, CLASSES[kind])
    constructor(**{f.name: getattr(instance, f.name) for f in dataclasses.fields(kind)})  # type: ignore[arg-type]
    return True


PROMISED = [getattr(ll, name) for name in ll.__all__]
KINDS = dict.fromkeys(
    base
    for kind in PROMISED
    if inspect.isclass(kind)
    for base in kind.__mro__
    if base.__module__.startswith("longlag.")
)
CALLED: set[Any] = set()
# The array types of the fields of dataclasses, and of methods; functions with their checks.
CLASSES: dict[type, dict[str, Any]] = {}
for _kind in KINDS:
    if dataclasses.is_dataclass(_kind) and not issubclass(_kind, Spec):
        _fields = {
            f.name: only_arrays(resolved(f.type, _kind.__module__))
            for f in dataclasses.fields(_kind)
        }
        if any(map(has_word, _fields.values())):
            CLASSES[_kind] = {name: hint for name, hint in _fields.items() if hint}
METHODS = {
    (kind, name): hints
    for kind in KINDS
    for name, method in vars(kind).items()
    if not name.startswith("_") and inspect.isfunction(method)
    if any(map(has_word, (hints := contract(kind, name)).values()))
}
FUNCTIONS = {
    function.__name__: checked(function, hints, function.__name__)
    for function in PROMISED
    if inspect.isfunction(inspect.unwrap(function))
    if any(map(has_word, (hints := hints_of(function)).values()))
}
# What is called, by the packages that it is in.
ROOMS = {
    "cells": ("core", "cells", "contrib.newton_method"),
    "layers": ("nn", "attention", "contrib.blocks"),
    "models": ("models", "training", "runs"),
    "tasks": ("tasks",),
}


@functools.cache
def checked_methods() -> dict[tuple[type, str], Callable]:
    return {
        (kind, name): checked(vars(kind)[name], hints, (kind, name))
        for (kind, name), hints in METHODS.items()
    }


@pytest.fixture(autouse=True)
def _methods_are_checked():
    """Every promised method with array types is checked, whoever calls it."""
    before = {(kind, name): vars(kind)[name] for kind, name in METHODS}
    CALLED.clear()
    try:
        for (kind, name), method in checked_methods().items():
            setattr(kind, name, method)
        yield
    finally:
        for (kind, name), method in before.items():
            setattr(kind, name, method)


def to_be_called(room: str) -> set[Any]:
    """The functions and methods of a room; not those that have no body, or read files."""
    begins = tuple(f"longlag.{package}" for package in ROOMS[room])
    methods = {
        (kind, name)
        for kind, name in METHODS
        if kind.__module__.startswith(begins)
        and "abstractmethod" not in (source := inspect.getsource(inspect.unwrap(vars(kind)[name])))
        and "raise NotImplementedError" not in source
        and not (issubclass(kind, Task) and kind.evaluation_task is not Task.evaluation_task)
    }
    functions = {
        name for name, function in FUNCTIONS.items() if function.__module__.startswith(begins)
    }
    return methods | functions


def shapes(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


integers = functools.partial(shapes, dtype=jnp.int32)
flags = functools.partial(shapes, dtype=jnp.bool)


def trace(function: Callable, *args: Any) -> Any:
    """Traces anew: what was traced without checks is not looked up."""
    return jax.eval_shape(lambda *args: function(*args), *args)


def drawn(init: Callable, *args: Any) -> Any:
    return trace(lambda key: init(key, *args), KEY)


def call(name: str, **options: Any) -> Callable:
    return functools.partial(FUNCTIONS[name], **options)


def call_cells() -> None:
    xs, mask = shapes(B, T, D), flags(B, T)
    for cell in EACH_CELL:

        def run(params, xs, mask, resets, cell=cell):
            cell.probe(params, cell.initial_carry(params, (B,)), cell.project(params, xs[:, 0]))
            return call("scan_reference", mask=mask, resets=resets)(cell, params, xs)

        trace(run, drawn(cell.init, D), xs, mask, mask)
    for cell in (ll.LSTM(3), ll.MinGRU(3), ll.MLSTM(4, heads=2)):
        params = drawn(cell.init, D)
        unroll = functools.partial(FUNCTIONS["unroll"], cell)
        trace(lambda p, xs, m, unroll=unroll: unroll(p, xs, mask=m, key=KEY), params, xs, mask)
        unroll = functools.partial(unroll, time_major=True, carries="all")
        trace(lambda p, xs, m, unroll=unroll: unroll(p, xs, resets=m), params, xs, mask)
    gru = ll.GRU(3)
    params = drawn(gru.init, D)
    trace(lambda p, xs, m: call("newton")(gru, p, xs, mask=m), params, xs, mask)
    trace(lambda p: gru.recurrent_kernel(p, "r"), params)
    trace(lambda p, xs: call("gate_projection", gates=3)(p["input"], xs), params, xs)
    trace(lambda xs: ll.Cell.project(gru, {}, xs), xs)  # type: ignore[arg-type]
    trace(ll.MinGRU(3).bounded, xs)
    trace(call("dot"), xs, shapes(D, 3))
    trace(lambda a, b, h, r: call("linear_scan", resets=r)(a, b, h), xs, xs, shapes(T, D), mask)
    keys, values, state = shapes(T, B, 2, 3), shapes(T, B, 2, 4), shapes(B, 2, 3, 4)
    for every in (False, True):
        scan = call("matrix_scan", every_state=every)
        trace(
            lambda *a, scan=scan: scan(*a[:4], resets=a[4]), keys, keys, values, state, flags(T, B)
        )
    trace(lambda xs: call("sum_over_time")(lambda s, x, i: (s, x.sum() + i), 0.0, xs), xs)
    trace(lambda lengths: call("lengths_to_mask")(lengths, T), integers(B))
    call("pad_rows")([[1, 2], [3]])


class Unread(ll.Multiplicative):
    """An attention that says nothing of a part of the past."""

    def read_part(self, params, xs, memory):
        return Attention.read_part(self, params, xs, memory)


def over_devices(layer: ll.Layer) -> Callable:
    """A layer over the one device of a mesh."""

    def apply(params, xs, mask):
        with ll.time_over_devices("time"):
            return layer.apply(params, xs, mask=mask)[1]

    mesh = jax.make_mesh((1,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (jax.P(), jax.P("time"), jax.P("time"))
    return jax.shard_map(apply, mesh=mesh, in_specs=specs, out_specs=jax.P("time"))


def call_layers() -> None:
    xs, mask = shapes(T, B, D), flags(T, B)
    layers = [*LAYERS.values(), *BLOCKS.values(), *ATTENTION_LAYERS.values()]
    for layer in {type(layer): layer for layer in layers}.values():

        def run(params, xs, mask, layer=layer):
            if type(layer).probe is not ll.Layer.probe:
                layer.probe(params, xs, mask=mask, resets=mask)
            return layer.apply(params, xs, mask=mask, resets=mask, key=KEY)

        trace(run, drawn(layer.init, D), xs, mask)
    trace(lambda xs: ll.Dense(3).probe(ll.Dense(3).init(KEY, D), xs), xs)
    for attention in (
        ll.DotProduct(8, heads=2, positions="none"),
        ll.Local(5, attention=ll.Additive(6)),
    ):

        def read(params, xs, encoded, mask, attention=attention):
            memory = attention.write_memory(params, encoded, mask)
            return attention.init_state(params, (B,), T), attention.read_memory(params, xs, memory)

        trace(read, drawn(attention.init, D), xs, shapes(B, L, D), flags(B, L))
    for attention in (ll.DotProduct(8, heads=2), ll.Additive(6), ll.Multiplicative(D), Unread(D)):
        refused = isinstance(attention, Unread)
        with pytest.raises(ValueError, match="no `read_part`") if refused else nullcontext():
            trace(over_devices(attention), drawn(attention.init, D), xs, mask)
    trace(call("rotate"), shapes(B, T, 2, 4), integers(B, T))
    trace(call("concatenate_features"), xs, shapes(T, B, 3))


def call_models() -> None:
    layers = (ll.Recurrent(ll.GRU(4)), ll.Residual(ll.DotProduct(4, heads=2)))
    tokens, mask, at = integers(B, T), flags(B, T), integers(B, 2)
    model = ll.SequenceModel("tokens", 3, 4, layers, 3)
    params = drawn(model.init)

    def run(params, inputs, mask, at):
        state = model.init_state(params, B, T)
        batch = ll.Batch(inputs, inputs, mask + 0.0, mask, mask, mask)
        model.apply(params, inputs, state, mask=mask, resets=mask, key=KEY)
        model.probe(params, inputs, mask=mask)
        call("sample", mask=mask)(model, params, inputs, L, KEY)
        return model.answer(params, batch, KEY, at), model.answer(params, batch)

    trace(run, params, tokens, mask, at)
    reader = dataclasses.replace(model, inputs="features")
    trace(reader.apply, drawn(reader.init), shapes(B, T, 3))

    seq2seq = ll.Seq2Seq("tokens", 5, 6, 4, layers[:1], layers[:1], ll.Additive(3))

    def translate(params, inputs, mask, targets, at):
        batch = ll.Batch(inputs, targets, targets + 0.0, targets > 0, mask)
        seq2seq.alignment(params, inputs, targets, mask=mask)
        call("generate", stop=0, max_length=L, beams=2, mask=mask)(seq2seq, params, inputs)
        return seq2seq.answer(params, batch, KEY, at)

    trace(translate, drawn(seq2seq.init), tokens, mask, integers(B, L), at)
    search = call("beam_search", start=1, stop=0, max_length=L, beams=2)
    trace(lambda: search(lambda state, token: (state, jnp.zeros(4)), ()))

    task, training = ll.Parity(1, T), ll.Training(steps=1, dispatch=1, batch_size=B)
    model = ll.SequenceModel("tokens", task.in_features, 4, (), task.out_features)
    states = trace(lambda: call("init_states")(model, training, 2))
    trace(lambda *args: call("dispatch")(model, task, training, *args), states, integers(2))
    batch = trace(lambda: call("evaluation_batch")(task, 2, "test"))
    trace(lambda *args: call("evaluate")(model, task, training, *args), states.params, batch)
    trace(lambda *args: call("losses")(task, *args), shapes(2, T, 2), batch)
    call("train")(model, task, dataclasses.replace(training, eval_size=2))
    run_of_one = types.SimpleNamespace(seed_numbers=range(1), rates=())

    def predict(params, inputs):
        params = jax.tree.map(lambda leaf: leaf[None], params)
        return ll.Loaded(run_of_one, model, params, 0, ()).predict(inputs)  # type: ignore[arg-type]

    trace(predict, drawn(model.init), tokens)


def call_tasks() -> None:
    for task in SMALL:
        batch = trace(lambda key, step, task=task: task.at_step(key, step, B), KEY, integers())
    trace(lambda batch: call("pad")(batch, 2 * task.time_steps), batch)


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_keep_their_array_types(room):
    {"cells": call_cells, "layers": call_layers, "models": call_models, "tasks": call_tasks}[room]()
    assert to_be_called(room) - CALLED == set()


def test_no_array_type_has_gone():
    found = {"functions": len(FUNCTIONS), "methods": len(METHODS), "classes": len(CLASSES)}
    assert all(found[what] >= AT_LEAST[what] for what in AT_LEAST), found
    begins = tuple(f"longlag.{package}" for packages in ROOMS.values() for package in packages)
    assert all(kind.__module__.startswith(begins) for kind, _ in METHODS)
    assert all(function.__module__.startswith(begins) for function in FUNCTIONS.values())


class TimeLast(ll.Layer):
    """It returns `[B, T, K]`."""

    def init(self, key, in_features):
        return {}

    def apply(self, params, xs, state=None, *, mask=None, resets=None, key=None):
        return state, jnp.swapaxes(xs, 0, 1)


def gru(xs: Any, **flags: Any) -> Any:
    return call("unroll", **flags)(ll.GRU(3), drawn(ll.GRU(3).init, D), xs)


def lossy(inputs: Any, weights: Any) -> Any:
    batch = ll.Batch(inputs, inputs, weights, weights > 0, None)
    return call("losses")(ll.Parity(1, T), jnp.ones((B, T, 2)), batch)


REFUSED: dict[str, tuple[Callable, tuple[Any, ...]]] = {
    "mask [T, B]": (lambda xs, mask: gru(xs, mask=mask), (shapes(B, T, D), flags(T, B))),
    "mask of integers": (lambda xs, mask: gru(xs, mask=mask), (shapes(B, T, D), integers(B, T))),
    "resets of one row": (lambda xs, r: gru(xs, resets=r), (shapes(B, T, D), flags(T))),
    "key of numbers": (lambda key: ll.GRU(3).init(key, D), (shapes(2),)),
    "lengths of numbers": (lambda lengths: call("lengths_to_mask")(lengths, T), (shapes(B),)),
    "inner sizes apart": (call("dot"), (shapes(T, D), shapes(D + 1, 3))),
    "no axis of time": (lambda xs: ll.Norm().apply({}, xs), (shapes(B, D),)),
    "weights of other steps": (lossy, (integers(B, T), shapes(B, L))),
    "outputs [B, T, K]": (
        lambda xs: checked(TimeLast.apply, contract(TimeLast, "apply"))(TimeLast(), {}, xs),
        (shapes(T, B, D),),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_shape_or_dtype_is_refused(name):
    function, inputs = REFUSED[name]
    with pytest.raises(TypeCheckError):
        trace(function, *inputs)
