from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from longlag.attention import Additive, DotProduct, Local, Multiplicative
from longlag.attention import additive as additive_module
from longlag.attention import attention as attention_module
from longlag.nn import Stack
from longlag.testing.running import jit
from tests.helpers.attention_oracle import attend
from tests.helpers.streams import CHUNK, B, T, close, drawn_like, flags, same

D = 4

# Windows smaller and larger than a chunk. With window 2 the whole and its chunks go block by block
# (T > 2 * window), with padding; with window 7 only the whole does; with window 3 a chunk is read
# at once though it is longer than the window.
ADDITIVE = Additive(6)
FULL = DotProduct(8, heads=2)
LAYERS = {
    "additive": ADDITIVE,
    "additive-window-3": Additive(6, window=3),
    "full": FULL,
    "window-2": DotProduct(8, heads=2, window=2),
    "window-7": DotProduct(8, heads=2, window=7, stretch=3.0),
    "general": Multiplicative(4),
    "dot-window-3": Multiplicative(4, score="dot", window=3),
    "alibi-grouped": DotProduct(
        5, heads=4, kv_heads=2, inner_features=16, positions="alibi", stretch=0.5
    ),
    "learned-multi-query": DotProduct(
        8, heads=2, kv_heads=1, positions="learned", max_positions=40
    ),
    "local": Local(5, attention=Additive(6), radius=3),
}


# Module scope groups the tests of one layer, so that they share its programs, on one worker too.
@pytest.fixture(scope="module", params=LAYERS.values(), ids=LAYERS.keys())
def layer(request):
    return request.param


def drawn(layer, steps: int = T, seed: int = 0):
    """Parameters, none of them zero, inputs and the gradient that comes back, in float64."""
    rng = np.random.default_rng(seed)
    params = drawn_like(jax.eval_shape(lambda: layer.init(jax.random.key(0), D)), rng)
    width = layer.out_features(D)
    return params, rng.normal(size=(steps, B, D)), rng.normal(size=(steps, B, width))


def empty(layer, params, steps: int = T):
    """The first state, of the least capacity that will do: one for a window."""
    return layer.init_state(params, (B,), steps if getattr(layer, "window", None) is None else 1)


def in_chunks(layer, size, params, state, xs, mask, resets):
    """Chunk after chunk."""

    def body(state, chunk):
        state, ys = layer.apply(params, chunk[0], state, mask=chunk[1], resets=chunk[2])
        return state, ys

    chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), (xs, mask, resets))
    state, ys = jax.lax.scan(body, state, chunks)
    return ys.reshape(xs.shape[0], *ys.shape[2:]), state


def with_gradients(layer) -> tuple[int | None, ...]:
    """How a sequence is cut where gradients are tested; they compile slowly, the rest is deep."""
    return (None, CHUNK) if layer in (ADDITIVE, FULL, LAYERS["window-2"]) else (CHUNK,)


@functools.cache
def program(layer, size: int | None, steps: int = T, pullback: bool | None = None):
    """One compiled program: outputs, weights or last state, and the pullback of a gradient."""
    pullback = size in with_gradients(layer) if pullback is None else pullback

    def outputs(params, xs, mask, resets, entries, state):
        if size is not None:
            state = state.replace(entries=entries)
            return in_chunks(layer, size, params, state, xs, mask, resets)
        none, ys = layer.apply(params, xs, mask=mask, resets=resets)
        assert none is None
        if layer.window is not None:  # their weights: test_other_forms_equal_the_oracle
            return ys, None
        return ys, layer.weights(params, xs, mask=mask, resets=resets)

    @jit
    def compiled(params, xs, mask, resets, gradient, state):
        if not pullback:
            return *outputs(params, xs, mask, resets, state.entries, state), None
        ys, pull, extra = jax.vjp(
            lambda p, x, entries: outputs(p, x, mask, resets, entries, state),
            params,
            xs,
            state.entries,
            has_aux=True,
        )
        return ys, extra, pull(gradient)

    def run(params, xs, mask, resets, gradient, state=None):
        state = empty(layer, params, steps) if state is None else state
        return compiled(params, xs, mask, resets, gradient, state)

    return run


def remembers(layer, state, expected) -> None:
    """The cache holds the newest entries of each row's past, each in its slot, and no other."""
    slots = state.position.shape[1]
    for row, past in enumerate(expected.pasts):
        assert state.count[row] == len(past)
        kept = dict(list(enumerate(past))[-slots:])
        wanted = np.full(slots, -1)
        for position, entry in kept.items():
            wanted[position % slots] = position
            close(jax.tree.map(lambda e, r=row, p=position: e[r, p % slots], state.entries), entry)
        np.testing.assert_array_equal(state.position[row], wanted)


def has_gradients(layer, params, xs, mask, resets, gradient, got) -> None:
    """Derivatives along random directions, one leaf at a time, against the complex step."""
    rng = np.random.default_rng(2)
    point, got = jax.tree.leaves((params, xs)), jax.tree.leaves(got[:2])
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path((params, xs))]
    for i, name in enumerate(names):
        direction = rng.normal(size=point[i].shape)
        moved = [leaf + 1e-30j * direction if i == j else leaf for j, leaf in enumerate(point)]
        moved = jax.tree.unflatten(jax.tree.structure((params, xs)), moved)
        ys = attend(layer, *moved, mask, resets).outputs
        slope = np.sum(ys.imag * gradient) / 1e-30
        assert abs(slope) > 1e-3, f"{name}: a direction that shows nothing"
        np.testing.assert_allclose(np.sum(got[i] * direction), slope, 1e-10, 1e-10, err_msg=name)


def test_whole_chunks_and_steps_equal_the_oracle(layer, x64):
    params, xs, gradient = drawn(layer)
    mask, resets = flags()
    expected = attend(layer, params, xs, mask, resets)
    for size in (None, CHUNK, 1):
        run = program(layer, size)
        ys, extra, gradients = run(params, xs, mask, resets, gradient)
        close(ys, expected.outputs)
        assert np.all(np.asarray(ys)[~mask] == 0)
        if size is None:
            close(extra, None if extra is None else expected.weights)
        else:
            remembers(layer, extra, expected)
        if size in with_gradients(layer):
            has_gradients(layer, params, xs, mask, resets, gradient, gradients)


@pytest.mark.deep
@pytest.mark.parametrize("size", [None, 15, 3, 1])
def test_gradients_of_other_chunks_equal_the_oracle(layer, size, x64):
    params, xs, gradient = drawn(layer)
    mask, resets = flags()
    run = program(layer, size, pullback=True)
    ys, _, gradients = run(params, xs, mask, resets, gradient)
    close(ys, attend(layer, params, xs, mask, resets).outputs)
    has_gradients(layer, params, xs, mask, resets, gradient, gradients)


def test_a_nan_in_a_masked_input_reaches_nothing(layer, x64):
    params, xs, gradient = drawn(layer)
    mask, resets = flags()
    hidden = np.where(mask[..., None], xs, np.nan)
    for size in with_gradients(layer):
        run = program(layer, size)
        clean = run(params, xs, mask, resets, gradient)
        got = run(params, hidden, mask, resets, gradient)
        # The pullback of a masked input is zero, so all can be compared.
        same(got, clean)


def test_a_nan_at_a_live_step_is_seen_by_those_who_read_it_and_by_no_other(layer, x64):
    params, xs, gradient = drawn(layer)
    mask, resets = flags()
    xs[6] = np.nan
    expected = attend(layer, params, xs, mask, resets).outputs
    if isinstance(layer, Local):  # those who may read it, near or far
        all_seen = attend(layer.attention, params["attention"], xs, mask, resets).outputs
        expected[np.isnan(all_seen)] = np.nan
    assert np.isnan(expected).any(axis=(1, 2)).tolist()[:7] == [False] * 6 + [True]
    for size in (None, CHUNK, 1):
        run = program(layer, size)
        close(run(params, xs, mask, resets, gradient)[0], expected)


def test_a_step_reads_its_window_and_nothing_else(layer, x64):
    params, xs, _ = drawn(layer)
    mask, resets = flags()
    reader = 11
    gradient = np.zeros((T, B, layer.out_features(D)))
    gradient[reader] = 1.0
    read = attend(layer, params, xs, mask, resets).weights[:, reader] > 0  # [B, T]
    read[:, reader] = mask[reader]  # its own query, also where it reads others alone
    for size in with_gradients(layer):
        _, _, (_, d_xs, _) = program(layer, size)(params, xs, mask, resets, gradient)
        np.testing.assert_array_equal(np.any(np.asarray(d_xs) != 0, axis=-1).T, read)


def test_zero_inputs_and_rows_that_see_nothing_have_finite_gradients(layer, x64):
    params, xs, gradient = drawn(layer)
    nothing = np.zeros((T, B), bool)
    run = program(layer, CHUNK)
    ys, state, gradients = run(params, xs, nothing, nothing, gradient)
    assert not np.any(ys)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))
    assert np.all(state.position == -1)
    mask, resets = flags()
    ys, _, gradients = run(params, np.zeros_like(xs), mask, resets, gradient)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((ys, gradients)))


def test_additive_attention_in_query_blocks_equals_the_oracle(x64):
    steps = 40
    params, xs, gradient = drawn(ADDITIVE, steps)
    mask, resets = flags(steps)
    expected = attend(ADDITIVE, params, xs, mask, resets)
    run = program(ADDITIVE, None, steps)
    ys, weights, gradients = run(params, xs, mask, resets, gradient)
    close((ys, weights), (expected.outputs, expected.weights))
    has_gradients(ADDITIVE, params, xs, mask, resets, gradient, gradients)

    size = 20
    assert size > additive_module.QUERY_BLOCK
    run = program(ADDITIVE, size, steps, pullback=False)
    ys, state, _ = run(params, xs, mask, resets, gradient)
    close(ys, expected.outputs)
    remembers(ADDITIVE, state, expected)


@pytest.mark.parametrize("name", ["full", "alibi-grouped", "local", "window-7"])
def test_a_chunk_read_in_parts_equals_the_oracle(name, x64, monkeypatch):
    layer, steps = LAYERS[name], 22  # a number of steps of its own, for programs of its own
    monkeypatch.setattr(attention_module, "LEAST", 2)
    params, xs, gradient = drawn(layer, steps)
    mask, resets = flags(steps)
    expected = attend(layer, params, xs, mask, resets)
    for size in (None, 11):  # parts of 6, the last of 4; of 4, behind a cache, the last of 3
        pullback = name == "full"
        run = program(layer, size, steps, pullback=pullback)
        ys, extra, gradients = run(params, xs, mask, resets, gradient)
        close(ys, expected.outputs)
        if size is not None:
            remembers(layer, extra, expected)
        elif layer.window is None:
            close(extra, expected.weights)
        if pullback:
            has_gradients(layer, params, xs, mask, resets, gradient, gradients)


def test_a_chunk_read_in_parts_has_a_quarter_of_the_scores_of_the_future(monkeypatch):
    monkeypatch.setattr(attention_module, "LEAST", 64)
    found = []

    class Noted(DotProduct):
        def read(self, params, xs, memory):
            found.append(memory.visible.shape[1:])
            return super().read(params, xs, memory)

    layer = Noted(8, heads=2)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), D))
    for steps in (64, 65, 256):
        jax.eval_shape(layer.apply, params, jax.ShapeDtypeStruct((steps, B, D), jnp.float32))
    assert found[:3] == [(64, 64), (64, 64), (1, 65)]
    # After the parts of a program for CPU, the whole of one for another platform.
    assert found[3:] == [(65, 65), (64, 64), (64, 128), (64, 192), (64, 256), (256, 256)]


@pytest.mark.parametrize(
    "other",
    [DotProduct(8, heads=4, positions="none", window=4), Additive(6, window=1)],
    ids=["unordered-window-4", "additive-window-1"],
)
def test_other_forms_equal_the_oracle(other, x64):
    params, xs, _ = drawn(other)
    mask, resets = flags()
    run = jit(lambda p, x, m, r: other.probe(p, x, mask=m, resets=r))
    expected = attend(other, params, xs, mask, resets)
    probed = run(params, xs, mask, resets)
    close(probed, {"outputs": expected.outputs, "weights": expected.weights})


@pytest.mark.parametrize(
    ("name", "size"), [("full", CHUNK), ("window-2", CHUNK), ("additive-window-3", None)]
)
def test_no_mask_is_a_mask_of_ones_and_no_resets_are_none(name, size, x64):
    layer = LAYERS[name]
    params, xs, _ = drawn(layer)
    mask, resets = flags()

    @jit
    def run(params, xs, mask, resets):
        if size is None:
            return layer.apply(params, xs, mask=mask, resets=resets)[1], None
        return in_chunks(layer, size, params, empty(layer, params), xs, mask, resets)

    for case in ((None, None), (mask, None), (None, resets)):
        given = [np.full((T, B), i == 0) if f is None else f for i, f in enumerate(case)]
        expected = attend(layer, params, xs, *given)
        ys, state = run(params, xs, *case)
        close(ys, expected.outputs)
        if size is not None:
            remembers(layer, state, expected)


# A state that comes in


def test_a_nan_in_a_state_that_is_reset_at_once_reaches_nothing(layer, x64):
    params, xs, gradient = drawn(layer)
    mask, resets = flags()
    resets[0] = True
    mask[:2, 3], resets[0, 3], resets[2, 3] = False, False, True  # masked until the reset
    fresh = empty(layer, params)
    slots = fresh.position.shape[1]
    spoilt = fresh.replace(
        entries=jax.tree.map(lambda e: jnp.full_like(e, jnp.nan), fresh.entries),
        position=jnp.broadcast_to(jnp.arange(slots, dtype=np.int32), (B, slots)),
        count=jnp.full_like(fresh.count, slots),
    )
    run = program(layer, CHUNK)
    clean = run(params, xs, mask, resets, gradient)
    got = run(params, xs, mask, resets, gradient, spoilt)
    same(got, clean)


def test_a_chunk_longer_than_the_capacity_is_refused():
    params, xs, _ = drawn(FULL)
    state = FULL.init_state(params, (B,), 4)
    with pytest.raises(ValueError, match=r"at most 4 steps.* got 5"):
        FULL.apply(params, xs[:5], state)
    with pytest.raises(ValueError, match="capacity >= 1, got 0"):
        FULL.init_state(params, (B,), 0)


@pytest.mark.parametrize("unbounded", [ADDITIVE, FULL], ids=["additive", "full"])
def test_an_overflow_gives_nan_from_there_on_and_never_before(unbounded, x64):
    capacity = 7
    params, xs, gradient = drawn(unbounded)
    mask, resets = flags()
    expected = attend(unbounded, params, xs, mask, resets)
    assert np.any(np.diff(expected.positions[:, 2]) < 0)  # one row comes back by a reset
    wanted = np.where((expected.positions >= capacity)[..., None], np.nan, expected.outputs)
    run = program(unbounded, CHUNK, steps=capacity, pullback=False)
    close(run(params, xs, mask, resets, gradient)[0], wanted)


def test_an_overflow_without_a_mask_gives_nan_too(x64):
    capacity = 7
    params, xs, _ = drawn(FULL)
    run = jit(functools.partial(in_chunks, FULL, CHUNK))
    ys = np.asarray(run(params, empty(FULL, params, capacity), xs, None, None)[0])
    live, none = np.ones((T, B), bool), np.zeros((T, B), bool)
    close(ys[:capacity], attend(FULL, params, xs, live, none).outputs[:capacity])
    assert np.all(np.isnan(ys[capacity:]))


def test_an_overflow_below_another_attention_spoils_no_earlier_step(x64):
    capacity = 7
    stack = Stack((DotProduct(D, heads=1), ADDITIVE))
    params, xs, _ = drawn(stack)
    mask, resets = flags()
    below = attend(stack.layers[0], params["0"], xs, mask, resets)
    above = attend(stack.layers[1], params["1"], below.outputs, mask, resets)
    wanted = np.where((above.positions >= capacity)[..., None], np.nan, above.outputs)
    run = jit(functools.partial(in_chunks, stack, CHUNK))
    state = stack.init_state(params, (B,), capacity)
    close(run(params, state, xs, mask, resets)[0], wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        FULL.init_state(drawn(FULL)[0], (B + 1,), T),
        ADDITIVE.init_state(drawn(ADDITIVE)[0], (B,), T),
        {"position": np.zeros((B, T), np.int32)},
    ],
    ids=["batch", "entries", "structure"],
)
def test_a_state_of_another_form_is_refused(wrong):
    params, xs, _ = drawn(FULL)
    with pytest.raises(ValueError, match=r"(?s)^state.*: expected .*; got "):
        FULL.apply(params, xs, wrong)


@pytest.mark.parametrize("form", ["full", "window-2", "additive"])
def test_an_empty_chunk_changes_nothing(form):
    layer = LAYERS[form]
    params, xs, _ = drawn(layer)
    state = empty(layer, params)
    after, ys = layer.apply(params, xs[:0], state)
    assert ys.shape == (0, B, layer.out_features(D))
    assert all(x is y for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True))


@pytest.mark.parametrize("positions", ["alibi", "rotary"])
def test_jaxs_own_implementation_is_the_same(positions):
    """In float32, in which it computes whatever it is given."""
    ours = DotProduct(8, heads=4, kv_heads=2, positions=positions, window=5)
    theirs = dataclasses.replace(ours, implementation="xla")
    params, xs, gradient = jax.tree.map(lambda x: np.asarray(x, np.float32), drawn(ours))
    mask, resets = flags()

    @jit
    def run(params, xs):
        def of(layer):
            return lambda p, x: layer.apply(p, x, mask=mask, resets=resets)[1]

        both = [jax.vjp(of(layer), params, xs) for layer in (ours, theirs)]
        return [(ys, pull(gradient)) for ys, pull in both]

    got, expected = run(params, xs)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-4, 1e-4), got, expected)


def test_a_learned_position_beyond_its_table_is_nan_and_no_other(x64):
    layer = DotProduct(8, heads=2, positions="learned", max_positions=3)
    params, xs, _ = drawn(layer, 5)
    resets = np.zeros((5, B), bool)
    resets[2, 0] = True
    ys = np.asarray(layer.apply(params, xs, resets=resets)[1])
    assert np.isfinite(ys[:3]).all() and np.isfinite(ys[:, 0]).all()
    assert np.isnan(ys[3:, 1:]).all()
