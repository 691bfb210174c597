"""What a token costs each arm of a question: time read at once and streamed, and bytes of state."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.harness.questions import Arms
from experiments.harness.rates import folder
from experiments.harness.tables import Row
from longlag.runs import load
from longlag.system.console import print_table
from longlag.training import evaluation_batch

__all__ = ["COLUMNS", "cost_lines", "measure_costs", "note"]

COLUMNS = (
    *("arm", "at once", "at once, longest", "streamed", "streamed, median", "state"),
    *("state, longest", "a token adds"),
)
ROUNDS = 15
# One round of one contestant is at least so long, so that the clock's own noise is small.
ROUND_SECONDS = 0.03


def measure_costs(arms: Arms, rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """Times the trained models of every arm, one after the other, round by round; prints a table.

    "At once" is one batch of the training's size from its first token to its last, in one call;
    "streamed" is one sequence, a call for every token, its state handed from call to call, with
    room for the longest sequence that was tested. A token's share counts one sequence, not a batch.

    Args:
        arms: as they were trained.
        rows: of the arms; not looked at.
        out: the folder; each arm's run is in `folder(arm)`.

    Returns:
        `costs`: for every arm `arm, batch, length, longest` (tokens); `at_once_us`,
        `at_once_longest_us` and `streamed_us`, microseconds per token, each least and median over
        the rounds; `state_bytes` and `state_longest_bytes`, of one sequence.
    """
    del rows
    runs: dict[tuple[str, str], tuple[Callable[[], Any], int]] = {}
    costs: dict[str, Row] = {}
    for arm, job in arms.items():
        loaded = load(out / folder(arm))
        model, params = loaded.model, loaded.of_seed()
        near, far = (
            evaluation_batch(job.task.at_lag(lag), job.training.batch_size, "test").inputs
            for lag in (job.task.lag, max(job.lags))
        )
        runs[arm, "at_once_us"] = _read_at_once(model, params, near)
        runs[arm, "at_once_longest_us"] = _read_at_once(model, params, far)
        runs[arm, "streamed_us"] = _stream(model, params, far[:1])
        costs[arm] = {
            "arm": arm,
            "batch": near.shape[0],
            "length": near.shape[1],
            "longest": far.shape[1],
            "state_bytes": model.cost(near.shape[1]).state_bytes,
            "state_longest_bytes": model.cost(far.shape[1]).state_bytes,
        }
    for run, _ in runs.values():
        jax.block_until_ready(run())  # compiled before any is timed
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, (run, tokens) in runs.items():
            times[key].append(_time_round(run) / tokens * 1e6)
    for (arm, what), microseconds in times.items():
        costs[arm][what] = [round(min(microseconds), 3), round(statistics.median(microseconds), 3)]
    results = {"costs": [*costs.values()]}
    print_table(COLUMNS, cost_lines(results), "What a token costs")
    return results


def cost_lines(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm that was timed."""
    return [
        (
            cost["arm"],
            f"{cost['at_once_us'][0]:.2f} µs",
            f"{cost['at_once_longest_us'][0]:.2f} µs",
            *(f"{us:.0f} µs" for us in cost["streamed_us"]),
            f"{cost['state_bytes']:,} B",
            f"{cost['state_longest_bytes']:,} B",
            f"{_bytes_per_token(cost):,.0f} B",
        )
        for cost in results.get("costs", ())
    ]


def note(results: Mapping[str, Any]) -> str:
    """What the columns are; empty where nothing was timed."""
    if not results.get("costs"):
        return ""
    cost = results["costs"][0]
    return (
        f"Times are microseconds a token of one sequence, the least of {ROUNDS} rounds.\n"
        f"At once: {cost['batch']} sequences of {cost['length']:,} tokens in one call. Longest: of "
        f"{cost['longest']:,} tokens.\n"
        "Streamed: one sequence, one call a token.\n"
        "A token adds: how many bytes the state grows by at each token."
    )


def _bytes_per_token(cost: Row) -> float:
    more = cost["state_longest_bytes"] - cost["state_bytes"]
    return more / max(cost["longest"] - cost["length"], 1)


def _read_at_once(model: Any, params: Any, inputs: jax.Array) -> tuple[Callable[[], Any], int]:
    apply = jax.jit(lambda params, inputs: model.apply(params, inputs)[1])
    return lambda: apply(params, inputs), inputs.shape[0] * inputs.shape[1]


def _stream(model: Any, params: Any, inputs: jax.Array) -> tuple[Callable[[], Any], int]:
    tokens = [inputs[:, i : i + 1] for i in range(inputs.shape[1])]
    # Compiled, or two zeros of the state may be one buffer, which cannot be donated twice.
    begin = jax.jit(lambda params: model.init_state(params, 1, len(tokens)))
    step = jax.jit(model.apply, donate_argnums=2)

    def run() -> Any:
        state, answer = begin(params), None
        for token in tokens:
            state, answer = step(params, token, state)
        return answer

    return run, len(tokens)


def _time_round(run: Callable[[], Any]) -> float:
    """Seconds that a run takes, the mean of as many as fill a round."""
    began = time.perf_counter()
    done, passed = 0, 0.0
    while passed < ROUND_SECONDS:
        jax.block_until_ready(run())
        done, passed = done + 1, time.perf_counter() - began
    return passed / done
