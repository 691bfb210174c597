"""Count the bits that the next byte of a text costs, and what attention saves of them.

    python -m experiments.real_data.language --preset quick      (4 minutes on two cores)
    python -m experiments.real_data.language                     (full: 3.4 core-hours)
    python -m experiments.real_data.language --text enwik8       (an hour on two cores)
    python -m experiments.real_data.language --sample "hacker: n. " --arm "LSTM + attention"

A text byte by byte, split 90 / 5 / 5: the Jargon File, or enwik8, of which an hour reads a fourth.
Two arms of one skeleton: two blocks of an LSTM, and the same with an attention over the last 256
bytes in place of the second. Both read the text in order with the state carried from step to step
(truncated backpropagation), and are tested on every byte of the test part in order. Under their
bits stand those of what is no network: the frequencies of bytes, counts of n-grams, xz; and of
enwik8 what was published, by a budget some thousand times as large. Where attention helps is asked
apart: at bytes that end an 8-gram which came before within its reach, and at the rest.

Leaves runs/language[-enwik8][-PRESET]: results.json, plots, and a run folder for each arm.
Finished arms are kept, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import lzma
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from rich.progress import track

from experiments.harness.bootstrap import Interval, bootstrap
from experiments.harness.questions import Question, command_and_folder, meta, run_arms, show
from experiments.harness.rates import folder
from experiments.harness.recorded import Recorded
from experiments.harness.tables import Results, Row, rows_by_arm, spread, time_of
from experiments.real_data.language_figures import (
    ORDER,
    bits_by_distance,
    distance_figure,
    figure_text,
    mean_of,
)
from longlag import LSTM
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.core.spec import choose
from longlag.data import text as data
from longlag.models import NO_CLASS, SequenceModel, sample
from longlag.report.statements import format_bytes
from longlag.runs import Architecture, Experiment, load
from longlag.system.atomic_files import writing
from longlag.system.console import console
from longlag.tasks import NextByte
from longlag.training import Training

WINDOW = 256
# Of the n-grams that are counted: the best of 1 to 8 on the validation part.
COUNTED = {"jargon": 5, "enwik8": 7}
WARM = 1024  # bytes that each row of the test has read before its first
CHUNK = 256

# Of the README of github.com/Smerity/sha-rnn, for the same test part.
PUBLISHED = {
    "mLSTM, Krause et al. 2016": (1.24, 46_000_000),
    "AWD-LSTM, Merity et al. 2018": (1.23, 44_000_000),
    "LSTM + attention (SHA-LSTM), Merity 2019": (1.07, 63_000_000),
    "Transformer-XL of 12 layers, Dai et al. 2019": (1.06, 41_000_000),
}

Preset = Literal["smoke", "quick", "full"]
Source = Literal["jargon", "enwik8"]


def question(preset: Preset, text: Source = "jargon") -> Question:
    """The arms."""
    quick = preset != "full"
    width = 128 if quick else 256
    hour = text == "enwik8" and not quick
    training = Training(
        steps=600 if quick else 6000 if hour else 3000,
        batch_size=16 if quick else 32,
        learning_rate=3e-3,
        schedule="cosine",
        warmup=100,
        dispatch=50,
        eval_size=128,
        stop_when_solved=False,
        carry=True,
    )
    task = NextByte(text, length=128)
    seeds = 2 if quick else 1 if hour else 3
    layers: Mapping[str, Any] = {"width": width, "depth": 2, "dropout": 0.1}
    arms = {
        "LSTM": Architecture(**layers),
        "LSTM + attention": Architecture("window", window=WINDOW, **layers),
    }
    comparison = Question(
        "How many bits does the next byte cost?",
        {
            arm: Experiment(task, LSTM(width), layers, training, seeds, (task.length,))
            for arm, layers in arms.items()
        },
        threshold=1.0,
    )
    return comparison.smoke() if preset == "smoke" else comparison


@functools.partial(jax.jit, static_argnums=0)
def _bits(model: SequenceModel, params: Any, read: jax.Array) -> jax.Array:
    """Bits of every byte of `[R, N + 1]` but the first, each row streamed: `[R, N]`."""
    rows, total = read.shape[0], read.shape[1] - 1
    cut = lambda x: jnp.swapaxes(x.reshape(rows, total // CHUNK, CHUNK), 0, 1)  # noqa: E731

    # Bytes and the ones that follow them, each `[R, CHUNK]`, to their nats.
    def chunk(state: Any, inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        tokens, following = inputs
        state, answers = model.apply(params, tokens, state)
        chances = jax.nn.log_softmax(answers.astype(jnp.float32))
        return state, -jnp.take_along_axis(chances, following[..., None], axis=-1)[..., 0]

    state = model.init_state(params, rows, total)
    _, nats = jax.lax.scan(chunk, state, (cut(read[:, :-1]), cut(read[:, 1:])))
    return jnp.swapaxes(nats, 0, 1).reshape(rows, total) / math.log(2)


def bits_of_test(model: SequenceModel, params: Any, text: data.Text) -> np.ndarray:
    """Bits of every byte of the test part, read in order after what stands before it.

    The part is cut into stretches, 16 to 128, that are read side by side; each begins `WARM` bytes
    early, and these do not count.

    Args:
        model: of bytes.
        params: of one seed.
        text: which.

    Returns:
        `[L]` float32.
    """
    test = text.test
    rows = min(max(16, len(test) // 2**15), 128)
    stretch = -(-len(test) // rows)
    steps = -(-(WARM + stretch) // CHUNK) * CHUNK
    before = np.concatenate([text.validation[-(WARM + 1) :], test, np.zeros(steps, np.uint8)])
    starts = np.arange(rows) * stretch
    read = np.stack([before[at : at + steps + 1] for at in starts]).astype(np.int32)
    bits = np.asarray(_bits(model, params, jnp.asarray(read)))
    return bits[:, WARM : WARM + stretch].reshape(-1)[: len(test)]


def rows_of(
    question: Question, source: Source, trained: list[Row], out: Path
) -> tuple[list[Row], Results]:
    """A row for every arm, seed and floor; and bits by how long ago the 8-gram was seen."""
    text, counted = data.load(source), COUNTED[source]
    ago = data.repeats(np.concatenate([text.validation, text.test]), ORDER)[-len(text.test) :]
    again = (ago > 0) & (ago <= WINDOW)

    def mean_bits(bits: np.ndarray) -> Row:
        parts = {"bits": bits, "bits_again": bits[again], "bits_rest": bits[~again]}
        nan = float(np.isnan(bits).mean())
        return {name: mean_of(part) for name, part in parts.items()} | ({"nan": nan} if nan else {})

    rows: list[Row] = []
    apart: Results = {}
    every: dict[str, list[np.ndarray]] = {}
    kept = ("arm", "seed", "lag", "train_lag", "steps", "parameters", "state_bytes", "seconds")
    loaded_of = functools.cache(lambda arm: load(out / folder(arm)))
    for row in track(trained, "reading the test part", console=console):
        loaded, job = loaded_of(row["arm"]), question.arms[row["arm"]]
        bits = bits_of_test(loaded.model, loaded.of_seed(row["seed"]), text)
        seen = row["steps"] * job.training.batch_size * job.task.time_steps
        rows.append({key: row[key] for key in kept} | mean_bits(bits) | {"bytes_seen": seen})
        apart.setdefault(row["arm"], []).append(bits_by_distance(bits, ago))
        if not np.isnan(bits).any():
            every.setdefault(row["arm"], []).append(bits)
    floors = {
        "the frequencies of bytes": data.witten_bell(text.train, text.test, 1),
        f"counts of {counted}-grams (Witten-Bell)": data.witten_bell(
            text.train, text.test, counted
        ),
    }
    rows += [
        {"arm": f"floor: {name}", "seed": None} | mean_bits(bits) for name, bits in floors.items()
    ]
    apart[f"{counted}-grams"] = [bits_by_distance([*floors.values()][-1], ago)]
    rows.append({"arm": "floor: xz after the training part", "seed": None, "bits": _xz(text)})
    if source == "enwik8":
        rows += [
            {"arm": f"not comparable in budget: {who}", "seed": None, "bits": bits}
            | {"parameters": parameters}
            for who, (bits, parameters) in PUBLISHED.items()
        ]
    saved = {}
    if len(every) == 2:  # else an arm diverged or answered NaN in every seed
        fewer = np.mean(every["LSTM"], 0) - np.mean(every["LSTM + attention"], 0)
        saved = {"again": _interval(fewer, again), "rest": _interval(fewer, ~again)}
    return rows, {
        "apart": apart,
        "saved": saved,
        "shares": {"again": float(again.mean()), "bytes": len(text.test)},
    }


def _interval(saved: np.ndarray, counted: np.ndarray) -> Interval:
    """The mean of `saved` where it counts, and its 95% interval, by a bootstrap over stretches.

    Neighbouring bytes are not independent; stretches of `WARM` bytes nearly are.
    """
    cuts = range(0, len(saved), WARM)
    sums = np.add.reduceat(np.where(counted, saved, 0), cuts)
    counts = np.add.reduceat(counted.astype(int), cuts)
    return bootstrap(lambda w: w @ sums / np.maximum(w @ counts, 1), len(sums))


def _xz(text: data.Text) -> float:
    """Bits per byte that the test part adds to the archive of the training part."""
    whole, train = (
        len(lzma.compress(part.tobytes(), preset=9 | lzma.PRESET_EXTREME))
        for part in (np.concatenate([text.train, text.test]), text.train)
    )
    return round(8 * (whole - train) / len(text.test), 4)


COLUMNS = ("arm", "bits per byte", "seen again", "the rest", "params", "state", "read", "time")


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets."""
    table = []
    for arm, rows in rows_by_arm(results).items():
        cost = ("", "", "")
        if rows[0]["seed"] is not None:
            cost = (
                format_bytes(rows[0]["state_bytes"]),
                f"{rows[0]['bytes_seen'] / 1e6:.1f} MB",
                time_of(rows),
            )
        bits = (spread(rows, name, 3) for name in ("bits", "bits_again", "bits_rest"))
        parameters = f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else ""
        table.append((arm, *bits, parameters, *cost))
    return table


def verdict(results: Results) -> str:
    """What stands under the table."""
    shares, hours = results["shares"], f"Cost: {results['meta']['core_hours']:.2f} core-hours."
    sentences = [
        f"All {shares['bytes']:,} bytes of the test part are read in order.",
        f'"seen again": the {100 * shares["again"]:.1f}% that end an {ORDER}-gram which came '
        f"before within {WINDOW} bytes.",
    ]
    for name, where in (("again", "there"), ("rest", "on the rest")):
        if name not in results["saved"]:
            nothing = "An arm diverged in every seed, or answered NaN. Nothing is compared."
            return "\n".join([*sentences, nothing, hours])
        middle, low, high = results["saved"][name]
        word = "saves" if low > 0 else "costs" if high < 0 else "makes no clear difference"
        of = f"{abs(middle):.3f} bits {where}" if low * high > 0 else f"{where}: {middle:.3f} saved"
        low, high = (-high, -low) if word == "costs" else (low, high)
        sentences.append(f"Attention {word} {of} (95% interval {low:.3f} to {high:.3f}).")
    seeds = max(len(rows) for rows in rows_by_arm(results).values())
    of = "the mean of the seeds" if seeds > 1 else "this one seed. It says nothing of other seeds"
    intervals = f"The interval is over stretches of the test text, for {of}."
    return "\n".join([*sentences, intervals, hours])


@dataclasses.dataclass(frozen=True)
class Options:
    """How the question is put.

    Attributes:
        preset: quick (two seeds, narrow), full (three seeds; of enwik8 one, for an hour), or smoke:
            a few steps.
        text: the Jargon File (1.7 MB), or enwik8 (100 MB, of Wikipedia).
        sample: do not train; continue this prompt by what was trained.
        arm: which arm continues it.
        bytes: how many bytes it draws.
        temperature: of the draws; 0 takes the likeliest byte.
        out: where the folder language[-enwik8][-PRESET] is made.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """

    preset: Preset = "full"
    text: Source = "jargon"
    sample: str | None = None
    arm: str = "LSTM + attention"
    bytes: int = 400
    temperature: float = 0.7
    out: Path = Path("runs")
    workers: WorkersOption = 0


def main(options: Options) -> int:
    """Trains and tests, or continues a prompt."""
    chosen = {
        "--text": "" if options.text == "jargon" else options.text,
        "--preset": "" if options.preset == "full" else options.preset,
    }
    command, out = command_and_folder("language", chosen, options.out)
    if options.sample is not None:
        return _continue(options, out)
    began = time.perf_counter()
    comparison = question(options.preset, options.text)
    arms, trained, _ = run_arms(comparison, out, options.workers)
    trained = [row for row in trained if row["accuracy"] is not None]
    rows, more = rows_of(dataclasses.replace(comparison, arms=arms), options.text, trained, out)
    results = {
        "rows": rows,
        **more,
        "meta": meta(command, began, out, trained),
    }
    path = out / "plots" / "distance.png"
    with writing("the picture", path):
        path.parent.mkdir(exist_ok=True)
        figure = distance_figure(more["apart"])
        figure.savefig(path, dpi=150)
    plt.close(figure)
    show(results, comparison.title, out, COLUMNS, lines(results), verdict(results))
    console.print(f"picture {path}", highlight=False, soft_wrap=True)
    return 0


def _continue(options: Options, out: Path) -> int:
    """Prints what a trained model makes of a prompt."""
    choose(options.arm, question(options.preset, options.text).arms, "arm")
    prompt = (options.sample or "").encode()
    if not prompt:
        raise ValueError("--sample: expected at least one byte, got nothing")
    run = out / folder(options.arm)
    if not (run / "results.json").is_file():
        raise ValueError(
            f"--sample: expected a finished run in {run}; first run the same command without it"
        )
    loaded = load(run)
    read = jnp.frombuffer(prompt, jnp.uint8).astype(jnp.int32)[None]
    key = jax.random.key(time.time_ns() % 2**32)
    drawn = sample(loaded.model, loaded.of_seed(), read, options.bytes, key, options.temperature)
    if (drawn == NO_CLASS).any():
        raise ValueError(f"--sample: expected a model with finite answers; that of {run} has NaN")
    written = bytes(np.asarray(drawn[0]).astype(np.uint8)).decode(errors="replace")
    console.out(options.sample, style="bold", end="", highlight=False)
    console.out(written, highlight=False)
    return 0


def _record(name: str, title: str, sentence: str, page: str = "") -> Recorded:
    shown: dict[str, Any] = {"columns": COLUMNS, "lines": lines, "verdict": verdict}
    pictures = {"distance": figure_text(sentence)}
    return Recorded(name, title, 140, **shown, pictures=pictures, page=page)


RECORDED = (
    _record(
        "language",
        "How many bits does the next byte cost?",
        "The recurrence alone is ahead within the attention's reach, too, where it could copy.",
    ),
    _record(
        "language-quick",
        "How many bits does the next byte cost, after a few minutes?",
        "Within the attention's reach it could be copied. After so little reading it is not.",
        page="language",
    ),
    _record(
        "language-enwik8",
        "How many bits does the next byte of Wikipedia cost, after an hour?",
        "Within its reach attention needs a half to two thirds of the bits. Beyond it, nearly all.",
    ),
)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(
            main(
                tyro.cli(
                    Options, prog="python -m experiments.real_data.language", description=__doc__
                )
            )
        )
