"""Weight decay: which parameters it shrinks, of everything that the library has."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from longlag import LSTM
from longlag.attention import Additive
from longlag.cells import GRU
from longlag.cli import compare
from longlag.core.cell import Cell
from longlag.core.spec import Spec
from longlag.core.weight_decay import by_name, decay_mask
from longlag.models import Embedding, Pictures, Seq2Seq, build
from longlag.nn import Bidirectional, Block, Layer, Recurrent
from longlag.runs import create
from longlag.training import Training
from tests.helpers.members import ATTENTION_LAYERS, BLOCKS, CELLS, LAYERS, D
from tests.helpers.tiny import PARITY

# Every name that a parameter has in the library. A new one has to be decided on here.
DECAYS = {"kernel", "embedding", "down", "up", "score"}
STAYS = {
    *("bias", "scale", "carry"),
    *("norm.input", "norm.recurrent", "norm.cell"),  # the scales of LayerNormLSTM
    *("nu", "theta", "gamma_log"),  # LRU
    *("lambda_re", "lambda_im", "log_step"),  # S5
    *("decay", "decay_log"),  # RG-LRU; S6 and Gated DeltaNet
}

MODELS = {
    "tokens": build(inputs="tokens", in_features=5, out_features=3, cell=LSTM(4), width=4, depth=2),
    "features": build(
        inputs="features", in_features=5, out_features=3, cell=GRU(4), width=8, attention="full"
    ),
    "seq2seq": Seq2Seq(
        inputs="tokens",
        in_features=5,
        out_features=3,
        width=4,
        encoder=(Bidirectional(GRU(2)),),
        decoder=(Recurrent(GRU(4)),),
        attention=Additive(4),
        input_feeding=True,
    ),
    "pictures": Seq2Seq(
        inputs="pictures",
        in_features=12,
        out_features=3,
        width=4,
        encoder=(),
        decoder=(Recurrent(GRU(4)),),
        attention=Additive(4),
        summary="mean",
    ),
}
LAYERS_OF_ALL_KINDS = LAYERS | BLOCKS | ATTENTION_LAYERS


@functools.cache
def of_all() -> tuple[dict[str, Any], dict[str, Any]]:
    """The shapes of every member's parameters by name, and what it says of their decay."""
    params: dict[str, Any] = {}
    decays: dict[str, Any] = {}
    key = jax.random.key(0)
    for i, cell in enumerate(CELLS):
        params[f"{cell}-{i}"] = shapes = jax.eval_shape(lambda cell=cell: cell.init(key, D))
        decays[f"{cell}-{i}"] = cell.decays(shapes)
    for name, layer in LAYERS_OF_ALL_KINDS.items():
        params[name] = shapes = jax.eval_shape(lambda layer=layer: layer.init(key, D))
        decays[name] = layer.decays(shapes)
    for name, model in MODELS.items():
        params[f"model {name}"] = shapes = jax.eval_shape(lambda model=model: model.init(key))
        decays[f"model {name}"] = decay_mask(model, shapes)
    return params, decays


def name_of(path: Any) -> str:
    keys = [str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey)]
    last_two = ".".join(keys[-2:])
    return last_two if last_two in STAYS else keys[-1]


def test_what_sets_a_decay_or_a_scale_does_not_decay_and_kernels_do():
    params, decays = of_all()
    assert jax.tree.structure(params) == jax.tree.structure(decays)
    leaves = [(name_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(decays)]
    assert {name for name, decay in leaves if decay is True} == DECAYS
    assert {name for name, decay in leaves if decay is False} == STAYS


class Everything(Spec):
    """A model that consists of every member's parameters, each a single one."""

    def init(self, key):
        return jax.tree.map(lambda leaf: jnp.ones(()), of_all()[0])

    def decays(self, params):
        return of_all()[1]


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_without_a_gradient_only_what_decays_moves(name: str):
    model = Everything()
    training = Training(optimizer=name, weight_decay=0.5, learning_rate=0.5, clip=0)
    transformation, params = training.transformation_for(model), model.init(None)
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(still, transformation.init(params), params)
    expected = jax.tree.map(lambda decays: -0.25 if decays else 0.0, model.decays(None))
    assert jax.tree.map(float, updates) == expected


# The leaves that a container or model has beside its parts.
OWN = {"gate.bias", "join.bias", "head.bias", "summary.bias", "attentional.bias"}


def has_parts(member: Any) -> bool:
    values = [getattr(member, field.name) for field in dataclasses.fields(member)]
    flat = [each for value in values for each in (value if isinstance(value, tuple) else (value,))]
    return isinstance(member, Block) or any(isinstance(each, Cell | Layer) for each in flat)


CONTAINERS = [name for name, layer in LAYERS_OF_ALL_KINDS.items() if has_parts(layer)]


@pytest.mark.parametrize("name", [*CONTAINERS, *MODELS])
def test_a_container_asks_each_of_its_parts(name: str, monkeypatch: pytest.MonkeyPatch):
    """Every part is made to say that all of it decays."""
    member: Any = (LAYERS_OF_ALL_KINDS | MODELS)[name]
    arguments = () if name in MODELS else (D,)
    params = jax.eval_shape(lambda: member.init(jax.random.key(0), *arguments))

    def all_of_it(self, params):
        return by_name(params) if self is member else jax.tree.map(lambda _: True, params)

    for part in (Cell, Layer, Embedding, Pictures):
        monkeypatch.setattr(part, "decays", all_of_it)
    paths = jax.tree_util.tree_leaves_with_path(member.decays(params))
    left_out = {name_of_two(path) for path, decays in paths if not decays}
    assert left_out <= OWN


def name_of_two(path: Any) -> str:
    return ".".join(str(entry.key) for entry in path[-2:])


class Mine(LSTM):
    """A cell whose author lets nothing decay but the forget gate's bias."""

    def decays(self, params):
        return jax.tree.map(lambda _: False, params) | {"input": {"kernel": False, "bias": True}}


def test_the_author_of_a_cell_decides_and_the_run_says_what_decays(tmp_path: Path):
    how = dataclasses.replace(PARITY.training, optimizer="adamw")
    usual = dataclasses.replace(PARITY, training=how)
    mine = dataclasses.replace(usual, cell=Mine(8))
    kernels = "embed.embedding, head.kernel, input.kernel, recurrent.kernel"
    assert compare.weight_decay(usual) == [
        f"weight decay 0.1 of {kernels}; not of head.bias, input.bias, norm.scale, scale"
    ]
    assert mine.weight_decay == {
        "decays": ["embed.embedding", "head.kernel", "input.bias"],
        "stays": ["head.bias", "input.kernel", "norm.scale", "recurrent.kernel", "scale"],
    }
    folder = create(usual, tmp_path / "run", tmp_path, "unused")
    assert folder.env["weight_decay"] == usual.weight_decay
    assert compare.weight_decay(PARITY) == []
    none = dataclasses.replace(usual, training=dataclasses.replace(how, weight_decay=0.0))
    assert none.weight_decay is None


@pytest.mark.parametrize(
    ("decays", "message"),
    [
        (lambda params: {"kernel": True}, "expected a tree of bools like the parameters"),
        (lambda params: {"kernel": True, "bias": 1}, "expected a bool for bias; got 1"),
    ],
)
def test_what_is_no_tree_of_bools_is_refused(decays: Any, message: str):
    class Wrong(Spec):
        def decays(self, params):
            return decays(params)

    with pytest.raises(ValueError, match=message):
        decay_mask(Wrong(), {"kernel": jnp.ones(2), "bias": jnp.ones(2)})
