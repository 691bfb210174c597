"""A slow oracle for attention: NumPy, row by row and step by step, from the equations.

It shares no code with `longlag.attention`, keeps a plain list of the past, and also takes complex
numbers: the imaginary part of f(x + ih) / h is the derivative of f to the last digit, so that one
oracle checks values and gradients ("complex step", Squire and Trapp 1998).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from longlag.attention import Additive, Local, Multiplicative


@dataclasses.dataclass
class Expected:
    """What an attention must give: outputs, weights, and what each row remembers at the end."""

    outputs: np.ndarray  # [T, B, K]
    weights: np.ndarray  # [B, T, T]
    positions: np.ndarray  # [T, B], -1 where masked
    pasts: list[list[dict[str, np.ndarray]]]  # row by row, one entry per position since the reset


def attend(layer: Any, params: Any, xs: np.ndarray, mask: np.ndarray, resets: np.ndarray):
    """Runs an attention over `xs` `[T, B, D]`; mask and resets are `[T, B]`."""
    T, B, _ = xs.shape
    width = width_of(layer, xs.shape[-1])
    outputs = np.zeros((T, B, width), np.result_type(xs, *jax.tree.leaves(params)))
    weights = np.zeros((B, T, T), outputs.dtype)
    positions = np.full((T, B), -1)
    pasts = []
    for row in range(B):
        past: list[dict[str, np.ndarray]] = []
        when: list[int] = []
        for t in range(T):
            if resets[t, row]:
                past, when = [], []
            if not mask[t, row]:
                continue
            p = len(past)
            positions[t, row] = p
            past.append(entry(layer, params, p, xs[t, row]))
            when.append(t)
            begin = 0 if layer.window is None else max(0, p - layer.window + 1)
            outputs[t, row], alpha = read(layer, params, p, xs[t, row], past[begin:])
            weights[row, t, when[begin:]] = alpha
        pasts.append(past)
    return Expected(outputs, weights, positions, pasts)


def attend_source(layer: Any, params: Any, xs: np.ndarray, source: np.ndarray, mask: np.ndarray):
    """Reads `source` `[B, S, E]`, with `mask` `[B, S]`, from `xs` `[T, B, D]`."""
    (T, B, _), S = xs.shape, source.shape[1]
    outputs = np.zeros((T, B, width_of(layer, source.shape[2])), np.result_type(xs, source))
    outputs = outputs.astype(np.result_type(outputs, *jax.tree.leaves(params)))
    weights = np.zeros((T, B, S), outputs.dtype)
    for row in range(B):
        (read_at,) = np.nonzero(mask[row])
        seen = [entry(layer, params, s, source[row, s]) for s in read_at]
        for t in range(T) if seen else ():
            outputs[t, row], weights[t, row, read_at] = read(layer, params, t, xs[t, row], seen)
    return outputs, weights


def width_of(layer: Any, memory: int) -> int:
    layer = layer.attention if isinstance(layer, Local) else layer
    return memory if isinstance(layer, Additive | Multiplicative) else layer.features


def entry(layer: Any, params: Any, position: int, x: np.ndarray) -> dict[str, np.ndarray]:
    """What one step leaves behind."""
    if isinstance(layer, Local):
        return entry(layer.attention, params["attention"], position, x)
    if isinstance(layer, Multiplicative):
        key = {} if layer.score == "dot" else {"key": x @ params["key"]["kernel"]}
        return {**key, "value": x}
    if isinstance(layer, Additive):
        return {"key": x @ params["key"]["kernel"], "value": x}
    width = (layer.inner_features or layer.features) // layer.heads
    key = placed(layer, params, x, position) @ params["key"]["kernel"]
    value = (x @ params["value"]["kernel"]).reshape(-1, width)
    return {"key": turned(layer, key, position), "value": value}


def read(
    layer: Any,
    params: Any,
    position: int,
    x: np.ndarray,
    seen: list[dict[str, np.ndarray]],
    bell: np.ndarray | float = 1.0,
):
    """What one step makes of the entries that it sees, and its weights on them."""
    if isinstance(layer, Local):
        predicted = params["position"]["score"][:, 0] @ np.tanh(x @ params["position"]["kernel"])
        distance = np.arange(len(seen)) - len(seen) / (1 + np.exp(-predicted))
        (near,) = np.nonzero(~(np.abs(distance.real) > layer.radius))  # all where it is NaN
        sigma = layer.radius / 2
        bell = np.exp(-(distance[near] ** 2) / (2 * sigma**2))
        inner = layer.attention, params["attention"], position, x, [seen[i] for i in near], bell
        output, of_near = read(*inner)
        alpha = np.zeros(len(seen), of_near.dtype)
        alpha[near] = of_near
        return output, alpha
    if isinstance(layer, Multiplicative):
        alpha = softmax(np.array([x @ s.get("key", s["value"]) for s in seen])) * bell
        return sum(a * s["value"] for a, s in zip(alpha, seen)), alpha
    if isinstance(layer, Additive):
        query = x @ params["query"]["kernel"] + params["query"]["bias"]
        v = params["score"]["kernel"][:, 0]
        alpha = softmax(np.array([v @ np.tanh(query + s["key"]) for s in seen])) * bell
        return sum(a * s["value"] for a, s in zip(alpha, seen)), alpha
    query = placed(layer, params, x, position) @ params["query"]["kernel"]
    query = turned(layer, query, position)
    contexts, alphas = [], []
    for head in range(layer.heads):
        shared = head * (layer.kv_heads or layer.heads) // layer.heads
        scores = [query[head] @ s["key"][shared] / np.sqrt(query.shape[1]) for s in seen]
        if layer.positions == "alibi":
            back = np.arange(len(seen) - 1, -1, -1) / layer.stretch
            scores = np.array(scores) - 2 ** (-8 * (head + 1) / layer.heads) * back
        alpha = softmax(np.array(scores)) * bell
        contexts.append(sum(a * s["value"][shared] for a, s in zip(alpha, seen)))
        alphas.append(alpha)
    return np.concatenate(contexts) @ params["out"]["kernel"], np.mean(alphas, axis=0)


def placed(layer: Any, params: Any, x: np.ndarray, position: int) -> np.ndarray:
    return x + params["position"]["embedding"][position] if layer.positions == "learned" else x


def softmax(scores: np.ndarray) -> np.ndarray:
    exps = np.exp(scores - scores.real.max())
    return exps / exps.sum()


def turned(layer: Any, x: np.ndarray, position: int) -> np.ndarray:
    """The heads of a vector, `[N, K]`, each pair (i, i + K / 2) turned by its own angle."""
    heads = x.reshape(-1, (layer.inner_features or layer.features) // layer.heads).copy()
    if layer.positions == "rotary":
        half = heads.shape[1] // 2
        for i in range(half):
            angle = position / layer.stretch / 10_000 ** (i / half)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            heads[:, [i, i + half]] = heads[:, [i, i + half]] @ turn.T
    return heads
