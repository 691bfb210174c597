"""Results of a comparison that never ran: TEST DATA for the report, not a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np

from longlag import report

ROLES = {
    "feed-forward": "feed-forward",
    "LSTM": "recurrence",
    "LSTM + additive": "both",
    "LSTM + full": "both",
    "attention only": "attention",
}

# Median accuracy at the trained length and at 4 x, steps until solved.
MADE_UP = {
    "recall": (
        32,
        ("uniform over the values", 1 / 16),
        {
            "feed-forward": (0.06, None, None),
            "LSTM": (0.58, None, None),
            "LSTM + additive": (0.99, None, 160),
            "LSTM + full": (1.0, None, 100),
            "attention only": (1.0, None, 120),
        },
    ),
    "parity": (
        40,
        ("coin flip", 0.5),
        {
            "feed-forward": (0.5, 0.51, None),
            "LSTM": (1.0, 1.0, 100),
            "LSTM + additive": (1.0, 0.97, 140),
            "LSTM + full": (0.99, 0.96, 120),
            "attention only": (0.53, 0.5, None),
        },
    ),
    "copy": (
        50,
        ("uniform over the symbols", 0.125),
        {
            "feed-forward": (0.125, 0.124, None),
            "LSTM": (0.41, 0.2, None),
            "LSTM + additive": (0.98, 0.96, 300),
            "LSTM + full": (1.0, 0.97, 220),
            "attention only": (0.99, 0.31, 260),
        },
    ),
}


def made_up_results() -> dict[str, Any]:
    """Three tasks, five arms and three seeds, about as a demo would find them."""
    rng = np.random.default_rng(0)
    rows, curves, by_lag = [], [], []
    for task, (length, (who, floor), arms) in MADE_UP.items():
        for arm, (near, far, solved_at) in arms.items():
            budget = 300 if solved_at else 1500
            cache = 0 if arm in ("feed-forward", "LSTM") else 2 * 4 * 64
            for seed in range(3):
                seconds = float(rng.uniform(2, 14))
                taken = solved_at + 20 * (seed - 1) if solved_at else budget
                for factor, accuracy in ((1, near), (4, far)):
                    if accuracy is None:
                        continue
                    scatter = rng.normal(0, 0.015 if accuracy < 0.9 else 0.004)
                    accuracy = float(np.clip(accuracy + scatter, 0, 1)) if accuracy < 1 else 1.0
                    rows.append(
                        {
                            "task": task,
                            "arm": arm,
                            "seed": seed,
                            "accuracy": accuracy,
                            "exact_match": accuracy**2,
                            "loss": -float(np.log(max(accuracy, 0.05))) + 1e-3,
                            "length": factor * length,
                            "train_length": length,
                            "steps": taken,
                            "budget": budget,
                            "solved_at": taken if solved_at else None,
                            "parameters": 21_000 + 997 * len(arm),
                            "state_bytes": (0 if arm in ("feed-forward", "attention only") else 512)
                            + cache * factor * length,
                            "seconds": seconds,
                        }
                    )
                steps = list(range(20, taken + 1, 20))
                rise = 1 / (1 + np.exp(-(np.array(steps) - 0.6 * taken) / (0.08 * taken)))
                if not solved_at:
                    rise = 1 - np.exp(-np.array(steps) / 300)
                course = floor + (near - floor) * rise + rng.normal(0, 0.015, len(steps))
                curves.append(
                    {
                        "task": task,
                        "arm": arm,
                        "seed": seed,
                        "steps": steps,
                        "accuracy": np.clip(course, 0, 1).tolist(),
                        "loss": (2.2 * np.clip(1.001 - course, 1e-3, 1)).tolist(),
                    }
                )
                for lag in (8, 16, 32, 64, 128, 256) if far is not None else ():
                    beyond = np.clip(np.log2(lag / length) / 2, 0, 1)
                    value = near + (far - near) * beyond + rng.normal(0, 0.008)
                    by_lag.append(
                        {
                            "task": task,
                            "arm": arm,
                            "seed": seed,
                            "lag": lag,
                            "train_lag": length,
                            "accuracy": float(np.clip(value, 0, 1)),
                        }
                    )
        for factor in (1, 4):
            rows.append(
                {
                    "task": task,
                    "arm": f"floor: {who}",
                    "seed": None,
                    "accuracy": floor,
                    "exact_match": 0.0,
                    "loss": -float(np.log(floor)),
                    "length": factor * length,
                    "steps": 0,
                    "parameters": 0,
                    "state_bytes": 0,
                    "seconds": None,
                }
            )
    pairs = ["k3", "v7", "k1", "v2", "k5", "v4", "k8", "v1"]
    tokens = [*pairs, *"..", "k5", "..", "k1", ".", "k8", ".", "k3"] + ["."] * 14
    weights = np.tril(rng.uniform(0.2, 1, (len(tokens), len(tokens))))
    for step, token in enumerate(tokens):
        if step >= len(pairs) and token.startswith("k"):
            weights[step, pairs.index(token) + 1] += 60
    weights /= weights.sum(axis=1, keepdims=True)
    weights[-6:] = 0  # padding reads nothing
    bits = rng.integers(0, 2, 40)
    odd = np.cumsum(bits) % 2
    drive = np.stack([2.0 * odd - 1, 2.0 * bits - 1, np.linspace(-1, 1, 40)], axis=1)
    states = np.tanh(drive @ rng.normal(0, [[1.3], [0.5], [0.2]], (3, 32)))
    return {
        "title": "longlag demo",
        "lead": "Five arms of equal depth on three memory tasks, three seeds each. Blocks are "
        "replaced, never added. These numbers are test data.",
        "rows": rows,
        "roles": ROLES,
        "curves": curves,
        "by_lag": by_lag,
        "attention": {
            "weights": weights.tolist(),
            "tokens": tokens,
            "title": "What the attention block reads (recall, LSTM + full, one test sequence)",
            "caption": "Each key that is asked again reads the value that stood behind it.",
        },
        "trace": {
            "states": states.tolist(),
            "tokens": [str(bit) for bit in bits],
            "title": "The hidden state unrolled over a bit string (parity, LSTM, second block)",
            "caption": "Most units flip at every 1 and hold through the zeros: the parity so far.",
        },
        "meta": {
            "command": "make demo",
            "commit": "0123abc",
            "device": "cpu, 2 cores",
            "versions": {"longlag": "0.1.0", "jax": "0.10.2", "flax": "0.12.8"},
            "wall_seconds": 171.4,
        },
    }


def row(**changes: Any) -> dict[str, Any]:
    """One row of a small comparison; also test data."""
    plain = {
        "task": "recall",
        "arm": "LSTM",
        "seed": 0,
        "accuracy": 0.5,
        "exact_match": 0.25,
        "loss": 1.0,
        "length": 32,
        "steps": 500,
        "parameters": 1000,
        "state_bytes": 2048,
        "seconds": 3.0,
    }
    return plain | changes


def entries_of(results: dict[str, Any]) -> list[report.Entry]:
    return report.summarise(results["rows"], 0.95, results["roles"])


def find(entries: list[report.Entry], task: str, arm: str) -> report.Entry:
    return next(entry for entry in entries if (entry.task, entry.arm) == (task, arm))
