"""The cells of the papers as NumPy loops, one sequence at a time, from the equations alone.

Each takes a cell's parameters in their documented layout, inputs `[T, D]` and a first state, and
gives the outputs `[T, H]` and the last state. Nothing here calls the library.
"""

from __future__ import annotations

import numpy as np


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def per_gate(array, gates: int):
    """The parts of a fused kernel or bias, in the order of the gates."""
    width = array.shape[-1] // gates
    return [array[..., g * width : (g + 1) * width] for g in range(gates)]


def elman(params, xs, h, activation="tanh"):
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    ys = []
    for x in xs:
        v = x @ W + b + h @ U
        h = np.tanh(v) if activation == "tanh" else np.maximum(v, 0)
        ys.append(h)
    return np.array(ys), (h,)


def lstm(params, xs, h, c):
    W_i, W_f, W_g, W_o = per_gate(params["input"]["kernel"], 4)
    b_i, b_f, b_g, b_o = per_gate(params["input"]["bias"], 4)
    U_i, U_f, U_g, U_o = per_gate(params["recurrent"]["kernel"], 4)
    ys = []
    for x in xs:
        i = sigmoid(x @ W_i + b_i + h @ U_i)
        f = sigmoid(x @ W_f + b_f + h @ U_f)
        g = np.tanh(x @ W_g + b_g + h @ U_g)
        o = sigmoid(x @ W_o + b_o + h @ U_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        ys.append(h)
    return np.array(ys), (h, c)


def gru(params, xs, h, reset="after"):
    W_r, W_z, W_n = per_gate(params["input"]["kernel"], 3)
    b_r, b_z, b_n = per_gate(params["input"]["bias"], 3)
    U_r, U_z, U_n = per_gate(params["recurrent"]["kernel"], 3)
    ys = []
    for x in xs:
        r = sigmoid(x @ W_r + b_r + h @ U_r)
        z = sigmoid(x @ W_z + b_z + h @ U_z)
        if reset == "after":
            n = np.tanh(x @ W_n + b_n + r * (h @ U_n + params["recurrent"]["bias"]))
        else:
            n = np.tanh(x @ W_n + b_n + (r * h) @ U_n)
        h = (1 - z) * n + z * h
        ys.append(h)
    return np.array(ys), (h,)


def min_gru(params, xs, h, candidate="linear"):
    W_z, W_n = per_gate(params["input"]["kernel"], 2)
    b_z, b_n = per_gate(params["input"]["bias"], 2)
    ys = []
    for x in xs:
        z = sigmoid(x @ W_z + b_z)
        n = x @ W_n + b_n
        if candidate == "positive":
            n = np.where(n >= 0, n + 0.5, sigmoid(n))
        h = (1 - z) * h + z * n
        ys.append(h)
    return np.array(ys), (h,)


def feed_forward(params, xs, window=1):
    """From zero inputs before the first; it has no state to speak of."""
    W = per_gate(params["input"]["kernel"], window)
    ys = []
    for t in range(len(xs)):
        v = params["input"]["bias"].copy()
        for j in range(window):
            if t - j >= 0:
                v += xs[t - j] @ W[j]
        ys.append(np.tanh(v))
    return np.array(ys)
