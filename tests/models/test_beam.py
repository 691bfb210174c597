"""Greedy and beam search against all continuations there are."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.attention import Additive
from longlag.cells import GRU
from longlag.models import Seq2Seq, beam_search, generate
from longlag.nn import Recurrent

STOP, START, V, LONGEST = 0, 1, 3, 4
MODEL = Seq2Seq(
    "tokens",
    in_features=5,
    out_features=V,
    width=4,
    encoder=(Recurrent(GRU(4)),),
    decoder=(Recurrent(GRU(4)),),
    attention=Additive(4),
    input_feeding=True,
    start=START,
)
SOURCES = np.array([[1, 2, 3, 4], [4, 4, 0, 0], [2, 0, 0, 0]])
MASK = np.arange(4) < np.array([[4], [2], [1]])


@pytest.fixture(scope="module")
def params():
    params = MODEL.init(jax.random.key(1))
    params["head"]["kernel"] = 3 * jax.random.normal(jax.random.key(2), (4, V))
    return params


def continuations():
    """Every one of at most LONGEST tokens: those that stop, and those that are cut."""
    others = [v for v in range(V) if v != STOP]
    for n in range(LONGEST):
        yield from ((*c, STOP) for c in itertools.product(others, repeat=n))
    yield from itertools.product(others, repeat=LONGEST)


@pytest.fixture(scope="module")
def scored(params):
    """The log-probability of every continuation of every source, under teacher forcing."""
    every = list(continuations())
    targets = np.array([[*c, *[STOP] * (LONGEST - len(c))] for c in every])
    asked = np.arange(LONGEST) < np.array([[len(c)] for c in every])
    found = []
    for source, mask in zip(SOURCES, MASK):
        rows = np.broadcast_to(source, (len(every), 4)), np.broadcast_to(mask, (len(every), 4))
        answers = jax.jit(MODEL.apply)(params, rows[0], targets, mask=rows[1])
        each = np.take_along_axis(np.asarray(jax.nn.log_softmax(answers)), targets[..., None], 2)
        found.append((each[..., 0] * asked).sum(1))
    return every, np.array(found)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_as_wide_as_all_continuations_finds_the_best(params, scored, alpha):
    every, log_probs = scored
    lengths = np.array([len(c) for c in every])
    scores = log_probs / ((5 + lengths) / 6) ** alpha
    found = generate(
        MODEL,
        params,
        SOURCES,
        mask=MASK,
        stop=STOP,
        max_length=LONGEST,
        beams=len(every),
        length_penalty=alpha,
    )
    for row in range(len(SOURCES)):
        order = np.argsort(-scores[row])
        np.testing.assert_allclose(found.scores[row], scores[row, order], 1e-4, 1e-5)
        np.testing.assert_allclose(found.log_probs[row], log_probs[row, order], 1e-4, 1e-5)
        best = every[order[0]]
        assert found.tokens[row, 0, : len(best)].tolist() == list(best)
        assert found.lengths[row, 0] == len(best) - (best[-1] == STOP)
    if alpha:
        assert np.any(scores.argsort(1) != log_probs.argsort(1)), "a penalty that shows nothing"


def test_one_beam_is_greedy(params):
    found = generate(MODEL, params, SOURCES, mask=MASK, stop=STOP, max_length=6)
    decode = jax.jit(MODEL.decode)
    for row in range(len(SOURCES)):
        encoded = MODEL.encode(params, SOURCES[row : row + 1], mask=MASK[row : row + 1])
        state, token, said, total = MODEL.init_state(params, 1, 6), START, [], 0.0
        while len(said) < 6 and STOP not in said:
            state, answers = decode(params, encoded, jnp.array([[token]]), state)
            token = int(answers[0, 0].argmax())
            total += float(jax.nn.log_softmax(answers[0, 0])[token])
            said.append(token)
        assert found.tokens[row, 0].tolist() == said + [STOP] * (6 - len(said))
        assert found.lengths[row, 0] == len(said) - (said[-1] == STOP)
        np.testing.assert_allclose(found.log_probs[row, 0], total, 1e-5, 1e-5)


def test_greedy_may_miss_what_a_beam_finds():
    """The classic trap: the likelier first token leads to two unlikely ones."""
    table = jnp.log(jnp.array([[0.02, 0.55, 0.43], [0.34, 0.33, 0.33], [0.96, 0.02, 0.02]]))
    table = jnp.stack([table[0], table[1], table[2]])

    def step(first, token):
        return jnp.bool_(False), jnp.where(first, table[0], table[token])

    def search(beams):
        start = {"start": START, "stop": STOP, "max_length": 2, "beams": beams}
        return jax.jit(lambda: beam_search(step, jnp.bool_(True), **start))()

    assert search(1).tokens[0].tolist() == [1, 0]
    assert search(2).tokens[0].tolist() == [2, 0]
    np.testing.assert_allclose(search(2).log_probs[0], np.log(0.43 * 0.96), 1e-6)


def test_bad_options_are_refused(params):
    for options, message in (
        ({"stop": 3}, r"stop: expected a token of 0 \.\. 2, got 3"),
        ({"beams": 0}, "beams: expected at least 1, got 0"),
        ({"max_length": 0}, "max_length: expected at least 1, got 0"),
        ({"length_penalty": -1.0}, "length_penalty: expected at least 0, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(MODEL, params, SOURCES, **{"stop": STOP, "max_length": 4, **options})
