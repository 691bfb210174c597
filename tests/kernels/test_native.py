"""The native loop: its functions of numbers, its threads, and machines without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import longlag as ll
from longlag.kernels import native
from longlag.kernels.compiling import choose_variants
from longlag.kernels.looping import loop

ULP = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def library():
    assert native.is_available()


def through_loop(function, x: np.ndarray) -> np.ndarray:
    """A function of numbers, taken of an array by the loop: its numbers are the inputs of steps."""
    rows = np.zeros(-(-len(x) // 64) * 64, x.dtype)
    rows[: len(x)] = x

    def body(_, carry, x, __):
        return carry, function(x), None

    def never(*args):
        raise AssertionError("expected the native loop")

    xs = jnp.asarray(rows.reshape(-1, 4, 16))
    _, ys, _ = jax.jit(lambda xs: loop(body, never, None, jnp.zeros((4, 1), x.dtype), xs))(xs)
    return np.asarray(ys).ravel()[: len(x)]


FUNCTIONS = {
    "exp": (jnp.exp, np.exp, (-87.0, 88.7)),
    "expm1": (jnp.expm1, np.expm1, (-30.0, 88.0)),
    "tanh": (jnp.tanh, np.tanh, (-20.0, 20.0)),
    "logistic": (jax.nn.sigmoid, lambda x: 1 / (1 + np.exp(-x)), (-87.0, 30.0)),
    "log": (jnp.log, np.log, (1e-30, 1e30)),
    "log1p": (jnp.log1p, np.log1p, (-0.999, 1e20)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_four_units_in_the_last_place(name):
    ours, exact, (low, high) = FUNCTIONS[name]
    spread = np.linspace(low, high, 200_001)
    near = np.geomspace(1e-30, 1, 50_001)
    x = np.concatenate([spread, near, -near[near < -low] if low < 0 else near])
    x = x.astype(np.float32)
    want = exact(x.astype(np.float64))
    got = through_loop(ours, x)
    error = np.abs(got - want) / np.spacing(np.abs(want).astype(np.float32))
    assert error.max() <= ULP, (x[error.argmax()], got[error.argmax()], want[error.argmax()])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_and_infinity_come_out_as_they_should(name):
    ours, exact, _ = FUNCTIONS[name]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2e-38, 1e38, -1e38], np.float32)
    with np.errstate(all="ignore"):
        want = exact(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(through_loop(ours, x), want, rtol=1e-6, atol=1e-38)


WITH_THREADS = """
import sys
import jax, jax.numpy as jnp, numpy as np
import longlag as ll
cell = ll.LSTM(33)
params = cell.init(jax.random.key(0), 5)
xs = jax.random.normal(jax.random.key(1), (13, 50, 5))
def loss(params, xs):
    return (ll.unroll(cell, params, xs, method="fused")[1] ** 2).sum()
a, resets = jax.random.normal(jax.random.key(2), (9, 3, 700)), jnp.eye(9, 3, dtype=bool)
def recurrence(a, rows, flags):
    a = a.reshape(9, *rows)
    return (ll.linear_scan(a, a, a[0], resets=flags, method="fused") ** 2).sum()
def all_losses(params, xs, a):
    of_rows = recurrence(a, (3, 700), resets)
    return loss(params, xs) + of_rows + recurrence(a, (2100,), None)
grads = jax.jit(jax.grad(all_losses, argnums=(0, 1, 2)))(params, xs, a)
np.savez(sys.argv[1], *map(np.asarray, jax.tree.leaves(grads)))
"""


def test_any_number_of_threads_gives_the_same_bits(tmp_path):
    runs = []
    for threads in (1, 2, 8):
        path = tmp_path / f"{threads}.npz"
        settings = os.environ | {"LONGLAG_KERNEL_THREADS": str(threads)}
        subprocess.run([sys.executable, "-c", WITH_THREADS, str(path)], env=settings, check=True)
        runs.append(np.load(path))
    for other in runs[1:]:
        for name in runs[0]:
            np.testing.assert_array_equal(other[name], runs[0][name])


@pytest.mark.deep
def test_no_fault_under_the_address_and_undefined_behaviour_sanitizers(tmp_path):
    """Random programs and cells, with the loop compiled to notice every fault of memory."""
    compiler = os.environ.get("CXX", "g++")

    def find(library: str) -> str:
        command = [compiler, f"-print-file-name={library}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    settings = os.environ | {
        "CXXFLAGS": "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all",
        # The second since the sanitizer looks for `__cxa_throw` before jax brings it.
        "LD_PRELOAD": f"{find('libasan.so')} {find('libstdc++.so.6')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    files = ("test_columnwise.py", "test_fuzz.py", "test_cells.py")
    tests = [f"tests/kernels/{name}" for name in files]
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]
    assert [*(tmp_path / "longlag" / "kernels").glob("loop-*.so")]


WITHOUT = """
import jax, jax.numpy as jnp
import longlag as ll
cell = ll.GRU(4)
params = cell.init(jax.random.key(0), 3)
xs = jnp.ones((2, 5, 3))
def total(method):
    return jax.grad(lambda p: ll.unroll(cell, p, xs, method=method)[1].sum())(params)
for one, other in zip(*map(jax.tree.leaves, (total("fused"), total("scan")))):
    assert jnp.allclose(one, other, 1e-5, 1e-6)
"""


@pytest.mark.parametrize("how", ["no compiler", "turned off"])
def test_without_native_loops_everything_works_as_before(tmp_path, how):
    settings = dict(os.environ)
    settings.pop("CXX", None)
    if how == "no compiler":
        settings |= {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    else:
        settings |= {"LONGLAG_KERNELS": "0"}
    outcome = subprocess.run(
        [sys.executable, "-c", WITHOUT], env=settings, check=True, capture_output=True, text=True
    )
    expected = 1 if how == "no compiler" else 0
    assert outcome.stderr.count("no native loops") == expected, outcome.stderr


def test_a_broken_compiler_is_named_once(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho broken for a test >&2\nexit 1\n")
    compiler.chmod(0o755)
    settings = os.environ | {"CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path)}
    outcome = subprocess.run(
        [sys.executable, "-c", WITHOUT], env=settings, check=True, capture_output=True, text=True
    )
    assert outcome.stderr.count("broken for a test") == 1, outcome.stderr


def test_a_processor_takes_the_best_library_that_it_can_run():
    flags = {"x86_64": "fpu fma avx2 bmi1 bmi2 f16c movbe abm", "aarch64": "fp asimd"}
    more = "avx512f avx512bw avx512cd avx512dq avx512vl"
    assert choose_variants("x86_64", flags["x86_64"].split()) == ["avx2"]
    assert choose_variants("x86_64", (flags["x86_64"] + " " + more).split()) == ["avx512", "avx2"]
    assert choose_variants("x86_64", ["fpu", "sse2"]) == []
    assert choose_variants("aarch64", flags["aarch64"].split()) == ["neon"]
    assert choose_variants("riscv64", ["asimd"]) == []


def test_an_exported_program_has_no_native_loop():
    cell = ll.GRU(4)
    params = cell.init(jax.random.key(0), 3)

    def run(params, xs):
        return ll.unroll(cell, params, xs, method="fused")[1]

    types = jax.eval_shape(lambda: (params, jnp.ones((2, 5, 3))))
    exported = jax.export.export(jax.jit(run))(*types)
    assert native.TARGET not in exported.mlir_module()
    xs = jnp.ones((2, 5, 3))
    np.testing.assert_allclose(exported.call(params, xs), run(params, xs), 1e-5, 1e-6)
