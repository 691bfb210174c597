"""Count the bits that the next byte of a text costs, and what attention saves of them.

    python -m experiments.language --preset quick      (4 minutes on two cores)
    python -m experiments.language                     (full: 3 core-hours)
    python -m experiments.language --sample "hacker: n. " --arm "LSTM + attention"

The Jargon File byte by byte, split 90 / 5 / 5. Two arms of one skeleton: two blocks of an LSTM,
and the same with an attention over the last 256 bytes in place of the second. Both read the text
in order with the state carried from step to step (truncated backpropagation), and are tested on
every byte of the test part in order. Under their bits stand those of what is no network: the
frequencies of bytes, counts of 5-grams, xz. Where attention helps is asked apart: at bytes that
end an 8-gram which came before within its reach, and at the rest.

Leaves runs/language[-PRESET]: results.json, plots, and a run folder for each arm. Finished arms
are kept, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import lzma
import math
import statistics
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

from experiments.bootstrap import Interval, bootstrap
from experiments.questions import Question, by_arm, core_hours, measure, show, spread
from experiments.rates import folder
from longlag import LSTM
from longlag.command_line import console, plain_errors
from longlag.data import text as data
from longlag.disk import writing
from longlag.environment import provenance
from longlag.experiment import Architecture, Experiment
from longlag.models import SequenceModel
from longlag.report.sentences import size
from longlag.runs import load
from longlag.sampling import sample
from longlag.spec import choose
from longlag.tasks import NextByte
from longlag.training import Training

WINDOW = 256
ORDER = 8  # of the n-grams that count as come before
COUNTED = 5  # of the n-grams that are counted: the best of 1 to 8 on the validation part
WARM = 1024  # bytes that each row of the test has read before its first
ROWS, CHUNK = 16, 256
BINS = (64, 256, 1024, 4096)  # bytes since an 8-gram was last seen

Preset = Literal["smoke", "quick", "full"]
Found = dict[str, Any]


def question(preset: Preset) -> Question:
    """The arms."""
    quick = preset != "full"
    width = 128 if quick else 256
    training = Training(
        steps=600 if quick else 3000,
        batch_size=16 if quick else 32,
        learning_rate=3e-3,
        schedule="cosine",
        warmup=100,
        dispatch=50,
        eval_size=128,
        stop_when_solved=False,
        carry=True,
    )
    task = NextByte(length=128)
    layers: Mapping[str, Any] = {"width": width, "depth": 2, "dropout": 0.1}
    arms = {
        "LSTM": Architecture(**layers),
        "LSTM + attention": Architecture("window", window=WINDOW, **layers),
    }
    asked = Question(
        "How many bits does the next byte cost?",
        {
            arm: Experiment(task, LSTM(width), layers, training, 2 if quick else 3, (task.length,))
            for arm, layers in arms.items()
        },
        threshold=1.0,
    )
    return asked.smoke() if preset == "smoke" else asked


@functools.partial(jax.jit, static_argnums=0)
def _bits(model: SequenceModel, params: Any, read: jax.Array) -> jax.Array:
    """Bits of every byte of `[R, N + 1]` but the first, each row streamed: `[R, N]`."""
    rows, total = read.shape[0], read.shape[1] - 1
    cut = lambda x: jnp.swapaxes(x.reshape(rows, total // CHUNK, CHUNK), 0, 1)  # noqa: E731

    def chunk(state, inputs):
        tokens, following = inputs
        state, answers = model.apply(params, tokens, state)
        chances = jax.nn.log_softmax(answers.astype(jnp.float32))
        return state, -jnp.take_along_axis(chances, following[..., None], axis=-1)[..., 0]

    state = model.init_state(params, rows, total)
    _, nats = jax.lax.scan(chunk, state, (cut(read[:, :-1]), cut(read[:, 1:])))
    return jnp.swapaxes(nats, 0, 1).reshape(rows, total) / math.log(2)


def bits_of_test(model: SequenceModel, params: Any, text: data.Text) -> np.ndarray:
    """Bits of every byte of the test part, read in order after what stands before it.

    The part is cut into `ROWS` stretches that are read side by side; each begins `WARM` bytes
    early, and these do not count.

    Args:
        model: of bytes.
        params: of one seed.
        text: which.

    Returns:
        `[L]` float32.
    """
    test = text.test
    each = -(-len(test) // ROWS)
    steps = -(-(WARM + each) // CHUNK) * CHUNK
    before = np.concatenate([text.validation[-(WARM + 1) :], test, np.zeros(steps, np.uint8)])
    starts = np.arange(ROWS) * each
    read = np.stack([before[at : at + steps + 1] for at in starts]).astype(np.int32)
    bits = np.asarray(_bits(model, params, jnp.asarray(read)))
    return bits[:, WARM : WARM + each].reshape(-1)[: len(test)]


def rows_of(
    question: Question, text: data.Text, trained: list[Found], out: Path
) -> tuple[list[Found], Found]:
    """A row for every arm, seed and floor; and bits by how long ago the 8-gram was seen."""
    ago = data.repeats(np.concatenate([text.validation, text.test]), ORDER)[-len(text.test) :]
    again = (ago > 0) & (ago <= WINDOW)

    def measured(bits: np.ndarray) -> Found:
        parts = {"bits": bits, "bits_again": bits[again], "bits_rest": bits[~again]}
        return {name: round(float(part.mean()), 4) for name, part in parts.items()}

    rows: list[Found] = []
    apart: Found = {}
    every: dict[str, list[np.ndarray]] = {}
    kept = ("arm", "seed", "lag", "train_lag", "steps", "parameters", "state_bytes", "seconds")
    loaded_of = functools.cache(lambda arm: load(out / folder(arm)))
    for row in track(trained, "reading the test part", console=console):
        loaded, job = loaded_of(row["arm"]), question.arms[row["arm"]]
        bits = bits_of_test(loaded.model, loaded.of_seed(row["seed"]), text)
        seen = row["steps"] * job.training.batch_size * job.task.time_steps
        rows.append({key: row[key] for key in kept} | measured(bits) | {"bytes_seen": seen})
        apart.setdefault(row["arm"], []).append(_by_distance(bits, ago))
        every.setdefault(row["arm"], []).append(bits)
    floors = {
        "the frequencies of bytes": data.witten_bell(text.train, text.test, 1),
        f"counts of {COUNTED}-grams (Witten-Bell)": data.witten_bell(
            text.train, text.test, COUNTED
        ),
    }
    rows += [
        {"arm": f"floor: {name}", "seed": None} | measured(bits) for name, bits in floors.items()
    ]
    apart[f"{COUNTED}-grams"] = [_by_distance([*floors.values()][-1], ago)]
    rows.append({"arm": "floor: xz after the training part", "seed": None, "bits": _xz(text)})
    saved = np.mean(every["LSTM"], 0) - np.mean(every["LSTM + attention"], 0)
    return rows, {
        "apart": apart,
        "saved": {"again": _interval(saved, again), "rest": _interval(saved, ~again)},
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


def _by_distance(bits: np.ndarray, ago: np.ndarray) -> list[float]:
    """Mean bits where the 8-gram was seen within each of `BINS`, and where it was not."""
    bins = np.digitize(ago, (1, *(b + 1 for b in BINS)))  # 0: never; the last: longer ago
    order = (*range(1, len(BINS) + 1), 0)
    return [round(float(bits[bins == b].mean()), 4) if (bins == b).any() else 0.0 for b in order]


def _xz(text: data.Text) -> float:
    """Bits per byte that the test part adds to the archive of the training part."""
    whole, train = (
        len(lzma.compress(part.tobytes(), preset=9 | lzma.PRESET_EXTREME))
        for part in (np.concatenate([text.train, text.test]), text.train)
    )
    return round(8 * (whole - train) / len(text.test), 4)


COLUMNS = ("arm", "bits per byte", "seen again", "the rest", "params", "state", "read", "time")


def lines(results: Found) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets."""
    found = []
    for arm, rows in by_arm(results).items():
        cost = ("", "", "", "")
        if rows[0]["seed"] is not None:
            cost = (
                f"{rows[0]['parameters']:,}",
                size(rows[0]["state_bytes"]),
                f"{rows[0]['bytes_seen'] / 1e6:.1f} MB",
                f"{statistics.median(row['seconds'] for row in rows):.0f} s",
            )
        bits = (spread(rows, name, 3) for name in ("bits", "bits_again", "bits_rest"))
        found.append((arm, *bits, *cost))
    return found


def verdict(results: Found) -> str:
    """What stands under the table."""
    shares = results["shares"]
    said = [
        f"Every one of the {shares['bytes']:,} bytes of the test part, read in order. "
        f'"seen again": the {100 * shares["again"]:.1f}% that end an {ORDER}-gram which came '
        f"before within {WINDOW} bytes."
    ]
    for name, where in (("again", "there"), ("rest", "on the rest")):
        middle, low, high = results["saved"][name]
        word = "saves" if low > 0 else "costs" if high < 0 else "makes no clear difference"
        of = f"{abs(middle):.3f} bits {where}" if low * high > 0 else f"{where}: {middle:.3f} saved"
        said.append(f"Attention {word} {of} (95% interval {low:.3f} to {high:.3f}).")
    return " ".join(
        [
            *said,
            "The interval is over stretches of the test text, for the mean of the seeds.",
            f"{results['meta']['core_hours']:.2f} core-hours.",
        ]
    )


def picture(apart: Mapping[str, list[list[float]]]) -> Any:
    """Bits of the next byte by how long ago the 8-gram that it ends was last seen."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    names = [*(f"{a + 1:,}–{b:,}" for a, b in zip((0, *BINS), BINS)), "never"]
    for (arm, seeds), colour in zip(apart.items(), ("#0072B2", "#D55E00", "#777777")):
        middle, low, high = np.median(seeds, 0), np.min(seeds, 0), np.max(seeds, 0)
        spread = (middle - low, high - middle)
        axes.errorbar(range(len(names)), middle, spread, color=colour, marker="o", label=arm)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(f"bytes since the {ORDER}-gram was last seen")
    axes.set_ylabel("bits of its last byte")
    axes.set_ylim(bottom=0)
    axes.axvline(1.5, color="#BBBBBB", linestyle=":")
    axes.text(1.45, axes.get_ylim()[1], "attention's reach ", ha="right", va="top", fontsize=8)
    axes.legend(frameon=False)
    return figure


@dataclasses.dataclass(frozen=True)
class Options:
    """How the question is put.

    Attributes:
        preset: quick (two seeds, narrow), full (three seeds), or smoke: a few steps.
        sample: do not train; continue this prompt by what was trained.
        arm: which arm continues it.
        bytes: how many bytes it draws.
        temperature: of the draws; 0 takes the likeliest byte.
        out: where the folder language[-PRESET] is made.
        workers: processes, each pinned to one core; 0 means one per core.
    """

    preset: Preset = "full"
    sample: str | None = None
    arm: str = "LSTM + attention"
    bytes: int = 400
    temperature: float = 0.7
    out: Path = Path("runs")
    workers: int = 0


def main(options: Options) -> int:
    """Trains and tests, or continues a prompt."""
    beyond = "" if options.preset == "full" else f"-{options.preset}"
    out = options.out / f"language{beyond}"
    if options.sample is not None:
        return _continue(options, out)
    began = time.perf_counter()
    text = data.load()
    asked = question(options.preset)
    arms, trained, _ = measure(asked, out, options.workers)
    trained = [row for row in trained if row["accuracy"] is not None]
    rows, more = rows_of(dataclasses.replace(asked, arms=arms), text, trained, out)
    command = "python -m experiments.language"
    command += f" --preset {options.preset}" if beyond else ""
    results = {
        "rows": rows,
        **more,
        "meta": provenance(command, began) | {"core_hours": core_hours(trained)},
    }
    path = out / "plots" / "distance.png"
    with writing("the picture", path):
        path.parent.mkdir(exist_ok=True)
        figure = picture(more["apart"])
        figure.savefig(path, dpi=150)
    plt.close(figure)
    show(results, asked.title, out, COLUMNS, lines(results), verdict(results))
    console.print(f"picture {path}", highlight=False, soft_wrap=True)
    return 0


def _continue(options: Options, out: Path) -> int:
    """Prints what a trained model makes of a prompt."""
    choose(options.arm, question(options.preset).arms, "arm")
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
    said = sample(loaded.model, loaded.of_seed(), read, options.bytes, key, options.temperature)
    written = bytes(np.asarray(said[0]).astype(np.uint8)).decode(errors="replace")
    console.print(f"[b]{options.sample}[/b]", end="", highlight=False)
    console.print(written, markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    with plain_errors():
        sys.exit(
            main(tyro.cli(Options, prog="python -m experiments.language", description=__doc__))
        )
