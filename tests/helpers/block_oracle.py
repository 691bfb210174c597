"""The blocks of the papers as NumPy loops over one sequence, from their equations alone.

Nothing here calls the library. Each takes a block's fields, its parameters by their names, and
`[T, D]` without masks or resets; `run` cuts a masked and reset batch into such sequences. Complex
numbers may come in, for the derivative, so whatever is not analytic looks at real parts.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np

from longlag.contrib import blocks


def run(layer: Any, params: Any, xs: np.ndarray, mask: np.ndarray, resets: np.ndarray):
    """What a block makes of `xs` `[T, B, D]`: a sequence from each reset on, of unmasked steps."""
    ys = np.zeros(xs.shape, np.result_type(xs, *jax.tree.leaves(params)))
    for row in range(xs.shape[1]):
        begins = [0, *np.flatnonzero(resets[:, row]), len(xs)]
        for begin, end in itertools.pairwise(begins):
            steps = [t for t in range(begin, end) if mask[t, row]]
            if steps:
                ys[steps, row] = EQUATIONS[type(layer)](layer, params, xs[steps, row])
    return ys


def griffin(block, params, xs):
    width = len(params["rg_lru"]["decay"])
    b_r, b_i, b_u = np.split(params["rg_lru"]["input"]["bias"], 3)
    h, past, ys = np.zeros(width), [], []
    for x in xs:
        past = [affine(params["x"], x), *past][:4]
        u = filtered(params["conv"], past)
        r = sigmoid(diagonal(params["r"], u) + b_r)
        i = sigmoid(diagonal(params["i"], u) + b_i)
        a = sigmoid(-params["rg_lru"]["decay"]) ** (8 * r)
        h = a * h + np.sqrt(1 - a**2) * (i * (u + b_u))
        ys.append(affine(params["out"], gelu(affine(params["gate"], x)) * h))
    return np.array(ys)


def mamba(block, params, xs):
    s6, past, ys = params["s6"], [], []
    A = -np.exp(s6["decay_log"])
    E, N = A.shape
    h = np.zeros((E, N))
    rank = len(s6["step"]["kernel"])
    for x in xs:
        past = [affine(params["x"], x), *past][:4]
        u = silu(filtered(params["conv"], past))
        selected = u @ s6["select"]["kernel"]
        step = softplus(affine(s6["step"], selected[:rank]))
        B, C = selected[rank : rank + N], selected[rank + N :]
        h = np.exp(step[:, None] * A) * h + np.outer(step * u, B)
        y = h @ C + s6["skip"]["scale"] * u
        ys.append(affine(params["out"], silu(affine(params["gate"], x)) * y))
    return np.array(ys)


def mlstm(block, params, xs):
    E, N = 2 * block.features, block.heads
    K = E // N
    b_q, b_k, b_v, b_i, b_f = np.split(params["mlstm"]["input"]["bias"], np.cumsum([E, E, E, N]))
    C, n, m = np.zeros((N, K, K)), np.zeros((N, K)), np.zeros(N)
    past, ys = [], []
    for x in xs:
        u = affine(params["up"], x)
        past = [u, *past][:4]
        c = silu(filtered(params["conv"], past))
        parts = diagonal(params["q"], c), diagonal(params["k"], c), diagonal(params["v"], u)
        i, f = np.split(affine(params["gates"], np.concatenate(parts)), 2)
        i, f = i + b_i, np.log(sigmoid(f + b_f))
        q, k, v = (np.split(part + b, N) for part, b in zip(parts, (b_q, b_k, b_v)))
        C, n, heads = C.astype(u.dtype), n.astype(u.dtype), []
        for head in range(N):
            kept, new = f[head] + m[head], i[head]
            scale = kept if kept.real > new.real else new
            kept, new, m = np.exp(kept - scale), np.exp(new - scale), put(m, head, scale)
            key = k[head] / np.sqrt(K)
            C[head] = kept * C[head] + new * np.outer(v[head], key)
            n[head] = kept * n[head] + new * key
            norm = n[head] @ q[head]
            norm = norm if norm.real > 0 else -norm
            least = np.exp(-scale)
            heads.append(C[head] @ q[head] / (norm if norm.real > least.real else least))
        h = np.concatenate([layer_norm(head) for head in heads]) * params["norm"]["scale"]
        h = h + params["skip"]["scale"] * c
        ys.append(affine(params["down"], silu(affine(params["gate"], x)) * h))
    return np.array(ys)


def slstm(block, params, xs):
    D, N = block.features, block.heads
    biases = np.split(params["slstm"]["input"]["bias"], 4)
    R = np.split(params["slstm"]["recurrent"]["kernel"], 4, axis=2)  # of i, f, z, o, a head each
    h, c, n, m = np.zeros((4, D))
    past, ys = [], []
    for x in xs:
        past = [x, *past][:4]
        conv = silu(filtered(params["conv"], past))
        of_x = [diagonal(params[g], conv if g in "if" else x) for g in "ifzo"]
        heads = np.split(h, N)
        of_h = [np.concatenate([y @ kernel for y, kernel in zip(heads, gate)]) for gate in R]
        i, f, z, o = (a + b + bias for a, b, bias in zip(of_x, of_h, biases))
        f = np.log(sigmoid(f)) + m
        m = np.where(f.real > i.real, f, i)
        c = np.exp(f - m) * c + np.exp(i - m) * np.tanh(z)
        n = np.exp(f - m) * n + np.exp(i - m)
        h = sigmoid(o) * c / n
        normed = np.concatenate([layer_norm(head) for head in np.split(h, N)])
        ys.append(normed * params["norm"]["scale"])
    return np.array(ys)


def gated_delta_net(block, params, xs):
    N, K = block.heads, block.key_features
    V = block.expand * K
    b_qkv, b_beta, b_alpha = np.split(
        params["delta"]["input"]["bias"], [N * (2 * K + V), N * (2 * K + V) + N]
    )
    S, past, ys = np.zeros((N, K, V)), [], []
    for x in xs:
        past = [affine(params["qkv"], x), *past][:4]
        qkv = silu(filtered(params["conv"], past) + b_qkv)
        q, k, v = (np.split(part, N) for part in np.split(qkv, [N * K, 2 * N * K]))
        beta = sigmoid(affine(params["beta"], x) + b_beta)
        alpha = softplus(affine(params["alpha"], x) + b_alpha)
        alpha = np.exp(-np.exp(params["delta"]["decay_log"]) * alpha)
        S, heads = S.astype(qkv.dtype), []
        for head in range(N):
            query, key = (z / np.sqrt(z @ z + 1e-6) for z in (q[head], k[head]))
            S[head] = alpha[head] * (S[head] - beta[head] * np.outer(key, key @ S[head]))
            S[head] += beta[head] * np.outer(key, v[head])
            y = query @ S[head]
            heads.append(y / np.sqrt(np.mean(y**2) + 1e-5))
        y = np.concatenate(heads) * params["norm"]["scale"]
        ys.append(affine(params["out"], silu(affine(params["gate"], x)) * y))
    return np.array(ys)


EQUATIONS = {
    blocks.GriffinMixer: griffin,
    blocks.MambaMixer: mamba,
    blocks.MLSTMMixer: mlstm,
    blocks.SLSTMMixer: slstm,
    blocks.GatedDeltaNetMixer: gated_delta_net,
}


def affine(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def diagonal(params, x):
    """A block-diagonal matrix, written out."""
    blocks, rows, columns = params["kernel"].shape
    whole = np.zeros((blocks * rows, blocks * columns), params["kernel"].dtype)
    for b, block in enumerate(params["kernel"]):
        whole[b * rows : (b + 1) * rows, b * columns : (b + 1) * columns] = block
    return x @ whole


def filtered(params, past):
    """A convolution at one step; the newest input is the first."""
    return sum(w * x for w, x in zip(params["kernel"], past)) + params.get("bias", 0)


def layer_norm(x):
    return (x - np.mean(x)) / np.sqrt(np.mean((x - np.mean(x)) ** 2) + 1e-5)


def put(values, index, value):
    values = values.astype(np.result_type(values, value))
    values[index] = value
    return values


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def silu(v):
    return v * sigmoid(v)


def softplus(v):
    return np.log(1 + np.exp(v))


def gelu(v):
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))
