"""A slow oracle for layers and models: NumPy, step by step, from the equations.

As in `attention_oracle`, complex numbers may come in, for the derivative.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from longlag.attention import Attention
from longlag.attention.read import Read
from longlag.cells import LSTM, FeedForward
from longlag.nn import (
    MLP,
    Bidirectional,
    Block,
    Dense,
    Gated,
    Norm,
    Recurrent,
    Repeated,
    Residual,
    Scale,
    ShortConvolution,
    Stack,
)
from tests.helpers import block_oracle
from tests.helpers.attention_oracle import attend


def answers(model: Any, params: Any, inputs: np.ndarray, mask: np.ndarray, resets: np.ndarray):
    """What a model makes of tokens `[B, T]` or features `[B, T, D]`; mask, resets are `[B, T]`."""
    if model.inputs == "tokens":
        table = params["embed"]["embedding"]
        known = (inputs >= 0) & (inputs < len(table))
        xs = np.where(known[..., None], table[np.where(known, inputs, 0)], np.nan)
        xs = np.where(mask[..., None], xs, table[0])
    else:
        xs = affine(params["embed"], np.where(mask[..., None], inputs, 0))
    ys = forward(model.stack, params["layers"], np.swapaxes(xs, 0, 1), mask.T, resets.T)
    return np.where(mask[..., None], affine(params["head"], np.swapaxes(ys, 0, 1)), 0)


def forward(layer: Any, params: Any, xs: np.ndarray, mask: np.ndarray, resets: np.ndarray):
    """What a layer makes of `xs` `[T, B, D]`; mask and resets are `[T, B]`."""
    flags = mask, resets
    match layer:
        case Stack():
            for i, inner in enumerate(layer.layers):
                xs = forward(inner, params[str(i)], xs, *flags)
            return xs
        case Repeated():
            for i in range(layer.count):
                of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], params)
                xs = forward(layer.inner, of_layer, xs, *flags)
            return xs
        case Residual():
            normed = forward(layer.norm, params["norm"], xs, *flags)
            return xs + forward(layer.inner, params["inner"], normed, *flags)
        case Read():
            contexts = forward(layer.inner, params["inner"], xs, *flags)
            return np.tanh(affine(params["join"], np.concatenate([xs, contexts], axis=-1)))
        case Norm():
            parts = np.stack(np.split(xs, layer.groups, axis=-1), axis=-2)
            parts = parts - layer.centered * np.mean(parts, -1, keepdims=True)
            parts = parts / np.sqrt(np.mean(parts**2, -1, keepdims=True) + layer.epsilon)
            return parts.reshape(xs.shape) * params["scale"]
        case Gated():
            gate = affine(params["gate"], xs)
            gate = gate / (1 + np.exp(-gate))
            return gate * forward(layer.inner, params["inner"], xs, *flags)
        case ShortConvolution():
            return convolve(layer, params, xs, mask, resets)
        case Bidirectional():
            inner = Recurrent(layer.cell)
            there = forward(inner, params["forward"], xs, *flags)
            # Turned round, a sequence begins one step after the one that its reset began.
            begins = np.concatenate([np.zeros_like(resets[:1]), resets[1:][::-1]])
            back = forward(inner, params["backward"], xs[::-1], mask[::-1], begins)
            return np.concatenate([there, back[::-1]], axis=-1)
        case Dense():
            return affine(params, xs) if layer.blocks == 1 else block_oracle.diagonal(params, xs)
        case Scale():
            return xs * params["scale"]
        case MLP():
            activation = {"gelu": gelu, "silu": block_oracle.silu}[layer.activation]
            up = affine(params["up"], xs)
            gated = layer.gated and activation(affine(params["gate"], xs)) * up
            return affine(params["down"], gated if layer.gated else activation(up))
        case Block():
            return block_oracle.run(layer, params, xs, *flags)
        case Attention():
            return attend(layer, params, xs, *flags).outputs
        case Recurrent():
            step = {LSTM: lstm, FeedForward: feed_forward}[type(layer.cell)]
            return recur(step, layer.cell, params, xs, *flags)
    raise TypeError(layer)


def affine(params: Any, x: np.ndarray) -> np.ndarray:
    return x @ params["kernel"] + params.get("bias", 0)


def gelu(x: np.ndarray) -> np.ndarray:
    """By tanh, as `jax.nn.gelu` has it by default."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def recur(step: Any, cell: Any, params: Any, xs: np.ndarray, mask: np.ndarray, resets: np.ndarray):
    T, B, _ = xs.shape
    ys = np.zeros((T, B, cell.features), np.result_type(xs, *jax.tree.leaves(params)))
    for row in range(B):
        state = None
        for t in range(T):
            if resets[t, row]:
                state = None
            if mask[t, row]:
                state, ys[t, row] = step(cell, params, state, xs[t, row])
    return ys


def lstm(cell: LSTM, params: Any, state: Any, x: np.ndarray):
    h, c = state or (np.zeros(cell.features), np.zeros(cell.features))
    gates = affine(params["input"], x) + h @ params["recurrent"]["kernel"]
    i, f, g, o = np.split(gates, 4)
    c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    h = np.tanh(c) / (1 + np.exp(-o))
    return (h, c), h


def feed_forward(cell: FeedForward, params: Any, state: Any, x: np.ndarray):
    """The state is the list of inputs so far, the newest first."""
    past = [x, *(state or [])][: cell.window]
    kernels = np.split(params["input"]["kernel"], cell.window, axis=1)
    total = sum(x @ kernel for x, kernel in zip(past, kernels))
    return past, np.tanh(total + params["input"]["bias"])


def convolve(layer: ShortConvolution, params: Any, xs: np.ndarray, mask: Any, resets: Any):
    ys = np.zeros(xs.shape, np.result_type(xs, *jax.tree.leaves(params)))
    for row in range(xs.shape[1]):
        past: list[np.ndarray] = []
        for t in range(len(xs)):
            past = [] if resets[t, row] else past
            if mask[t, row]:
                past = [xs[t, row], *past][: layer.width]
                ys[t, row] = block_oracle.filtered(params, past)
    return ys
