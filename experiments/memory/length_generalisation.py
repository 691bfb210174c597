"""How far beyond the trained length does a tracked state go: parity, streamed, to a million bits.

    python -m experiments.memory.attention_vs_recurrence track   (first: trains what is stretched)
    python -m experiments.memory.length_generalisation           (4 core-hours, 2 for attention)
    python -m experiments.memory.length_generalisation --arms "LSTM" --longest 1048576

Takes the models that `attention_vs_recurrence track` left, trained to length 40, and streams fresh
bits through them: the answer after n bits is that of the string of length n, so one pass tests
every power of two. An arm whose state grows with the length is not run beyond 8,192, where it would
hold a cache of everything; the table says so.

Finished seeds are kept: the same command goes on where it was stopped, and `--seeds` with a larger
number measures those that are new.

Leaves runs/length-generalisation: results.json, and the rows of each arm and seed.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import inspect
import json
import shlex
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from rich.progress import track

from experiments.harness.questions import command_and_folder, show
from experiments.harness.rates import folder
from experiments.harness.recorded import HOW_TO_READ, Plot, Recorded
from experiments.harness.tables import rows_by_arm
from experiments.memory.attention_vs_recurrence import question
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.models import NO_CLASS, SequenceModel, likeliest_class
from longlag.report.summary import flaws, wilson
from longlag.runs import Loaded, load
from longlag.system.atomic_files import replace_file, writing
from longlag.system.console import console
from longlag.system.machine import provenance
from longlag.tasks.strings import prefix_sums

CHUNK = 64
SHORTEST = 128
CACHED = 2**13  # the longest that a growing state is given
AT_ONCE = 8  # strings, where the state grows: of more, XLA:CPU has the scores out of its caches
KEY = 2**32 - 3  # apart from the keys of training, validation and test


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(
    model: SequenceModel,
    sequences: int,
    params: Any,
    state: Any,
    parity: jax.Array,
    strings: jax.Array,
    key: jax.Array,
    steps: Any,
) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
    """Streams fresh bits through a model.

    Args:
        model: of parity.
        sequences: how many strings there are.
        params: of one seed.
        state: of B of them.
        parity: `[B]` int32, of their bits so far.
        strings: `[B]` int32, which ones these are.
        key: of these bits.
        steps: how many, a multiple of `CHUNK`; data, so that one program serves all.

    Returns:
        State and parity after them, and whether the last answer is right, and NaN, `[B]` bool.
    """

    # State, parity and, of the last answer, whether it is right and NaN: `[B]` but for the state.
    def chunk(
        i: jax.Array, carry: tuple[Any, jax.Array, jax.Array, jax.Array]
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        state, parity, *_ = carry
        bits = jax.random.bits(jax.random.fold_in(key, i), (sequences, CHUNK), jnp.uint32) >> 31
        bits = bits[strings].astype(jnp.int32)
        state, answers = model.apply(params, bits, state)
        parity = (parity + prefix_sums(bits)[:, -1]) % 2
        named = likeliest_class(answers[:, -1])
        return state, parity, named == parity, named == NO_CLASS

    none = parity < 0
    return jax.lax.fori_loop(0, steps // CHUNK, chunk, (state, parity, none, none))


def stretch(
    model: SequenceModel, params: Any, longest: int, sequences: int, at_once: int
) -> tuple[dict[int, int], dict[int, int]]:
    """How many of `sequences` strings are answered rightly, and NaN, by length: powers of two.

    Args:
        model: of parity.
        params: of one seed.
        longest: a power of two from `SHORTEST` on.
        sequences: how many strings.
        at_once: how many of them go through the model together; changes no answer.
    """
    correct: collections.Counter[int] = collections.Counter()
    undefined: collections.Counter[int] = collections.Counter()
    for first in range(0, sequences, at_once):
        strings = jnp.arange(first, min(first + at_once, sequences))
        state = model.init_state(params, strings.size, SHORTEST)
        parity, key = jnp.zeros_like(strings), jax.random.key(KEY)
        done, length = 0, SHORTEST
        while length <= longest:
            # A cache of the longest string from the first on would be read whole at every step.
            larger = model.init_state(params, strings.size, length)
            state, parity, right, nan = advance(
                model,
                sequences,
                params,
                jax.tree.map(enlarge, state, larger),
                parity,
                strings,
                jax.random.fold_in(key, length),
                length - done,
            )
            correct[length] += int(right.sum())
            undefined[length] += int(nan.sum())
            done, length = length, 2 * length
    return dict(correct), dict(undefined)


def enlarge(old: jax.Array, new: jax.Array) -> jax.Array:
    """A part of the state in the larger one that a longer string needs."""
    return new.at[tuple(slice(size) for size in old.shape)].set(old)


def rows_of(
    arm: str, loaded: Loaded, seed: int, longest: int, sequences: int
) -> list[dict[str, Any]]:
    """A row for every length of one seed of an arm's run."""
    model = loaded.model
    growing = model.cost(64).cache_bytes != model.cost(128).cache_bytes
    far, at_once = (min(longest, CACHED), AT_ONCE) if growing else (longest, sequences)
    began = time.perf_counter()
    correct, undefined = stretch(model, loaded.of_seed(seed), far, sequences, at_once)
    seconds = (time.perf_counter() - began) / len(correct)
    return [
        {
            "arm": arm,
            "seed": seed,
            "length": length,
            "right": right,
            "sequences": sequences,
            "train_length": loaded.experiment.task.lag,
            "state_bytes": model.cost(length).state_bytes,
            "seconds": round(seconds, 3),
        }
        | ({"nan": undefined[length] / sequences} if undefined[length] else {})
        for length, right in correct.items()
    ]


def load_or_measure(
    arm: str, run: Path, longest: int, sequences: int, seeds: int, out: Path
) -> tuple[bool, list[Any]]:
    """The rows of an arm, and whether an earlier call with the same numbers had left any in `out`.

    Those of a seed are measured, and left there, if none had or if the run is another one by now.
    """
    of = hashlib.sha256((run / "results.json").read_bytes()).hexdigest()
    settings = {"longest": longest, "sequences": sequences, "run": of}
    loaded = load(run)
    resumed, all_rows = False, []
    for seed in loaded.experiment.seed_numbers[:seeds]:
        file = out / folder(arm) / f"seed-{seed}.json"
        if file.is_file():
            there = json.loads(file.read_text(encoding="utf-8"))
            if there["asked"] == settings:
                resumed, all_rows = True, all_rows + there["rows"]
                continue
        rows = rows_of(arm, loaded, seed, longest, sequences)
        with writing("the rows of a seed", file):
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, json.dumps({"asked": settings, "rows": rows}) + "\n")
        all_rows += rows
    return resumed, all_rows


def columns(results: dict[str, Any]) -> tuple[str, ...]:
    """Every third power of two, and the last."""
    return ("arm", *(f"{length:,}" for length in _shown_lengths(results)), "state at the longest")


def lines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for every arm: the median seed's accuracy with its 95% Wilson interval."""
    table = []
    for arm, rows in rows_by_arm(results).items():
        cells = []
        for length in _shown_lengths(results):
            there = [row for row in rows if row["length"] == length]
            if not there:
                cells.append("not run")
                continue
            right = statistics.median_low(row["right"] for row in there)
            low, high = wilson(right, there[0]["sequences"])
            share = f"{right / there[0]['sequences']:.2f} ({low:.2f}–{high:.2f})"
            cells.append(", ".join((share, *flaws(there, "right"))))
        last = max(rows, key=lambda row: row["length"])
        table.append((arm, *cells, f"{last['state_bytes']:,} B"))
    return table


def verdict(results: dict[str, Any]) -> str:
    """What stands under the table."""
    first = results["rows"][0]
    return (
        f"Accuracy of the median seed on {first['sequences']} strings of each length, with its 95% "
        "Wilson interval. The baseline is 0.50.\n"
        f"Every arm was trained to length {first['train_length']}.\n"
        f'"not run": no state that grows is run beyond {CACHED:,}, and no arm beyond the longest '
        "length that was asked for.\n"
        f"Cost: {results['meta']['core_hours']:.2f} core-hours."
    )


def _shown_lengths(results: dict[str, Any]) -> list[int]:
    lengths = sorted({row["length"] for row in results["rows"]})
    return [n for i, n in enumerate(lengths) if i % 3 == 0 or n == lengths[-1]]


def main(
    arms: tuple[str, ...] = (),
    longest: int = 2**17,
    sequences: int = 256,
    seeds: int = 5,
    runs: Path = Path("runs/attention-vs-recurrence-track"),
    out: Path = Path("runs/length-generalisation"),
) -> int:
    """Stretches what `attention_vs_recurrence track` trained.

    Args:
        arms: some of the arms; none means all.
        longest: the longest string, a power of two from 128 on.
        sequences: strings of each length.
        seeds: of each arm at most, the first ones; some arms were trained with ten.
        runs: the folder that `attention_vs_recurrence track` left.
        out: the folder to make.
    """
    began = time.perf_counter()
    if longest < SHORTEST or longest & (longest - 1):
        raise ValueError(f"--longest: expected a power of two from {SHORTEST} on, got {longest}")
    for option, number in (("sequences", sequences), ("seeds", seeds)):
        if number < 1:
            raise ValueError(f"--{option}: expected at least 1, got {number}")
    known = question("track", "cpu").arms
    for arm in arms:
        choose(arm, known, "arm")
    chosen: Sequence[str] = arms or tuple(known)
    for arm in chosen:
        if not (runs / folder(arm) / "results.json").is_file():
            raise ValueError(
                f"--runs: expected a finished run in {runs / folder(arm)}; first run "
                "`python -m experiments.memory.attention_vs_recurrence track`"
            )
    rows, resumed = [], False
    for arm in track(chosen, "stretching", console=console):
        before, measured = load_or_measure(arm, runs / folder(arm), longest, sequences, seeds, out)
        rows, resumed = rows + measured, resumed or before
    given = {"longest": longest, "sequences": sequences, "seeds": seeds, "runs": runs}
    usual = inspect.signature(main).parameters
    beyond = {f"--{o}": shlex.quote(str(v)) for o, v in given.items() if v != usual[o].default}
    command, _ = command_and_folder(
        "length_generalisation", {"--arms": shlex.join(arms)} | beyond, out
    )
    seconds = sum(row["seconds"] for row in rows)
    results = {
        "rows": rows,
        "threshold": 0.95,
        "meta": provenance(command, began)
        | {"core_hours": round(seconds / 3600, 3)}
        | ({"resumed": True} if resumed else {}),
    }
    title = "How far beyond the trained length does a tracked state go?"
    show(results, title, out, columns(results), lines(results), verdict(results))
    return 0


def figure(results: dict[str, Any]) -> Plot:
    """Accuracy against the length of the string."""
    keep = ("arm", "seed", "length", "train_length")
    rows = [
        {key: row[key] for key in keep}
        | {"lag": row["length"], "train_lag": row["train_length"]}
        | {"accuracy": row["right"] / row["sequences"]}
        for row in results["rows"]
    ]
    return Plot("lag", {"rows": rows}, {"quantity": "length of the string, in bits"})


_record = functools.partial(
    Recorded, order=110, columns=columns, lines=lines, verdict=verdict, note=HOW_TO_READ
)
RECORDED = (
    _record("length-generalisation", "How far beyond the trained length?", figure=figure),
    _record(
        "length-generalisation-million",
        "As far as a million bits?",
        page="length-generalisation",
    ),
)
# Another script trains its models.
SMOKE = False


if __name__ == "__main__":
    with plain_errors():
        tyro.cli(
            main, prog="python -m experiments.memory.length_generalisation", description=__doc__
        )
