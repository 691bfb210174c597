"""What a user may hand over: taken where its meaning is plain, refused in words where it is not.

Nothing is compiled: every call that would compute is traced, or fails before that.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from longlag import GRU, LSTM, Carry, linear_scan, newton, unroll
from longlag.attention import Attention
from longlag.core.checks import as_key
from longlag.core.packing import buckets, lengths_to_mask, pack, pad_rows
from longlag.core.scans.matrix import matrix_scan
from longlag.core.spec import Spec
from longlag.models import Seq2Seq, SequenceModel, beam_search, build, generate, sample
from longlag.nn import Dense, Dropout, Norm, Recurrent, Stack
from longlag.runs import Experiment
from longlag.tasks import Batch
from longlag.training import Training
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, LAYERS
from tests.helpers.members import D as WIDTH
from tests.helpers.tiny import PARITY

B, T, D, V = 2, 3, 4, 5
XS = np.zeros((B, T, D), np.float32)
TOKENS = [[1, 2, 3], [4, 0, 1]]
MASK = [[True, True, False], [True, True, True]]
MODEL = build(inputs="tokens", in_features=V, out_features=V, cell=GRU(4), width=4)
FEATURES = dataclasses.replace(MODEL, inputs="features", in_features=D)
PAIRED = Seq2Seq("tokens", V, V, 4, (Recurrent(GRU(4)),), (Recurrent(GRU(4)),))
KEY = jax.random.key(0)
ONES = np.ones((B, T))
BATCH = Batch(np.array(TOKENS), np.array(TOKENS), ONES, ONES > 0, None)


def drawn(init: Any, *args: Any) -> Any:
    """Parameters of the right shapes."""
    shapes = jax.eval_shape(lambda: init(KEY, *args))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def traced(call: Any) -> Any:
    """What a call would give. What is handed over inside is known, as outside `jax.jit`."""
    return jax.eval_shape(call)


def run_cell(xs: Any = XS, cell: Any = GRU(4), by: Any = unroll, **options: Any) -> Any:  # noqa: B008
    return by(cell, drawn(cell.init, D), xs, **options)


def run_layer(xs: Any = XS, layer: Any = LAYERS["stack"], **options: Any) -> Any:
    return layer.apply(drawn(layer.init, WIDTH), np.swapaxes(xs, 0, 1), **options)


def run_model(inputs: Any = TOKENS, model: Any = MODEL, by: str = "apply", **options: Any) -> Any:
    return getattr(model, by)(drawn(model.init), inputs, **options)


def draw_tokens(prompt: Any = TOKENS, steps: Any = 2, key: Any = KEY, **options: Any) -> Any:
    return sample(MODEL, drawn(MODEL.init), prompt, steps, key, **options)


def search(inputs: Any = TOKENS, stop: Any = 1, max_length: Any = 2, **options: Any) -> Any:
    params = drawn(PAIRED.init)
    return generate(PAIRED, params, inputs, stop=stop, max_length=max_length, **options)


def beam(logits: Any = np.zeros(V), **options: Any) -> Any:  # noqa: B008
    given = {"start": 0, "stop": 1, "max_length": 2} | options
    return beam_search(lambda state, token: (state, jnp.asarray(logits)), np.zeros(2), **given)


def scan(a: Any = np.ones((T, D)), **options: Any) -> Any:  # noqa: B008
    return linear_scan(a, np.ones((T, D)), np.zeros(D), **options)


def scan_matrices(**options: Any) -> Any:
    given = {"q": np.ones((T, B, 2)), "k": np.ones((T, B, 2)), "v": np.ones((T, B, 3))}
    return matrix_scan(**(given | {"S0": np.zeros((B, 2, 3))} | options))


class Every(Spec):
    """A field of every kind."""

    count: int = 1
    rate: float = 0.5
    flag: bool = False
    name: str = "a"
    among: Literal["a", "b"] = "a"
    several: tuple[int, ...] = ()
    maybe: int | None = None
    inner: Spec | None = None
    chunk: int | Literal["sqrt"] = 0


TAKEN = {
    "lists": lambda: run_cell(XS.tolist(), mask=MASK, resets=MASK),
    "integers as inputs": lambda: run_cell(XS.astype(int)),
    "tensors of torch": lambda: run_cell(torch.zeros(B, T, D), mask=torch.ones(B, T).bool()),
    "a carry of NumPy": lambda: run_cell(carry=Carry(np.zeros((B, 4)))),
    "an old key": lambda: run_cell(key=jax.random.PRNGKey(0), zoneout=0.5),
    "numbers of NumPy": lambda: run_cell(zoneout=np.float32(0.1), remat=np.int64(2)),
    "lists, newton": lambda: run_cell(XS.tolist(), by=newton, mask=MASK, max_iterations=3.0),
    "lists, scan": lambda: scan([[1, 2, 3, 4]] * T, resets=[True, False, True]),
    "lists, matrices": lambda: scan_matrices(q=[[[1, 2]] * B] * T, rate=0.5, resets=[True] * T),
    "lists, model": lambda: run_model(mask=MASK, resets=MASK),
    "lists, features": lambda: run_model(XS.tolist(), FEATURES),
    "bytes, model": lambda: run_model(np.array(TOKENS, np.uint8)),
    "a masked token of any number": lambda: run_model([[1, 2, -1], [4, 0, 1]], mask=MASK),
    "lists, pairs": lambda: PAIRED.apply(drawn(PAIRED.init), TOKENS, TOKENS, mask=MASK),
    "prompts of several lengths": lambda: draw_tokens([[1], [1, 2, 3]], np.int64(2)),
    "an old key, drawing": lambda: draw_tokens(key=jax.random.PRNGKey(0)),
    "sources of several lengths": lambda: search([[1], [1, 2, 3]], max_length=2.0),
    "an empty list of lists": lambda: run_cell(np.zeros((0, T, D)), mask=np.zeros((0, T), bool)),
}

REFUSED = {
    "ragged rows": (lambda: run_cell([[[1.0] * D], [[1.0] * D] * 2]), "pads and masks rows"),
    "complex inputs": (lambda: run_cell(XS + 1j), "xs: expected real numbers, got complex", "pair"),
    "strings": (lambda: run_cell([["a"]]), "xs: expected an array of real numbers, got list"),
    "keys as inputs": (lambda: run_cell(jax.random.split(KEY, (B, T))), "xs: expected real", "key"),
    "None": (lambda: run_cell(None), "xs: expected an array of real numbers, got NoneType"),
    "lengths": (lambda: run_cell(mask=[3, 2]), "mask: expected bool of", "lengths_to_mask"),
    "lengths, layer": (lambda: run_layer(mask=np.array([3, 2])), "mask: ", "lengths_to_mask"),
    "a mask of numbers": (lambda: run_cell(mask=np.ones((B, T), np.int8)), "`mask != 0` makes"),
    "a mask of text": (lambda: run_cell(mask="yes"), "mask: expected an array of bools, got str"),
    "one bool": (lambda: run_cell(mask=True), "mask: expected bool of shape (2, 3)", "shape ()"),
    "resets of numbers": (lambda: run_cell(resets=[[0, 1, 0]] * B), "`resets != 0` makes bools"),
    "a complex carry": (lambda: run_cell(carry=Carry(np.zeros((B, 4), complex))), "carry.h: expec"),
    "a carry of lists": (lambda: run_cell(carry=[[0.0] * 4] * B), "carry: expected the structure"),
    "a carry of text": (lambda: run_cell(carry=Carry("h")), "carry.h: expected float32"),
    "a pair for a carry": (
        lambda: run_cell(cell=LSTM(4), carry=(np.zeros((B, 4)), np.zeros((B, 4)))),
        "carry: expected the structure PyTreeDef(CustomNode(LSTMCarry",
    ),
    "a number for a key": (lambda: run_cell(key=0), "expected one key, as `jax.random.key(0)"),
    "several keys": (
        lambda: run_cell(key=jax.random.split(KEY, 3)),
        "key: expected one key",
        "(3,",
    ),
    "a float key": (lambda: run_cell(key=np.zeros(2)), "key: expected one key", "float64"),
    "zoneout as text": (lambda: run_cell(zoneout="0.1"), "zoneout: expected a number, got str"),
    "remat as text": (lambda: run_cell(remat="half"), "remat: expected 'sqrt' or at least 1 step"),
    "remat as a bool": (lambda: run_cell(remat=True), "remat: expected", "got True"),
    "reverse as text": (lambda: run_cell(reverse="no"), "reverse: expected True or False, got str"),
    "newton, iterations": (
        lambda: run_cell(by=newton, max_iterations="9"),
        "max_iterations: expected an integer, got str '9'",
    ),
    "newton, tolerance": (
        lambda: run_cell(by=newton, tolerance=1j),
        "tolerance: expected a",
    ),
    "newton, lengths": (lambda: run_cell(by=newton, mask=[3, 2]), "lengths_to_mask"),
    "scan, complex": (lambda: scan(np.ones((T, D)) * 1j), "linear_scan: a: expected real", "pair"),
    "scan, text": (lambda: scan("a"), "linear_scan: a: expected an array of real numbers, got str"),
    "scan, resets": (lambda: scan(resets=[1, 0, 1]), "linear_scan: expected resets bool"),
    "scan, reverse": (lambda: scan(reverse=1), "reverse: expected True or False, got int 1"),
    "matrices, shapes": (lambda: scan_matrices(k=np.ones((T, B, 3))), "expected q and k [T, *batc"),
    "matrices, state": (lambda: scan_matrices(S0=np.zeros((2, 3))), "S0 [*batch, K, V]", "(2, 3)"),
    "matrices, rate": (lambda: scan_matrices(rate=np.ones((T, B, 2))), "rate (3, 2, 2)"),
    "matrices, resets": (
        lambda: scan_matrices(resets=np.ones(T)),
        "resets: expected bools",
    ),
    "matrices, complex": (
        lambda: scan_matrices(v=np.ones((T, B, 3)) * 1j),
        "v: expected real",
    ),
    "matrices, reset state": (lambda: scan_matrices(S_reset=0.0), "S_reset was given without"),
    "float tokens": (
        lambda: run_model([[1.0, 2.0]]),
        "inputs: expected tokens, integers",
        "float32",
    ),
    "bool tokens": (lambda: run_model([[True]]), "inputs: expected tokens, integers", "bool"),
    "a token too large": (lambda: run_model([[1, 5]]), "expected tokens of 0 .. 4, got 1 .. 5"),
    "a token below": (lambda: run_model([[-1, 1]]), "expected tokens of 0 .. 4, got -1 .. 1"),
    "a token beyond int32": (lambda: run_model([[2**40]]), "expected integers that fit int32"),
    "ragged tokens": (lambda: run_model([[1], [1, 2]]), "`longlag.pad_rows` pads"),
    "probe, lengths": (lambda: run_model(by="probe", mask=[3, 2]), "lengths_to_mask"),
    "steps that are floats": (
        lambda: MODEL.answer(drawn(MODEL.init), BATCH, at=[[0.5]] * B),
        "at: expected integers, got float",
    ),
    "features, complex": (lambda: run_model(XS + 1j, FEATURES), "inputs: expected real numbers"),
    "targets beyond": (
        lambda: PAIRED.apply(drawn(PAIRED.init), TOKENS, [[1, 9]] * B),
        "expected tokens of 0 .. 4, got 1 .. 9",
    ),
    "no prompt": (
        lambda: draw_tokens([[], [1]]),
        "in every row, got none in [0]",
    ),
    "a hidden prompt": (lambda: draw_tokens(mask=[[False] * 3, [True] * 3]), "got none in [0]"),
    "prompt of floats": (lambda: draw_tokens([[1.5]]), "prompt: expected tokens, integers"),
    "prompts and a mask": (
        lambda: draw_tokens([[1], [1, 2]], mask=[[True]]),
        "expected None",
    ),
    "prompt without rows": (lambda: draw_tokens([1, 2]), "prompt: expected [B, T, ...], got shape"),
    "draws as text": (lambda: draw_tokens(steps="2"), "steps: expected an integer, got str '2'"),
    "no key": (lambda: draw_tokens(key=None), "key: expected one key", "got None"),
    "a temperature of none": (
        lambda: draw_tokens(temperature=None),
        "expected a number",
    ),
    "no source": (lambda: search([[], [1]]), "in every row, got none in [0]"),
    "stop as text": (lambda: search(stop="."), "stop: expected an integer, got str"),
    "beams of a half": (lambda: search(beams=1.5), "beams: expected an integer, got float 1.5"),
    "logits of two axes": (lambda: beam(np.zeros((1, V))), "expected logits [V]", "(1, 5)"),
    "stop beyond": (lambda: beam(stop=V), "a token of 0 .. V - 1", "(5,) and 5"),
    "lengths beyond": (lambda: lengths_to_mask([2, 4], 3), "lengths: expected 0 .. 3, got 2 .. 4"),
    "lengths of floats": (lambda: lengths_to_mask([2.0], 3), "lengths: expected integers"),
    "documents beyond int32": (lambda: pack([[2**40]], 3), "documents[0]: expected integers that"),
    "documents of bools": (lambda: pack([[True]], 3), "documents[0]: expected integers", "bool"),
    "steps as text": (lambda: pack([[1]], "3"), "steps: expected an integer, got str '3'"),
    "no rows": (lambda: pad_rows([]), "rows: expected at least one row, got none"),
    "rows of rows": (lambda: pad_rows([[[1]]]), "rows[0]: expected integers of shape [L]"),
    "a batch of none": (lambda: [*buckets([1], [2], 0, 0)], "batch_size: expected at least 1"),
    "lengths below": (lambda: [*buckets([-1], [2], 1, 0)], "lengths: expected at least 0, got -1"),
    "a layer's features": (
        lambda: run_layer(np.zeros((B, T, 1)), Norm()),
        "xs: expected [T, B, 4]",
    ),
    "a map's features": (
        lambda: run_layer(np.zeros((B, T, 1)), Dense(3)),
        "xs: expected [T, B, 4]",
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_plain_is_taken(case):
    traced(TAKEN[case])


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_refused_in_words(case):
    call, *words = REFUSED[case]
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)


EVERYTHING = {**ATTENTION_LAYERS, **BLOCKS, **LAYERS}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_layer_takes_lists_and_refuses_numbers_for_a_mask(name):
    layer = EVERYTHING[name]
    xs = np.zeros((T, B, WIDTH)).tolist()
    flags = [[True, False]] * T
    params = drawn(layer.init, WIDTH)
    old = jax.random.PRNGKey(0)
    of_lists = functools.partial(layer.apply, xs=xs, mask=flags, resets=flags, key=old)
    assert jax.eval_shape(of_lists, params)[1].shape[:2] == (T, B)
    for call in (layer.apply, layer.probe):
        for flag, word in (([3, 2], "lengths_to_mask"), (np.ones((T, B)), "`mask != 0`")):
            with pytest.raises(ValueError, match=r"mask: expected bool") as error:
                call(params, xs, mask=flag)
            assert word in str(error.value)
    with pytest.raises(ValueError, match="xs: expected real numbers, got complex"):
        layer.apply(params, np.ones((T, B, WIDTH)) * 1j)
    if isinstance(layer, Attention):
        with pytest.raises(ValueError, match="mask: expected bool"):
            layer.weights(params, xs, mask=[3, 2])


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"count": np.int64(3)}, 3),
        ({"count": 1e4}, 10000),
        ({"count": np.array(3)}, 3),
        ({"rate": np.float32(0.25)}, 0.25),
        ({"rate": 1}, 1),
        ({"flag": np.True_}, True),
        ({"several": [1, np.int32(2)]}, (1, 2)),
        ({"several": range(2)}, (0, 1)),
        ({"maybe": 2.0}, 2),
        ({"maybe": None}, None),
        ({"inner": Every()}, Every()),
        ({"chunk": "sqrt"}, "sqrt"),
    ],
    ids=str,
)
def test_a_field_takes_what_is_plain(changes, taken):
    spec = Every(**changes)
    (value,) = (getattr(spec, name) for name in changes)
    assert value == taken and type(value) is type(taken)
    assert hash(spec) == hash(dataclasses.replace(Every(), **{next(iter(changes)): taken}))
    json.dumps(value) if not isinstance(value, Spec) else None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": "8"}, "Every.count: expected an integer, got str '8'"),
        ({"count": True}, "Every.count: expected an integer, got True"),
        ({"count": 8.5}, "Every.count: expected an integer, got float 8.5"),
        ({"count": float("inf")}, "Every.count: expected an integer, got float inf"),
        ({"count": np.arange(2)}, "Every.count: expected an integer, got ndarray"),
        ({"rate": 1j}, "Every.rate: expected a number, got complex 1j"),
        ({"rate": float("nan")}, "Every.rate: expected a number, got float nan"),
        ({"rate": False}, "Every.rate: expected a number, got False"),
        ({"flag": 1}, "Every.flag: expected True or False, got int 1"),
        ({"flag": "no"}, "Every.flag: expected True or False, got str 'no'"),
        ({"name": 3}, "Every.name: expected a string, got int 3"),
        ({"among": 3}, "Every.among: expected one of 'a', 'b', got int 3"),
        ({"several": "12"}, "Every.several: expected a tuple, each an integer, got str '12'"),
        ({"several": [1, "2"]}, "Every.several: expected a tuple, each an integer, got list"),
        ({"several": 3}, "Every.several: expected a tuple, each an integer, got int 3"),
        ({"maybe": "3"}, "Every.maybe: expected an integer or None, got str '3'"),
        ({"inner": Every}, "Every.inner: expected a Spec or None, got the class Every"),
        ({"chunk": 0.5}, "Every.chunk: expected an integer or one of 'sqrt', got float 0.5"),
    ],
    ids=str,
)
def test_a_field_refuses_what_is_not(changes, message):
    with pytest.raises(ValueError) as error:
        Every(**changes)
    assert message in str(error.value)


SPECS = [
    *CELLS,
    *EVERYTHING.values(),
    MODEL,
    PAIRED,
    Training(),
    PARITY.architecture,
    PARITY,
    PARITY.task,
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_no_field_of_the_library_takes_an_object(spec):
    """The annotation of every field can be resolved, so that every field is checked."""
    for field in dataclasses.fields(spec):
        with pytest.raises(ValueError, match=f"{type(spec).__name__}.{field.name}: expected "):
            dataclasses.replace(spec, **{field.name: object()})


@pytest.mark.parametrize(
    ("part", "entry", "value", "message"),
    [
        ("training", "steps", "20", "Training.steps: expected an integer, got str '20'"),
        ("training", "stop_when_solved", "yes", "Training.stop_when_solved: expected True or"),
        ("training", "learning_rate", None, "Training.learning_rate: expected a number, got None"),
        ("architecture", "width", [8], "Architecture.width: expected an integer, got tuple"),
        ("cell", "features", "8", "LSTM.features: expected an integer, got str '8'"),
        ("task", "max_length", 8.5, "Parity.max_length: expected an integer, got float 8.5"),
        (None, "seeds", "2", "Experiment.seeds: expected an integer, got str '2'"),
        (None, "test_lags", "16", "Experiment.test_lags: expected a tuple, each an integer, got"),
    ],
)
def test_a_wrong_type_in_config_json_is_refused(part, entry, value, message):
    config = json.loads(json.dumps(PARITY.config()))
    assert Experiment.from_config(config) == PARITY  # JSON has lists for tuples
    (config if part is None else config[part])[entry] = value
    with pytest.raises(ValueError) as error:
        Experiment.from_config(config)
    assert message in str(error.value) and "config.json: " in str(error.value)


def test_an_old_key_gives_the_numbers_of_a_new_one():
    new = as_key("key", jax.random.PRNGKey(3))
    assert new is not None and new == jax.random.key(3)
    assert as_key("key", np.asarray(jax.random.PRNGKey(3))) == new and as_key("key", None) is None


def test_dropout_of_a_stack_takes_an_old_key():
    layer = Stack((Dropout(0.5), Dense(3)))
    assert isinstance(MODEL, SequenceModel)
    run = functools.partial(layer.apply, drawn(layer.init, WIDTH), key=jax.random.PRNGKey(1))
    assert jax.eval_shape(run, np.zeros((T, B, WIDTH)))[1].shape == (T, B, 3)
