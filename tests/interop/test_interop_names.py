"""Weights of other frameworks under any name they come by; what does not fit is refused in words.

Nothing is unrolled here: which number goes where is for `test_agreement.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file

from longlag import GRU, LSTM, Elman, interop
from longlag.cells import ProjectedLSTM
from longlag.core.cell import Cell
from longlag.nn import Dense, Dropout, Stack
from longlag.testing.running import assert_close, random_like

D, H = 2, 3


class Converter(NamedTuple):
    """A pair of functions for one cell; names of the other framework are joined by `separator`."""

    cell: Cell
    to: Callable[..., Any]
    back: Callable[..., Any]
    separator: str = "/"


def of_one(cell: Cell, theirs: Any, prefix: str | None = None) -> Any:
    (params,) = interop.from_torch(cell, theirs, prefix=prefix)
    return params


def single(cell: Cell, params: Any) -> Any:
    return interop.to_torch(cell, params, single_cell=True)


def unoptimized(cell: Cell, params: Any) -> Any:
    return interop.to_nnx(cell, params, optimized=False)


def of_core(cell: Cell, theirs: Any, prefix: str | None = None) -> Any:
    return interop.from_haiku(cell, theirs, prefix)


CONVERTERS = {
    f"{name} {type(cell).__name__}": Converter(cell, *functions)
    for name, cells, functions in (
        (
            "torch",
            (Elman(H), LSTM(H), GRU(H), ProjectedLSTM(H, projection=2)),
            (interop.to_torch, of_one, "."),
        ),
        ("torch cell", (Elman(H), LSTM(H), GRU(H)), (single, of_one, ".")),
        ("linen", (Elman(H), LSTM(H), GRU(H)), (interop.to_linen, interop.from_linen)),
        ("nnx", (Elman(H), LSTM(H), GRU(H)), (interop.to_nnx, interop.from_nnx)),
        ("nnx unoptimized", (LSTM(H),), (unoptimized, interop.from_nnx)),
        (
            "haiku",
            (Elman(H, activation="relu"), LSTM(H), GRU(H, reset="before")),
            (interop.to_haiku, of_core),
        ),
        ("equinox", (LSTM(H), GRU(H)), (interop.to_equinox, interop.from_equinox, ".")),
        ("keras", (Elman(H), LSTM(H), GRU(H)), (interop.to_keras, interop.from_keras)),
    )
    for cell in cells
}
NAMED = [name for name in CONVERTERS if not name.startswith("keras")]


def weights(cell: Cell) -> Any:
    drawn = random_like(jax.eval_shape(lambda: cell.init(jax.random.key(0), D)), 1)
    drawn = jax.tree.map(np.asarray, drawn)
    if "bias" in drawn["recurrent"]:
        drawn["recurrent"]["bias"] *= 0  # the GRUs of some have none
    return drawn


def theirs_of(converter: Converter) -> Any:
    return jax.tree.map(np.asarray, converter.to(converter.cell, weights(converter.cell)))


def test_every_converter_is_here():
    named = {f"from_{name.split()[0]}" for name in CONVERTERS}
    assert named == {name for name in vars(interop) if name.startswith("from_")}


@pytest.mark.parametrize("name", NAMED)
def test_a_whole_model_is_read_by_its_one_recurrent_module_or_by_a_name(name):
    converter = CONVERTERS[name]
    cell, theirs, dot = converter.cell, theirs_of(converter), converter.separator
    expected = weights(cell)
    other = {"head": {"table": np.ones((4, 5), np.float32)}, "steps": np.int64(3)}
    model = {"encoder": {"rnn": theirs}, **other}
    flat = {f"encoder{dot}rnn{dot}{key}": value for key, value in theirs.items()} | other
    for given in (model, flat) if "haiku" not in name else (flat,):
        assert_close(converter.back(cell, given), expected, name, 1e-6)
    two = model | {"decoder": theirs}
    first = "lstm" if name == "haiku LSTM" else {"haiku Elman": "vanilla_rnn"}.get(name, "gru")
    ends = f"{dot}{first}" if "haiku" in name else ""
    with pytest.raises(ValueError, match=f"'decoder{ends}', 'encoder{dot}rnn{ends}'"):
        converter.back(cell, two)
    chosen = converter.back(cell, two, prefix=f"decoder{ends}")
    assert_close(chosen, expected, name, 1e-6)
    with pytest.raises(ValueError, match=r"prefix: expected a module with .*; got 'middle'"):
        converter.back(cell, two, prefix="middle")


@pytest.mark.parametrize("name", CONVERTERS)
def test_what_is_missing_left_over_or_of_another_shape_is_refused_by_name(name):
    converter = CONVERTERS[name]
    cell, theirs = converter.cell, theirs_of(converter)
    leaves, structure = jax.tree.flatten(theirs)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(theirs)[0]]

    # A kernel of other inputs is right; one of other outputs is not.
    cut = (slice(None, -1),) if converter.separator == "." else (..., slice(None, -1))

    def with_leaf(i, leaf):
        return jax.tree.unflatten(structure, [leaf if i == j else x for j, x in enumerate(leaves)])

    def refused(given, *words):
        with pytest.raises(ValueError) as error:
            converter.back(cell, given)
        assert all(word in str(error.value) for word in ("expected", "got", *words))

    refused({}, *(["the names none"] if name in NAMED else []))
    for i, path in enumerate(paths):
        last = path[-1].key if name in NAMED else ("kernel", "recurrent_kernel", "bias")[i]
        refused(with_leaf(i, leaves[i][cut]), last)
        refused(with_leaf(i, leaves[i].astype(np.int32)), "int32")
        refused(with_leaf(i, leaves[i] + 1j), "complex")
        # Without any bias is the other framework's bias=False, where it has that.
        if name in NAMED and "haiku Elman" not in name and path[-1].key not in ("bias", "bias_n"):
            refused(with_leaf(i, None), last)
    if name in NAMED:
        one = jax.tree_util.keystr(paths[0], simple=True, separator=converter.separator)
        more = jax.tree.map(lambda leaf: leaf, theirs)
        inner = more
        for key in paths[0][:-1]:
            inner = inner[key.key]
        inner["weight_of_mine"] = leaves[0]
        refused(more, "left over: ", "weight_of_mine", one.split(converter.separator)[-1])


@pytest.mark.parametrize("name", CONVERTERS)
def test_parameters_of_another_cell_do_not_go_out(name):
    cell, params = CONVERTERS[name].cell, weights(CONVERTERS[name].cell)
    wide = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=-1), params)
    stacked = jax.tree.map(lambda leaf: leaf[None], params)  # of several seeds
    bare = {key: value for key, value in params.items() if key != "recurrent"}
    for given in (wide, stacked, bare, {}, params["input"]["kernel"]):
        with pytest.raises(ValueError, match=r"params.*: expected "):
            CONVERTERS[name].to(cell, given)


@pytest.mark.parametrize(
    ("cell", "kind", "options"),
    [
        (Elman(H), "RNN", {}),
        (LSTM(H), "LSTM", {}),
        (GRU(H), "GRU", {}),
        (ProjectedLSTM(H, projection=2), "LSTM", {"proj_size": 2}),
    ],
    ids=["RNN", "LSTM", "GRU", "projected"],
)
def test_modules_of_torch_in_any_state(cell, kind, options):
    torch.manual_seed(0)
    build = getattr(torch.nn, kind)
    rnn = build(D, H, 2, bidirectional=True, **options)
    expected = interop.from_torch(cell, {k: v.numpy() for k, v in rnn.state_dict().items()})
    assert len(expected) == 4
    same = [
        rnn,
        dict(rnn.named_parameters()),  # they require gradients
        torch.nn.ModuleDict({"rnn": rnn, "norm": torch.nn.BatchNorm1d(3)}).state_dict(),
    ]
    for given in same:
        assert_close(interop.from_torch(cell, given), expected, kind, 0)
    half = interop.from_torch(cell, rnn.to(torch.bfloat16).state_dict())
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(ml_dtypes.bfloat16)}
    rounded = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), expected)
    assert_close(half[0]["input"]["kernel"], rounded[0]["input"]["kernel"], kind, 0)
    bare = interop.from_torch(cell, build(D, H, 2, bias=False, **options))
    assert len(bare) == 2 and not any(np.any(one["input"]["bias"]) for one in bare)
    missing = dict(rnn.state_dict())
    del missing["bias_hh_l1_reverse"], missing["weight_hh_l1"]
    with pytest.raises(ValueError, match=r"missing: .*bias_hh_l1_reverse.*, weight_hh_l1$"):
        interop.from_torch(cell, missing)
    if not options:
        alone = getattr(torch.nn, f"{kind}Cell")(D, H)
        named = {f"{name}_l0": value for name, value in alone.state_dict().items()}
        read = interop.from_torch(cell, alone.state_dict())
        assert_close(read, interop.from_torch(cell, named), kind, 0)
        assert (
            len(interop.from_torch(cell, getattr(torch.nn, f"{kind}Cell")(D, H, bias=False))) == 1
        )
        alone.load_state_dict(
            {k: torch.tensor(np.asarray(v)) for k, v in single(cell, read[0]).items()}
        )


def test_modules_of_the_others_as_they_are():
    ours = weights(LSTM(H))
    state = nnx.OptimizedLSTMCell(D, H, rngs=nnx.Rngs(0))
    plain = interop.from_nnx(LSTM(H), nnx.to_pure_dict(nnx.state(state, nnx.Param)))
    for given in (
        state,
        nnx.state(state, nnx.Param),
        nnx.Dict(rnn=state, head=nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
    ):
        assert_close(interop.from_nnx(LSTM(H), given), plain, "nnx", 0)
    module = eqx.nn.GRUCell(D, H, key=jax.random.key(0))
    model = {"cell": module, "head": eqx.nn.Linear(3, 2, key=jax.random.key(1))}
    read = interop.from_equinox(GRU(H), module)
    assert_close(interop.from_equinox(GRU(H), model), read, "equinox", 0)
    bare = interop.from_equinox(GRU(H), eqx.nn.GRUCell(D, H, use_bias=False, key=jax.random.key(0)))
    assert not np.any(bare["input"]["bias"]) and not np.any(bare["recurrent"]["bias"])
    kernels = interop.to_keras(LSTM(H), ours)[:2]
    assert not np.any(interop.from_keras(LSTM(H), kernels)["input"]["bias"])
    core = interop.to_haiku(LSTM(H), ours, module="net/lstm")
    dense = {"net/mlp/linear": {"w": np.ones((4, 8), np.float32), "b": np.ones(8, np.float32)}}
    assert_close(interop.from_haiku(LSTM(H), core | dense), ours, "haiku", 1e-6)


def test_a_file_keeps_layers_without_parameters_and_is_never_empty(tmp_path):
    stack = Stack((Dropout(0.5), Dense(3), Dropout(0.1)))
    params = stack.init(jax.random.key(0), 2)
    path = tmp_path / "stack.safetensors"
    interop.save_safetensors(path, params)
    assert_close(interop.load_safetensors(path), params, "file", 0)
    for bad, message in (
        ({}, "expected at least one array, got none"),
        ({"a": {}}, "expected at least one array, got none"),
        ({"key": jax.random.key(0)}, "expected an array of numbers at 'key'"),
    ):
        with pytest.raises(ValueError, match=message):
            interop.save_safetensors(path, bad)
    # A file of torch, whose names have dots: the names of its modules.
    state = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(D, H)}).state_dict()
    save_file(state, str(path))
    read = interop.from_torch(LSTM(H), interop.load_safetensors(path))
    assert_close(read, interop.from_torch(LSTM(H), state), "file of torch", 0)
    save_file({"a": torch.ones(1), "a.b": torch.ones(1)}, str(path))
    with pytest.raises(ValueError, match="expected names that are paths, got 'a"):
        interop.load_safetensors(path)
    save_file({}, str(path))
    with pytest.raises(ValueError, match="with an array in it"):
        interop.load_safetensors(path)
