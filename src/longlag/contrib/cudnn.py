"""The LSTM of cuDNN, by `jax.experimental.rnn`: one call for a whole sequence, on CUDA alone.

The kernel knows one semantics: float32, every row of full length, the outputs and the last state.
So masks, resets and the states in between are refused, and so is `jax.vmap`, for which it has no
rule. Gradients are cuDNN's own, in reverse mode and once (`jax.grad`, `jax.vjp`).

Products are rounded as jax is told to round them: to TF32 (10 bits of mantissa) unless
`jax_default_matmul_precision` is "highest", "float32" or "F32_F32_F32", just as jax does it for
every float32 product on such a GPU. The setting is read once, when the forward is traced, so that
the gradient has the same.

`jax.experimental.rnn` is imported when the kernel is asked for. It asks cuDNN for sizes while it is
traced, so the process that traces must have a CUDA device. It has no documentation beyond its
source; what is said of it here was read there, at jax 0.10.2, and no number has been measured yet.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.cells.lstm import LSTM, LSTMCarry
from longlag.core.backends import BACKENDS
from longlag.core.ops import Params
from longlag.core.options import ScanOptions

__all__ = ["has_cuda", "lstm", "pack", "unpack"]

# Settings of jax_default_matmul_precision that the kernel can follow; "high" allows TF32.
PRECISIONS = {
    **dict.fromkeys((None, "default", "high", "tensorfloat32", "TF32_TF32_F32"), "high"),
    **dict.fromkeys(("highest", "float32", "F32_F32_F32"), "highest"),
}


def pack(params: Params) -> jax.Array:
    """The parameters of an LSTM as cuDNN's flat weights.

    It has the gates in our order (i, f, g, o), but kernels transposed, and adds two biases, of
    which the second is zero here. A gradient in the weights is pulled back by differentiating this.

    Args:
        params: `input.kernel` `[D, 4H]`, `input.bias` `[4H]`, `recurrent.kernel` `[H, 4H]`.

    Returns:
        `[4H * (D + H + 2)]`: W_ih `[4H, D]`, W_hh `[4H, H]`, b_ih and b_hh `[4H]`, each row by row.
    """
    bias = params["input"]["bias"]
    kernels = params["input"]["kernel"], params["recurrent"]["kernel"]
    return jnp.concatenate([*(k.T.ravel() for k in kernels), bias, jnp.zeros_like(bias)])


def unpack(weights: jax.Array, in_features: int, features: int) -> Params:
    """The parameters of an LSTM from cuDNN's flat weights; the two biases become their sum.

    Args:
        weights: `[4H * (D + H + 2)]`, as from `pack` or `jax.experimental.rnn.init_lstm_weight`.
        in_features: D.
        features: H.

    Raises:
        ValueError: weights of another size.
    """
    width = 4 * features
    if weights.shape != (width * (in_features + features + 2),):
        raise ValueError(
            f"weights: expected shape ({width * (in_features + features + 2)},) for "
            f"D = {in_features} and H = {features}; got {weights.shape}"
        )
    ends = np.cumsum([width * in_features, width * features, width])
    inputs, recurrent, bias, other_bias = jnp.split(weights, ends)
    return {
        "input": {"kernel": inputs.reshape(width, in_features).T, "bias": bias + other_bias},
        "recurrent": {"kernel": recurrent.reshape(width, features).T},
    }


def lstm(
    cell: LSTM,
    params: Params,
    carry: LSTMCarry,
    xs: jax.Array,
    options: ScanOptions,
    *,
    first: LSTMCarry,
    mask: jax.Array | None,
    resets: jax.Array | None,
    key: jax.Array | None,
) -> tuple[LSTMCarry, jax.Array]:
    """As `Cell.scan` of an LSTM.

    Raises:
        ValueError: what cuDNN does not know: masks, resets, every carry, another gradient, another
            dtype than float32, an empty sequence, a matmul precision, `jax.vmap`, no CUDA device.
    """
    del first, key  # no resets, and an LSTM has no noise
    for what, flags in (("mask", mask), ("resets", resets)):
        if flags is not None:
            raise _refusal(what, "None: cuDNN runs every row to its end", f"shape {flags.shape}")
    if options.every_carry:
        raise _refusal("carries", "'last': cuDNN returns no other", "'all'")
    if options.backward != "auto":
        raise _refusal(
            "backward", "'auto': cuDNN has a gradient of its own", repr(options.backward)
        )
    steps, batch, features = xs.shape
    if steps < 1 or batch < 1:
        raise _refusal("xs", "at least one step and one row", f"T = {steps}, B = {batch}")
    for name, tree in (("params", params), ("xs", xs), ("carry", carry)):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if leaf.dtype != jnp.float32:
                where = name + jax.tree_util.keystr(path)
                raise _refusal(where, "float32", str(leaf.dtype))
    setting = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if setting not in PRECISIONS:
        known = ", ".join(str(name) for name in PRECISIONS)
        raise _refusal("jax_default_matmul_precision", f"one of {known}", str(setting))
    if not has_cuda():
        raise ValueError(f"method 'cudnn': expected a CUDA device; got {jax.devices()}")

    from jax.experimental import rnn

    # cuDNN has the batch first. Where `unroll` turned such an input around, XLA sees two transposes
    # in a row and drops both.
    xs = jnp.swapaxes(xs[::-1] if options.reverse else xs, 0, 1)
    inputs = _refuse_batching((xs, carry.h[None], carry.c[None], pack(params)))
    lengths = jnp.full(batch, steps, jnp.int32)
    # The sizes must be Python numbers that no transformation sees (jax-ml/jax#19177), in the order
    # input, hidden, layers, dropout, bidirectional, precision.
    outputs = rnn.lstm(
        *inputs, lengths, features, cell.features, 1, 0.0, False, PRECISIONS[setting]
    )
    ys, h, c = _refuse_batching(outputs)
    ys = jnp.swapaxes(ys, 0, 1)
    return LSTMCarry(h=h[0], c=c[0]), ys[::-1] if options.reverse else ys


BACKENDS["cudnn"] = {LSTM: lstm}


def has_cuda() -> bool:
    """Whether this process has a CUDA device, which it needs to trace the kernel.

    The platform that a program is lowered for is another matter. The kernel has a lowering for CUDA
    and jax refuses any other.
    """
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:  # unknown backend
        return False


def _refusal(what: str, expected: str, value: str) -> ValueError:
    return ValueError(f"{what}: expected {expected} (method 'cudnn'); got {value}")


@jax.custom_batching.custom_vmap
def _identity(tree: Any) -> Any:
    return tree


@_identity.def_vmap
def _refuse_vmap(axis_size: int, in_batched: Any, tree: Any) -> Any:
    del in_batched, tree
    raise ValueError(
        f"vmap: expected none around method 'cudnn', which has no rule for it; got one of size "
        f"{axis_size}. Put the sequences into the batch, run seeds one after another "
        "(seeds_as='map'), or take method 'scan'"
    )


# An identity that computes nothing, but says why if somebody maps over it. `custom_vmap` alone has
# no reverse mode; inside both halves of a `custom_vjp` it needs none, and a map over the pullback
# alone (`jax.jacrev`) meets it too.
@jax.custom_vjp
def _refuse_batching(tree: Any) -> Any:
    return _identity(tree)


_refuse_batching.defvjp(lambda tree: (_identity(tree), None), lambda _, d: (_identity(d),))
