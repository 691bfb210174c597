from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import jax
import jax.numpy as jnp
import pytest

import longlag
from longlag.attention import Attention
from longlag.core.cell import Cell
from longlag.nn import Block, Layer
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, LAYERS, D

# Also left out: what `unroll` puts around a cell, and what an intervention puts around a layer.
OUTSIDE = ("longlag.testing", "longlag.interop", "longlag.analysis", "longlag.core.zoneout")


def classes(base: type) -> set[type]:
    """All classes of the library that can be made an instance of, and are a kind of `base`."""
    names = [module.name for module in pkgutil.walk_packages(longlag.__path__, "longlag.")]
    # A cell made of another library's module (`interop`) is whatever that module is.
    modules = [import_module(name) for name in names if not name.startswith(OUTSIDE)]
    every = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    return {
        cls
        for cls in every
        if issubclass(cls, base)
        and not inspect.isabstract(cls)
        and not cls.__name__.startswith("_")
        and cls.__module__.startswith("longlag.")
        and not cls.__module__.startswith(OUTSIDE)
    }


def test_no_class_of_the_library_is_missing_among_the_members():
    layers = [*LAYERS.values(), *BLOCKS.values(), *ATTENTION_LAYERS.values()]
    assert {type(cell) for cell in CELLS} == classes(Cell)
    assert {type(attention) for attention in ATTENTION_LAYERS.values()} == classes(Attention)
    assert {type(block) for block in BLOCKS.values()} == classes(Block)
    assert {type(layer) for layer in layers} == classes(Layer)


@pytest.mark.parametrize("name", [*LAYERS, *BLOCKS, *ATTENTION_LAYERS])
def test_every_layer_takes_the_inputs_that_its_table_names(name):
    layer = (LAYERS | BLOCKS | ATTENTION_LAYERS)[name]
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), D))
    xs = jax.ShapeDtypeStruct((5, 2, D), jnp.float32)
    _, ys = jax.eval_shape(layer.apply, params, xs)
    assert ys.shape == (5, 2, layer.out_features(D))
