"""Intent recognition: balanced data from training templates only, a table, and questions."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import intents
from longlag.command_line import plain_errors
from longlag.data import intents as data
from longlag.data.intents import UNKNOWN
from longlag.interrupt import Interruption
from longlag.tasks import Intents

SMALL = ("--steps", "4", "--seeds", "2", "--width", "8")
TASK = Intents(word_dropout=0.25)


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(np.asarray, jax.jit(TASK.sample, static_argnums=1)(jax.random.key(0), 4096))


def test_intents_count_alike(batch):
    asked = batch.targets[batch.scored]
    counts = np.bincount(asked, minlength=TASK.out_features)
    expected = 4096 / np.count_nonzero(counts)
    assert np.count_nonzero(counts) == TASK.out_features
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_utterances_come_from_training_templates_and_are_asked_at_their_last_word(batch):
    corpus = TASK.corpus
    known = {
        (tuple(tokens), label)
        for tokens, label in zip(
            corpus.tokens[corpus.train].tolist(),
            corpus.utterances.labels[corpus.train].tolist(),
        )
    }
    words = batch.mask.sum(1)
    assert (batch.scored.argmax(1) == words - 1).all()
    assert (batch.scored.sum(1) == 1).all()
    whole = 0
    for row in np.flatnonzero(~(batch.inputs == UNKNOWN).any(1)):
        whole += 1
        assert (tuple(batch.inputs[row].tolist()), batch.targets[row].max()) in known
    assert whole > 100


def test_words_are_dropped_at_the_rate_asked_for(batch):
    assert (batch.inputs[batch.mask] == UNKNOWN).mean() == pytest.approx(0.25, abs=0.01)
    assert not batch.inputs[~batch.mask].any()


def test_validation_is_held_out_of_the_training_part():
    task, chosen = TASK.corpus, Intents(validation=True).corpus
    assert set(chosen.train) | set(chosen.held) <= set(task.train)
    assert not set(chosen.train) & set(chosen.held)
    templates = task.utterances.templates
    assert not set(templates[chosen.train]) & set(templates[chosen.held])


def test_a_run_is_tested_on_held_out_templates_with_every_word():
    corpus, tested = TASK.corpus, TASK.at_lag(TASK.lag).evaluated("test")
    batch = jax.device_get(jax.jit(tested.sample, static_argnums=1)(jax.random.key(0), 512))
    held = set(map(tuple, corpus.tokens[corpus.held].tolist()))
    assert set(map(tuple, batch.inputs.tolist())) <= held
    assert not held & set(map(tuple, corpus.tokens[corpus.train].tolist()))
    with pytest.raises(ValueError, match="the data's own"):
        TASK.at_lag(TASK.lag + 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "one"
    assert intents.main([*SMALL, "--out", str(path)]) == 0
    return path


def test_a_run_has_floors_arms_and_seeds(run: Path, capsys: pytest.CaptureFixture[str]):
    results = json.loads((run / "results.json").read_text())
    arms = [row["arm"] for row in results["rows"]]
    assert arms.count("LSTM") == arms.count("LSTM + additive") == 2
    assert {"floor: majority class", "floor: bag of words"} < set(arms)
    assert all(0 <= row["macro_f1"] <= 1 and 0 <= row["accuracy"] <= 1 for row in results["rows"])
    assert (run / "plots" / "confusion.png").stat().st_size > 1000
    said = intents.verdict(results)
    # Four steps do not teach it: the sentence must say so.
    assert "LSTM: 0 of 2 seeds above the bag of words" in said


def test_a_run_leaves_a_report_and_pictures(run: Path):
    report = (run / "report.md").read_text()
    assert "| floor: bag of words | " in report and '"what is the time" (of a held-out' in report
    assert {path.name for path in (run / "plots").iterdir()} >= {"confusion.png", "attention.png"}
    assert all(f"(plots/{name}.png)" in report for name in ("confusion", "attention"))


def timeless(run: Path) -> list[dict[str, object]]:
    rows = json.loads((run / "results.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, stop = tmp_path / "two", Interruption()

    @contextlib.contextmanager
    def stopped():
        stop.signal = signal.SIGINT
        yield stop

    with monkeypatch.context() as patch:
        patch.setattr(intents, "stop_requested", stopped)
        assert intents.main([*SMALL, "--out", str(path)]) == 130
    assert not (path / "results.json").exists()
    assert intents.newest(tmp_path) is None
    # The options come from the run; another value is refused.
    with pytest.raises(ValueError, match=r"options.width: expected 8; got 16"):
        intents.main(["--resume", str(path), "--width", "16"])
    assert intents.main(["--resume", str(path)]) == 0
    assert timeless(path) == timeless(run)


def test_a_question_is_answered_by_the_newest_run(run: Path, capsys: pytest.CaptureFixture[str]):
    other = run.parent / "other"  # newer, but a run of something else
    other.mkdir()
    (other / "config.json").write_text('{"task": {}}')
    (other / "results.json").write_text("{}")
    assert intents.main(["--runs", str(run.parent), "--ask", "What time is it, frobnicator?"]) == 0
    said = capsys.readouterr().out
    assert "never seen in training: frobnicator" in said
    assert "LSTM + additive, mean of 2 seeds" in said
    chances = [float(line.split()[0]) for line in said.splitlines() if "Hass" in line]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)
    words = said.partition("reads at the last word")[2]
    asked = ("what", "time", "is", "it", "frobnicator")
    bars = [line.split() for line in words.splitlines() if line.split()[:1]]
    weights = [float(bar[-1]) for bar in bars if bar[0] in asked]
    assert len(weights) == 5 and sum(weights) == pytest.approx(1, abs=0.03)
    assert (run / "plots" / "ask.png").stat().st_size > 1000


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.delattr("longlag.data.templates", raising=False)
    monkeypatch.setitem(sys.modules, "longlag.data.templates", None)
    with pytest.raises(SystemExit) as leave, plain_errors():
        data.load()
    assert leave.value.code == 2
    assert "longlag[data]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--ask", " ?! "), "expected a question in words"),
        (("--cell", "lstn"), "Did you mean 'lstm'"),
        (("--language", "xx"), "xx"),
        (("--resume", "no/where", "--out", "x"), "expected --resume or --out; got both"),
        (("--resume", "no/where"), "expected a run folder at no/where"),
    ],
)
def test_bad_input_is_one_message(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    expected: str,
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leave, plain_errors():
        intents.main(argv)
    assert leave.value.code == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
