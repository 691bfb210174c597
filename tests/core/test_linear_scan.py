from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from longlag import linear_scan
from longlag.core.scans.linear import METHODS

T, STATE = 7, (3, 2)
RESETS = np.zeros((T, 3), bool)
RESETS[0, 0] = RESETS[2, 1] = RESETS[3, 1] = RESETS[6, 2] = True
WAYS = list(itertools.product(METHODS[1:], [False, True]))


@pytest.fixture(autouse=True)
def double_precision(x64):
    """All of these tests compare with a loop in float64."""


def loop(a, b, h0, resets=None, h_reset=None, reverse=False):
    """The recurrence as it is written, an element of the leading axes at a time."""
    shape = np.broadcast_shapes(np.shape(a), np.shape(b), (1, *np.shape(h0)))
    a, b = jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape)
    h = jnp.broadcast_to(h0, shape[1:])
    h_reset = jnp.broadcast_to(0.0 if h_reset is None else h_reset, shape[1:])
    hs = [h] * shape[0]
    for t in reversed(range(shape[0])) if reverse else range(shape[0]):
        if resets is not None:
            for where in map(tuple, np.argwhere(resets[t])):
                h = h.at[where].set(h_reset[where])
        h = a[t] * h + b[t]
        hs[t] = h
    return jnp.stack(hs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def scan_and_gradients(method, reverse, arrays, resets, weights):
    def run(a, b, h0, h_reset):
        options = {} if resets is None else {"resets": resets, "h_reset": h_reset}
        return linear_scan(a, b, h0, **options, method=method, reverse=reverse)

    hs, pull = jax.vjp(run, *arrays)
    return hs, pull(weights)


@jax.jit
def loop_and_gradients(arrays, weights):
    """Both directions, with the resets above and without."""

    def run(resets, reverse, a, b, h0, h_reset):
        return loop(a, b, h0, resets, h_reset, reverse)

    results = {}
    for resets, reverse in itertools.product([None, RESETS], [False, True]):
        way = resets is not None, reverse
        hs, pull = jax.vjp(functools.partial(run, resets, reverse), *arrays)
        results[way] = hs, pull(weights)
    return results


def draw(rng):
    a, b, weights = (rng.normal(size=(T, *STATE)) for _ in range(3))
    h0, h_reset = (rng.normal(size=STATE) for _ in range(2))
    return (a, b, h0, h_reset), weights


def assert_close(got, expected, rtol=1e-10):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol, 1e-12), got, expected)


@pytest.mark.parametrize(("method", "reverse"), WAYS)
def test_values_and_gradients_are_the_loops(method, reverse, rng):
    arrays, weights = draw(rng)
    expected = loop_and_gradients(arrays, weights)
    for resets in (None, np.zeros_like(RESETS), RESETS):
        got = scan_and_gradients(method, reverse, arrays, resets, weights)
        assert_close(got, expected[resets is RESETS, reverse])


@pytest.mark.parametrize(("method", "reverse"), WAYS)
def test_a_nan_before_a_reset_reaches_nothing(method, reverse, rng):
    arrays, weights = draw(rng)
    resets = np.zeros_like(RESETS)
    # Row 0 begins anew at once, row 1 in the middle, after a step that makes a NaN of its own.
    resets[-1 if reverse else 0, 0] = resets[3, 1] = True
    clean = scan_and_gradients(method, reverse, arrays, resets, weights)
    a, b, h0, h_reset = map(np.copy, arrays)
    h0[:2] = np.nan
    forgotten = np.s_[4:, 1] if reverse else np.s_[:3, 1]
    a[forgotten] = b[forgotten] = np.nan
    unseen = np.ones((T, *STATE), bool)
    unseen[forgotten] = False
    hs, (da, db, dh0, dh_reset) = scan_and_gradients(
        method, reverse, (a, b, h0, h_reset), resets, weights
    )
    assert_close(hs[unseen], clean[0][unseen], 0)
    assert_close((da[unseen], db[unseen]), tuple(g[unseen] for g in clean[1][:2]), 0)
    assert_close(dh_reset, clean[1][3], 0)
    assert not np.any(dh0[0])


# Shape of `a`, whether `a` and the other numbers are pairs, and whether there are resets.
PROBLEMS = [
    ((T, *STATE), True, True, RESETS),
    ((T, *STATE), True, True, None),
    ((1, *STATE), True, True, RESETS),
    ((T, 1, 2), False, True, RESETS),
    ((T, 3, 1), False, False, None),
    ((2,), False, False, RESETS),
    ((1, 1, 1), True, True, None),
]


def draw_problem(rng, shape, complex_a, complex_b):
    """`a, b, h0, h_reset`, each an array or a pair, and weights for the states."""

    def draw(shape, pair):
        real, imag = rng.normal(size=(2, *shape))
        return (real, imag) if pair else real

    others = [draw(each, complex_b) for each in ((T, *STATE), STATE, STATE, (T, *STATE))]
    return (draw(shape, complex_a), *others[:3]), others[3]


def plain_scan(arrays, resets, reverse):
    """`jax.lax.scan` of the equation in complex128, with JAX's own gradient."""
    a, b, h0, h_reset = (jax.lax.complex(*x) if isinstance(x, tuple) else x for x in arrays)

    def body(h, inputs):
        a, b, reset = inputs
        h = a * jnp.where(reset[:, None], h_reset, h) + b
        return h, h

    resets = jnp.zeros((T, 3), bool) if resets is None else resets
    h = jax.lax.scan(body, h0, (jnp.broadcast_to(a, b.shape), b, resets), reverse=reverse)[1]
    return (h.real, h.imag) if jnp.iscomplexobj(h) else h


@pytest.mark.parametrize(("method", "reverse"), WAYS)
def test_pairs_and_decays_of_any_shape(method, reverse, rng):
    problems = [draw_problem(rng, *problem[:3]) for problem in PROBLEMS]

    def ours(arrays, resets, reverse):
        a, b, h0, h_reset = arrays
        h_reset = None if resets is None else h_reset
        options = {"resets": resets, "h_reset": h_reset, "method": method, "reverse": reverse}
        # The arithmetic for decays above one compiles slowly, and has tests of its own.
        return linear_scan(a, b, h0, contracting=True, **options)

    @functools.partial(jax.jit, static_argnums=0)
    def all_of(run, problems):
        found = []
        for (arrays, weights), (*_, resets) in zip(problems, PROBLEMS):
            hs, pull = jax.vjp(lambda arrays, r=resets: run(arrays, r, reverse), arrays)
            found.append((hs, *pull(weights)))
        return found

    got, expected = all_of(ours, problems), all_of(plain_scan, problems)
    assert_close(got, expected)
    a, b, h0, h_reset = (x[0] + 1j * x[1] for x in problems[0][0])
    by_hand = loop(a, b, h0, RESETS, h_reset, reverse)
    assert_close(got[0][0], (by_hand.real, by_hand.imag))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 31, 32, 33, 101])
def test_chunks_of_any_length(steps, reverse, rng):
    """Shorter than a chunk, just one, and more with a last one that is not full."""
    a, b, weights = rng.normal(size=(3, steps, 2))
    h0, resets = rng.normal(size=2), rng.random(size=steps) < 0.1

    @functools.partial(jax.jit, static_argnums=0)
    def run(method, *arrays):
        options = {"resets": resets, "method": method, "reverse": reverse}
        hs, pull = jax.vjp(lambda *arrays: linear_scan(*arrays, **options), *arrays)
        return hs, pull(weights)

    for decay in (a, a[:1]):
        assert_close(run("chunked", decay, b, h0), run("scan", decay, b, h0), 1e-9)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_nan_in_another_chunk_reaches_nothing_beyond_a_reset(reverse, rng):
    a, b, weights = rng.normal(size=(3, 101, 2))
    h0, resets = rng.normal(size=2), np.zeros(101, bool)
    resets[50] = True
    seen = np.s_[:51] if reverse else np.s_[50:]

    @jax.jit
    def run(a, b):
        options = {"resets": resets, "method": "chunked", "reverse": reverse}
        hs, pull = jax.vjp(lambda a, b: linear_scan(a, b, h0, **options), a, b)
        return jax.tree.map(lambda x: x[seen], (hs, *pull(weights)))

    clean = run(a, b)
    forgotten = 90 if reverse else 10
    a[forgotten] = b[forgotten] = np.nan
    assert_close(run(a, b), clean, 0)


@pytest.mark.parametrize("shape", [(1, 8, 64), (4096, 1, 64), (1, 1, 1)])
def test_a_decay_that_broadcasts_is_not_spread_out(shape):
    """Memory of the gradient, in arrays `[T, *state]`: the states are one, and no other is made."""
    a, b = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, (4096, 8, 64)))
    h0 = jax.ShapeDtypeStruct((8, 64), jnp.float32)

    def loss(a, b, h0):
        return (linear_scan(a, b, h0, method="scan") ** 2).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(a, b, h0).compile()
    memory = compiled.memory_analysis()
    units = memory.temp_size_in_bytes / (4096 * 8 * 64 * 4)
    assert 0.9 < units < 2.2


@pytest.mark.parametrize("method", METHODS[1:])
def test_maps_over_a_batch(method, rng):
    (a, b, h0, h_reset), weights = draw_problem(rng, (1, *STATE), True, True)

    def gradient(a, b, h0):
        options = {"resets": RESETS, "h_reset": h_reset, "method": method}
        hs, pull = jax.vjp(lambda *arrays: linear_scan(*arrays, **options), a, b, h0)
        return hs, pull(weights)

    twice = jax.tree.map(lambda x: np.stack([x, 2 * x]), (a, b, h0))
    mapped = jax.jit(jax.vmap(gradient))(*twice)
    double = jax.tree.map(lambda x: x[1], twice)
    assert_close(jax.tree.map(lambda x: x[1], mapped), jax.jit(gradient)(*double))


@pytest.mark.parametrize("method", METHODS[1:])
def test_an_overflow_before_a_reset_reaches_no_later_step(method):
    a, b = np.full((T, 1), 1e200), np.ones((T, 1))
    resets = np.zeros((T, 1), bool)
    resets[4] = True
    a[4:] = 0.5
    hs = linear_scan(a, b, np.ones(1), resets=resets, method=method)
    np.testing.assert_array_equal(hs[3:, 0], [np.inf, 1, 1.5, 1.75])


@pytest.mark.parametrize(
    ("a", "b", "h0"),
    [
        ((T, 3, 1), (T, 3, 2), ()),
        ((T, 1, 2), (T, 3, 1), (3, 2)),
        ((1, 2), (T, 3, 2), (2,)),
        ((T, 1, 1), (1, 3, 1), (1, 2)),
    ],
)
def test_broadcast_shapes(a, b, h0, rng):
    arrays = [rng.normal(size=shape) for shape in (a, b, h0, (2,))]
    weights = rng.normal(size=(T, *STATE))
    method, reverse = WAYS[(len(a) + len(h0)) % 4]

    def run(function, *arrays):
        a, b, h0, h_reset = arrays
        return jnp.sum(weights * function(a, b, h0, resets=RESETS, h_reset=h_reset))

    ours = functools.partial(linear_scan, method=method, reverse=reverse)
    gradients = jax.jit(
        lambda *arrays: [
            jax.value_and_grad(functools.partial(run, function), argnums=(0, 1, 2, 3))(*arrays)
            for function in (ours, functools.partial(loop, reverse=reverse))
        ]
    )
    assert_close(*gradients(*arrays))


def test_resets_may_be_of_the_leading_axes_only_or_of_the_whole_state(rng):
    (a, b, h0, h_reset), _ = draw(rng)
    each_step = RESETS[:, 0]
    for resets in (each_step, np.broadcast_to(RESETS[..., None], (T, *STATE))):
        for method in METHODS[1:]:
            hs = linear_scan(a, b, h0, resets=resets, h_reset=h_reset, method=method)
            assert_close(hs, loop(a, b, h0, resets, h_reset))


@pytest.mark.parametrize(("method", "reverse"), WAYS)
def test_second_order_by_reverse_over_reverse(method, reverse, rng):
    arrays = [rng.normal(size=shape) for shape in ((3, 2), (3, 2), (2,), (2,))]
    resets = np.array([[False, False], [False, True], [False, False]])

    def loss(function, arrays):
        a, b, h0, h_reset = arrays
        return jnp.sum(jnp.sin(function(a, b, h0, resets=resets, h_reset=h_reset)))

    def hessian(function):
        return jax.jacrev(jax.grad(functools.partial(loss, function)))(arrays)

    ours = functools.partial(linear_scan, method=method, reverse=reverse)
    both = jax.jit(lambda: (hessian(ours), hessian(functools.partial(loop, reverse=reverse))))
    assert_close(*both())


@pytest.mark.parametrize("order", [1, 2])
def test_no_loop_of_a_gradient_adds_up_whole_arrays(order):
    """As the gradient that jax takes of a loop that reads rows does: T times T in all."""
    shape = (50, 3)

    def derived(order, a):
        if order == 0:
            return jnp.sum(jnp.sin(linear_scan(a, a, a[0], method="scan")))
        return jnp.sum(jax.grad(functools.partial(derived, order - 1))(a) ** 2)

    def added(jaxpr, inside):
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if inside and name in ("add", "add_any"):
                yield from (out.aval.shape for out in equation.outvars)
            for value in equation.params.values():
                for part in value if isinstance(value, (tuple, list)) else (value,):
                    part = getattr(part, "jaxpr", part)
                    if hasattr(part, "eqns"):
                        yield from added(part, inside or name in ("scan", "while"))

    found = [
        *added(jax.make_jaxpr(functools.partial(derived, order))(jnp.ones(shape)).jaxpr, False)
    ]
    assert (3,) in found and shape not in found


def test_gradients_are_the_differences(rng):
    arrays, _ = draw(rng)

    @jax.jit
    def run(a, b, h0, h_reset):
        return linear_scan(a, b, h0, resets=RESETS, h_reset=h_reset)

    check_grads(run, arrays, order=1, modes=["rev"])


def test_forward_mode(rng, x64):
    (a, b, h0, _), _ = draw(rng)
    check_grads(lambda a: linear_scan(a, b, h0), (a,), order=1, modes=["fwd"])


@pytest.mark.parametrize(
    ("given", "result"),
    [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_accumulates_in_at_least_float32(given, result):
    a = jax.ShapeDtypeStruct((T, 3), given)
    h0 = jax.ShapeDtypeStruct((3,), given)
    for method in METHODS:
        assert (
            jax.eval_shape(functools.partial(linear_scan, method=method), a, a, h0).dtype == result
        )


@pytest.mark.parametrize("resets", [False, True])
def test_no_steps_at_all(resets):
    a, h0 = np.zeros((0, 2)), np.ones(2)
    flags = np.zeros((0, 2), bool) if resets else None
    for method in METHODS[1:]:
        run = functools.partial(linear_scan, resets=flags, method=method)
        hs, pull = jax.vjp(run, a, a, h0)
        assert hs.shape == (0, 2)
        assert [g.shape for g in pull(hs)] == [(0, 2), (0, 2), (2,)]


A = np.zeros((T, *STATE))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_scan(A, A, A[0], method="asociative"), "Did you mean 'associative'?"),
        (lambda: linear_scan(A, 0.0, A[0]), "expected a and b with a leading time axis"),
        (lambda: linear_scan(A, A[:3], A[0]), "got a (7, 3, 2), b (3, 3, 2), h0 (3, 2)"),
        (lambda: linear_scan(A, A, np.zeros(5)), "got a (7, 3, 2), b (7, 3, 2), h0 (5,)"),
        (lambda: linear_scan((A, A), A, A[0]), "expected b as a pair (re, im)"),
        (
            lambda: linear_scan(A, (A, A[:3]), A[0]),
            "expected b as an array or a pair (re, im) of one shape, "
            "got a tuple of shapes (7, 3, 2), (3, 3, 2)",
        ),
        (lambda: linear_scan(A, A, A[0], h_reset=A[0]), "h_reset was given without resets"),
        (
            lambda: linear_scan(A, A, A[0], resets=np.zeros((T, 3))),
            "expected resets bool of a shape that begins (7, 3, 2), got float64 (7, 3)",
        ),
        (
            lambda: linear_scan(A, A, A[0], resets=np.zeros((T, 2), bool)),
            "expected resets bool of a shape that begins (7, 3, 2), got bool (7, 2)",
        ),
        (
            lambda: linear_scan(A, A, A[0], resets=RESETS, h_reset=np.zeros(5)),
            "got a (7, 3, 2), b (7, 3, 2), h0 (3, 2), h_reset (5,)",
        ),
    ],
)
def test_a_wrong_argument_is_refused(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
