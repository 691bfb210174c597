"""Each counterpart of docs/agreement.md: equal weights, equal outputs, carries and gradients."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import pytest

from experiments.harness import record
from longlag.nn import Bidirectional
from longlag.testing.running import assert_close
from tests import peers
from tests.peers import COUNTERPARTS, agreement
from tests.peers.measure import arguments, draw, measure, ours

# Not ours to mend: keras hands numpy its variables the old way, torch says which kernel it takes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
]


def of_parts(counterpart):
    """Whether other pairs have its parts, so that its seconds are for `make test-deep`."""
    either = (
        isinstance(counterpart.ours, Bidirectional),
        *map(counterpart.here.count, ("window", "kv heads")),
    )
    return any(either) and counterpart.package != "torch"


@pytest.mark.parametrize(
    "counterpart",
    [pytest.param(p, marks=[pytest.mark.deep] if of_parts(p) else []) for p in COUNTERPARTS],
    ids=str,
)
def test_a_peer_gives_the_same_on_our_weights_and_we_on_its(counterpart):
    """In float64, which hides nothing, where the peer has that."""
    kind = "float64" if counterpart.float64 else "float32"
    with jax.enable_x64(counterpart.float64):
        peer = counterpart.build()
        check(measure(counterpart, peer), kind)
        if counterpart.from_theirs is None:
            return
        weights, *others = arguments(counterpart, peer)
        there = counterpart.to_theirs(weights)
        expected = jax.tree.map(jnp.asarray, counterpart.to_ours(weights))
        if counterpart.note != "r = z":
            assert_close(
                counterpart.from_theirs(there), expected, f"{counterpart}, there and back", 1e-6
            )
        # Its own weights, which may have more than ours make: a second bias, say.
        own = draw(peer.fresh, 5, 0.3)
        here = ours(counterpart.ours, counterpart.from_theirs(own), *others)[0]
        assert_close(here, peer.run(own, *others)[0], f"{counterpart}, its own", 1e-5)


def check(found, kind):
    assert max(found["outputs"], found["gradients"]) <= agreement.BOUNDS[kind], found


@pytest.mark.deep
@pytest.mark.parametrize(
    "counterpart", [counterpart for counterpart in COUNTERPARTS if counterpart.float64], ids=str
)
def test_in_float32_too(counterpart):
    check(measure(counterpart, counterpart.build()), "float32")


def test_the_script_leaves_what_the_table_is_made_of(tmp_path, monkeypatch):
    counterparts = [p for p in COUNTERPARTS if p.name == "torch.nn.MultiheadAttention"]
    monkeypatch.setattr(peers, "COUNTERPARTS", counterparts)
    assert agreement.main(tmp_path / "new" / "folder") == 0
    results = json.loads((tmp_path / "new" / "folder" / "results.json").read_text("utf-8"))
    assert set(results["meta"]["versions"]) >= {counterpart.package for counterpart in counterparts}
    assert [line[0] for line in agreement.lines(results)] == [
        counterpart.here for counterpart in counterparts
    ]


def test_the_table_has_every_pair_and_keeps_its_bounds():
    results = json.loads((record.RESULTS / "agreement" / "cpu.json").read_text("utf-8"))
    rows = results["rows"]
    assert [(row["here"], row["there"]) for row in rows] == [(p.here, p.name) for p in COUNTERPARTS]
    for row, counterpart in zip(rows, COUNTERPARTS):
        assert (row["float64"] is not None) == counterpart.float64
        for kind in agreement.BOUNDS:
            if row[kind]:
                check(row[kind], kind)
