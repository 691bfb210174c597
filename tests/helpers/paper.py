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


def stack_rnn(params, xs, h, stack):
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    ys, depth = [], len(stack)
    for x in xs:
        h = np.tanh(x @ W + b + h @ U + stack[0] @ params["top"]["kernel"])
        scores = h @ params["action"]["kernel"] + params["action"]["bias"]
        scores = np.exp(scores - scores.max())
        push, pop, keep = scores / scores.sum()
        pushed = h @ params["push"]["kernel"] + params["push"]["bias"]
        old = [pushed, *stack, np.zeros_like(pushed)]  # entry i of the stack is old[i + 1]
        stack = np.array(
            [push * old[i] + keep * old[i + 1] + pop * old[i + 2] for i in range(depth)]
        )
        ys.append(h)
    return np.array(ys), (h, np.array(stack))


def gsa(params, xs, state, heads, slots):
    H = (params["input"]["kernel"].shape[1] - heads * slots) // 3
    K = H // heads
    memory, ys = state.copy(), []
    for x in xs:
        z = x @ params["input"]["kernel"] + params["input"]["bias"]
        swished = z[: 3 * H] * sigmoid(z[: 3 * H])
        y = np.zeros(H, z.dtype)
        for n in range(heads):
            q, k, v = (swished[j * H + n * K : j * H + (n + 1) * K] for j in range(3))
            keep = sigmoid(z[3 * H + n * slots : 3 * H + (n + 1) * slots]) ** (1 / 8)
            for s in range(slots):
                memory[n, s, :K] = keep[s] * memory[n, s, :K] + (1 - keep[s]) * k
                memory[n, s, K:] = keep[s] * memory[n, s, K:] + (1 - keep[s]) * v
            scores = memory[n, :, :K] @ q / np.sqrt(K)
            scores = np.exp(scores - scores.max())
            y[n * K : (n + 1) * K] = scores / scores.sum() @ memory[n, :, K:]
        ys.append(y)
    return np.array(ys), (memory,)


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


def split_at(array, *widths):
    """Parts of the last axis of these widths."""
    return np.split(array, np.cumsum(widths)[:-1], axis=-1)


def softplus(v):
    return np.log1p(np.exp(-np.abs(v))) + np.maximum(v, 0)


def silu(v):
    return v * sigmoid(v)


# --- dense --------------------------------------------------------------------------------------


def ind_rnn(params, xs, h, bound=None):
    W, b, u = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["scale"]
    if bound is not None:
        u = np.minimum(np.maximum(u, -bound), bound)
    ys = []
    for x in xs:
        h = np.maximum(x @ W + u * h + b, 0)
        ys.append(h)
    return np.array(ys), (h,)


def mgu(params, xs, h):
    W_f, W_n = per_gate(params["input"]["kernel"], 2)
    b_f, b_n = per_gate(params["input"]["bias"], 2)
    U_f, U_n = per_gate(params["recurrent"]["kernel"], 2)
    ys = []
    for x in xs:
        f = sigmoid(x @ W_f + h @ U_f + b_f)
        n = np.tanh(x @ W_n + (f * h) @ U_n + b_n)
        h = (1 - f) * h + f * n
        ys.append(h)
    return np.array(ys), (h,)


def peephole_lstm(params, xs, h, c):
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    p_i, p_f, p_o = per_gate(params["peephole"]["scale"], 3)
    ys = []
    for x in xs:
        i, f, g, o = per_gate(x @ W + b + h @ U, 4)
        new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
        h, c = sigmoid(o + p_o * new) * np.tanh(new), new
        ys.append(h)
    return np.array(ys), (h, c)


def layer_norm_lstm(params, xs, h, c):
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    norm = params["norm"]

    def normalise(v):
        return (v - np.mean(v)) / np.sqrt(np.var(v) + 1e-5)

    ys = []
    for x in xs:
        sums = norm["recurrent"] * normalise(h @ U) + norm["input"] * normalise(x @ W) + b
        i, f, g, o = per_gate(sums, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(norm["cell"] * normalise(c) + norm["bias"])
        ys.append(h)
    return np.array(ys), (h, c)


def projected_lstm(params, xs, h, c):
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    ys = []
    for x in xs:
        i, f, g, o = per_gate(x @ W + b + h @ U, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = (sigmoid(o) * np.tanh(c)) @ params["projection"]["kernel"]
        ys.append(h)
    return np.array(ys), (h, c)


def co_rnn(params, xs, y, z, step=0.042, stiffness=2.7, damping=4.7):
    V, b = params["input"]["kernel"], params["input"]["bias"]
    W, W_z = np.split(params["recurrent"]["kernel"], 2)
    ys = []
    for x in xs:
        force = np.tanh(y @ W + z @ W_z + x @ V + b)
        z = z + step * force - step * stiffness * y - step * damping * z
        y = y + step * z
        ys.append(y)
    return np.array(ys), (y, z)


def lem(params, xs, y, z, step=1.0):
    V_1, V_2, V_z, V_y = per_gate(params["input"]["kernel"], 4)
    b_1, b_2, b_z, b_y = per_gate(params["input"]["bias"], 4)
    W_1, W_2, W_z, W_y = per_gate(params["recurrent"]["kernel"], 4)
    ys = []
    for x in xs:
        step_z = step * sigmoid(y @ W_1 + x @ V_1 + b_1)
        step_y = step * sigmoid(y @ W_2 + x @ V_2 + b_2)
        z = (1 - step_z) * z + step_z * np.tanh(y @ W_z + x @ V_z + b_z)
        y = (1 - step_y) * y + step_y * np.tanh(z @ W_y + x @ V_y + b_y)
        ys.append(y)
    return np.array(ys), (y, z)


def slstm(params, xs, h, c, n, m):
    W, b, R = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    heads, width, _ = R.shape
    ys = []
    for x in xs:
        gates = []
        for gate, from_x in enumerate(per_gate(x @ W + b, 4)):
            from_h = [
                h[head * width : (head + 1) * width] @ per_gate(R[head], 4)[gate]
                for head in range(heads)
            ]
            gates.append(from_x + np.concatenate(from_h))
        i, f, z, o = gates
        new = np.maximum(np.log(sigmoid(f)) + m, i)
        i, f = np.exp(i - new), np.exp(np.log(sigmoid(f)) + m - new)
        c, n, m = f * c + i * np.tanh(z), f * n + i, new
        h = sigmoid(o) * c / n
        ys.append(h)
    return np.array(ys), (h, c, n, m)


# --- linear -------------------------------------------------------------------------------------


def min_lstm(params, xs, h):
    W, b = params["input"]["kernel"], params["input"]["bias"]
    ys = []
    for x in xs:
        f, i, n = per_gate(x @ W + b, 3)
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * n
        ys.append(h)
    return np.array(ys), (h,)


def lru(params, xs, re, im):
    size = np.exp(-np.exp(params["nu"]))
    lam = size * np.exp(1j * np.exp(params["theta"]))
    B_re, B_im = per_gate(params["input"]["kernel"], 2)
    C_re, C_im = np.split(params["output"]["kernel"], 2)
    h, ys = re + 1j * im, []
    for x in xs:
        h = lam * h + np.exp(params["gamma_log"]) * (x @ (B_re + 1j * B_im))
        ys.append((h @ (C_re - 1j * C_im)).real + x @ params["skip"]["kernel"])
    return np.array(ys), (h.real, h.imag)


def s5(params, xs, re, im):
    step = np.exp(params["log_step"])
    lam = np.minimum(params["lambda_re"], -1e-4) + 1j * params["lambda_im"]
    B_re, B_im = per_gate(params["input"]["kernel"], 2)
    C_re, C_im = np.split(params["output"]["kernel"], 2)
    held = np.exp(lam * step)
    h, ys = re + 1j * im, []
    for x in xs:
        h = held * h + (held - 1) / lam * (x @ (B_re + 1j * B_im))
        ys.append(2 * (h @ (C_re - 1j * C_im)).real + x @ params["skip"]["kernel"])
    return np.array(ys), (h.real, h.imag)


def s6(params, xs, h, negative=False):
    features, states = params["decay_log"].shape
    rank = params["step"]["kernel"].shape[0]
    A, ys = -np.exp(params["decay_log"]), []
    for x in xs:
        u = x @ params["input"]["kernel"] + params["input"]["bias"]
        low, B, C = split_at(u @ params["select"]["kernel"], rank, states, states)
        step = softplus(low @ params["step"]["kernel"] + params["step"]["bias"])
        y = np.zeros(features, u.dtype)
        for feature in range(features):
            a = np.exp(step[feature] * A[feature])
            a = 2 * a - 1 if negative else a
            h[feature] = a * h[feature] + step[feature] * B * u[feature]
            y[feature] = C @ h[feature] + params["skip"]["scale"][feature] * u[feature]
        ys.append(y)
    return np.array(ys), (h,)


def rg_lru(params, xs, h, negative=False):
    W, b = params["input"]["kernel"], params["input"]["bias"]
    ys = []
    for x in xs:
        r, i, u = per_gate(x @ W + b, 3)
        log_a = -8 * sigmoid(r) * softplus(params["decay"])  # a = σ(Λ)^(c r), with Λ's sign turned
        kept = 2 * np.exp(log_a) - 1 if negative else np.exp(log_a)
        h = kept * h + np.sqrt(-np.expm1(2 * log_a)) * sigmoid(i) * u
        ys.append(h)
    return np.array(ys), (h,)


# --- matrix -------------------------------------------------------------------------------------


def by_head(params, xs, S, widths, step):
    """Runs `step(head, S, parts) -> (S, y)` over heads and time, from the fused projection."""
    heads, ys = S.shape[0], []
    W, b = params["input"]["kernel"], params["input"]["bias"]
    for x in xs:
        parts = split_at(x @ W + b, *widths)
        outs = []
        for head in range(heads):
            mine = [np.split(part, heads)[head] for part in parts]
            S[head], y = step(head, S[head], *mine, x=x)
            outs.append(y)
        ys.append(np.concatenate(outs))
    return np.array(ys), S


def linear_attention(params, xs, S):
    heads, K, V = S.shape[0], S.shape[1], S.shape[2] - 1

    def feature_map(v):
        return np.where(v > 0, v + 1, np.exp(v))  # elu(v) + 1

    def step(head, S, q, k, v, x):
        q, k = feature_map(q), feature_map(k)
        kv, n = S[:, :V] + np.outer(k, v), S[:, V] + k
        return np.concatenate([kv, n[:, None]], 1), q @ kv / (q @ n + 1e-6)

    ys, S = by_head(params, xs, S, [heads * K, heads * K, heads * V], step)
    return ys, (S,)


def retention(params, xs, S):
    heads, K, V = S.shape

    def step(head, S, q, k, v, x):
        S = (1 - 2.0 ** (-5 - head)) * S + np.outer(k / np.sqrt(K), v)
        return S, q @ S

    ys, S = by_head(params, xs, S, [heads * K, heads * K, heads * V], step)
    return ys, (S,)


def gla(params, xs, S):
    heads, K, V = S.shape
    decay = params["decay"]

    def step(head, S, q, k, v, x):
        alpha = sigmoid(x @ decay["down"] @ decay["up"] + decay["bias"]) ** (1 / 16)
        S = np.diag(np.split(alpha, heads)[head]) @ S + np.outer(k, v)
        return S, q / np.sqrt(K) @ S

    ys, S = by_head(params, xs, S, [heads * K, heads * K, heads * V], step)
    return ys, (S,)


def mlstm(params, xs, S, m):
    heads, K, V = S.shape[0], S.shape[1], S.shape[2] - 1

    def step(head, S, q, k, v, i, f, x):
        (i,), (f,) = i, np.log(sigmoid(f))
        new = max(f + m[head], i)
        i, f, m[head] = np.exp(i - new), np.exp(f + m[head] - new), new
        C = f * S[:, :V].T + i * np.outer(v, k / np.sqrt(K))
        n = f * S[:, V] + i * k / np.sqrt(K)
        y = C @ q / max(abs(n @ q), np.exp(-new))
        return np.concatenate([C.T, n[:, None]], 1), y

    ys, S = by_head(params, xs, S, [heads * K, heads * K, heads * V, heads, heads], step)
    o = np.array([sigmoid(x @ params["output"]["kernel"] + params["output"]["bias"]) for x in xs])
    return o * ys, (S, m)


def delta_net(params, xs, S, negative=False, gated=False):
    heads, K, V = S.shape

    def unit(v):
        return v / np.sqrt(v @ v + 1e-6)

    def step(head, S, q, k, v, beta, alpha=None, x=None):
        q, k, v = unit(silu(q)), unit(silu(k)), silu(v)
        beta = (2 if negative else 1) * sigmoid(beta)
        if gated:
            S = np.exp(-np.exp(params["decay_log"][head]) * softplus(alpha)) * S
        S = (np.eye(K) - beta * np.outer(k, k)) @ S + beta * np.outer(k, v)
        return S, q @ S

    widths = [heads * K, heads * K, heads * V, heads] + [heads] * gated
    ys, S = by_head(params, xs, S, widths, step)
    return ys, (S,)
