"""From trained arms to the table: what is said, how it is scored, and a text of one's own."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import questions
from experiments.harness.questions import Question
from experiments.harness.record import LEFT_OUT
from experiments.real_data import translation
from experiments.real_data.sentence_scores import (
    compare_arms,
    corpus_scores,
    decode_texts,
    interval,
    require_defined,
    score_texts,
    search_targets,
)
from experiments.real_data.translation import COLUMNS, Options, length_table, lines, main, verdict
from experiments.real_data.translation_figures import alignments, draw_png
from experiments.real_data.translation_scores import floors, quality_by_length
from longlag import GRU
from longlag.cli.arguments import plain_errors
from longlag.data.coders import STOP
from longlag.runs import EncoderDecoder, Experiment, load, run_job
from longlag.tasks import Dates
from longlag.training import Training

TASK = Dates(count=100)
TRAINING = Training(steps=2, dispatch=1, batch_size=4, eval_size=4, stop_when_solved=False)


def tiny() -> Question:
    """One arm of two seeds, two steps each."""
    layers = EncoderDecoder(attention="additive", width=6)
    job = Experiment(TASK, GRU(6), layers, TRAINING, 2)
    return Question("Is it there?", {job.arm: job}, 0.95)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by the command line, the sweep in this process."""
    out = tmp_path_factory.mktemp("runs")

    def sweep(jobs: dict[str, Experiment], folder: Path, *_: object):
        return {name: run_job(name, job, folder) for name, job in jobs.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "sweep", sweep)
        patch.setattr(translation, "dates", tiny)
        assert main(["--out", str(out)]) == 0
    return out


def test_the_run_leaves_table_lengths_and_pictures(runs: Path):
    results = json.loads((runs / "translation" / "results.json").read_text())
    table = {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines(results)}
    learned = ["GRU + additive"]
    assert [*table] == [
        *(*learned, "floor: copy of the source", "floor: nearest source of training"),
    ]
    for arm, line in table.items():
        assert bool(line["params"]) == (arm in learned) and line["chrF"] and line["exact, %"]
    assert table["floor: copy of the source"]["exact, %"] == "0.0"
    assert results["differences"] == [], "one arm is nothing to compare"
    assert f"the {results['pairs']['test']} sources of the test" in verdict(results)
    columns, text, _ = length_table(results)
    assert columns[0] == "exact by characters of the source" and len(text) == 3
    counted = sum(r["sources"] for r in results["by_length"] if r["arm"] == "GRU + additive")
    assert counted == results["pairs"]["test"] == len(TASK.pairs.rows["test"])
    for name in ("by-length", "alignment"):
        picture = (runs / "translation" / "plots" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 5000
    assert not {*results} & {*LEFT_OUT}, "record keeps all of it"


def test_a_text_of_ones_own_is_said_by_the_newest_run(runs: Path, capsys):
    assert main(["--translate", " 5 March  2024 ", "--out", str(runs)]) == 0
    said = capsys.readouterr().out
    assert "GRU + additive: " in said
    assert (runs / "translation" / "plots" / "translate.png").is_file()


def test_a_seed_that_diverged_is_said_to(runs: Path):
    out = runs / "translation"
    rows = json.loads((out / "results.json").read_text())["rows"]
    rows = [row for row in rows if row["seed"] is not None]
    for row in rows:
        if row["seed"] == 1:
            row |= {"accuracy": None, "loss": None}
    found = translation.score_arms(tiny().arms, rows, out, 1)
    assert [row["chrf"] is None for row in found["rows"]] == [False, True, False, False]
    assert "(" not in lines(found)[0][1]
    assert lines({"rows": found["rows"][1:]})[0][1:5] == ("diverged",) * 4


def test_the_verdict_says_how_far_arms_are_apart():
    rows = [{"arm": "a", "seed": 0}]
    apart = {"arm": "b", "than": "a", "mean": 3.04, "low": 1.0, "high": 5.0}
    results = {"rows": rows, "quality": "chrF", "pairs": {"train": 1000, "test": 12}}
    results |= {"differences": [apart], "meta": {"core_hours": 1.5}}
    assert "b − a: +3.0 (+1.0 to +5.0), significant." in verdict(results)
    apart["low"] = -0.1
    said = verdict(results)
    assert "b − a: +3.0 (-0.1 to +5.0), not significant." in said
    assert "the 12 sources of the test" in said and "1,000 pairs.\nCost: 1.50 core-hours" in said


def test_what_is_said_is_the_likeliest_word_after_word(runs: Path):
    loaded = load(runs / "translation" / "gru-additive")
    with pytest.raises(ValueError, match=r"got a Seq2Seq; longlag\.generate"):
        loaded.predict(TASK.pairs.inputs[:1])
    params = loaded.of_seed(1)
    rng = np.random.default_rng(0)
    params["head"]["kernel"] = jnp.asarray(rng.normal(size=params["head"]["kernel"].shape) * 3)
    pairs = TASK.pairs
    inputs, mask = pairs.inputs[:67], pairs.mask[:67]  # more than are searched for at once
    said = search_targets(loaded.model, params, inputs, mask, TASK.length, 1)
    assert said.shape == (67, TASK.length)
    apply = jax.jit(functools.partial(loaded.model.apply, params, inputs, mask=mask))
    expected = np.zeros((67, TASK.length), np.int32)
    for step in range(TASK.length):
        expected[:, step] = np.asarray(apply(jnp.asarray(expected)))[:, step].argmax(-1)
    ended = np.cumsum(expected == STOP, axis=1) - (expected == STOP) > 0
    np.testing.assert_array_equal(said, np.where(ended, STOP, expected))
    assert ended.any() and not ended.all()
    texts = decode_texts(said, pairs)
    assert texts[0] == pairs.writer.decode([n for n in said[0].tolist() if n != STOP])
    # A model that answers NaN says nothing, which is counted.
    assert corpus_scores(score_texts(texts, texts), said).keys() == {"chrf", "bleu", "exact"}
    params["head"]["kernel"] = params["head"]["kernel"].at[0, 0].set(jnp.nan)
    said = search_targets(loaded.model, params, inputs, mask, TASK.length, 1)
    assert decode_texts(said, pairs) == [""] * 67
    found = corpus_scores(score_texts(decode_texts(said, pairs), pairs.targets[:67]), said)
    assert (found["nan"], found["exact"]) == (1, 0)
    with pytest.raises(ValueError, match="that of here answers NaN"):
        require_defined(said, Path("here"))


def test_scores_of_what_is_right_and_what_is_not():
    judged = score_texts(
        ["the cat sat here", "a dog ran there"], ["the cat sat here", "quite other words"]
    )
    assert [*judged.exact] == [100.0, 0.0] and judged.chrf[0] == 100 and judged.chrf[1] < 30
    assert 0 < judged.corpus_bleu < judged.corpus_chrf < 100
    whole = score_texts(["the cat sat here"], ["the cat sat here"])
    assert whole.corpus_bleu == pytest.approx(100) and whole.corpus_chrf == pytest.approx(100)
    assert judged.quality("exact") is judged.exact and judged.quality("chrF") is judged.chrf


def test_intervals_are_those_of_the_mean_over_sentences():
    rng = np.random.default_rng(0)
    values = rng.normal(10, 4, 400)
    mean, low, high = interval(values)
    assert mean == pytest.approx(values.mean(), abs=0.01)
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(mean - error, abs=0.1) and high == pytest.approx(
        mean + error, abs=0.1
    )
    (apart,) = compare_arms({"a": values, "b": values + 2})
    assert (apart["arm"], apart["mean"], apart["low"], apart["high"]) == ("b", 2.0, 2.0, 2.0)


def test_lengths_are_parted_evenly_and_each_source_counts_once():
    lengths = np.repeat([3, 4, 5, 6, 7, 8, 9, 10, 11, 15], 10)
    rows = quality_by_length({"a": lengths * 2.0, "b": lengths * 0.0}, lengths)
    of_arm = [row for row in rows if row["arm"] == "a"]
    assert sum(row["sources"] for row in of_arm) == 100 and len(rows) == 2 * len(of_arm)
    assert of_arm[0]["from"] == 3 and of_arm[-1]["to"] == 15
    for row in of_arm:
        inside = lengths[(lengths >= row["from"]) & (lengths <= row["to"])]
        assert row["sources"] == len(inside) and row["mean"] == pytest.approx(
            2 * inside.mean(), abs=0.01
        )


def test_the_nearest_source_is_the_one_that_looks_alike():
    pairs = dataclasses.replace(
        TASK.pairs,
        sources=("Save the image", "Open a folder", "Open the folders", "Save images"),
        targets=("A", "B", "C", "D"),
        rows={"train": np.array([0, 1]), "test": np.array([2, 3])},
    )
    found = floors(pairs, "test")
    assert found["copy of the source"] == ["Open the folders", "Save images"]
    assert found["nearest source of training"] == ["B", "A"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--translate", "1 May 2000"], "expected a finished run"),
        (["--split", "package"], "--preset full"),
        (["--arms", "GRU + aditive"], "Did you mean 'GRU + additive'"),
    ],
)
def test_bad_input(argv: list[str], message: str, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as error, plain_errors():
        main([*argv, "--out", str(tmp_path)])
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"), [("5 March 2024" * 9, "a text of at most"), ("  ", "expected a text")]
)
def test_a_text_that_cannot_be_read(text: str, message: str, runs: Path, capsys):
    with pytest.raises(SystemExit) as error, plain_errors():
        main(["--translate", text, "--out", str(runs)])
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sacrebleu.metrics.bleu", "sklearn.feature_extraction.text"])
def test_a_missing_package(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"longlag\[data\]"):
        score_texts(["a"], ["a"])
        floors(TASK.pairs, "test")


def test_every_arm_is_possible():
    for options in (Options(), Options(preset="full")):
        asked = options.question
        assert [*asked.arms] == ["GRU", "GRU + additive", "GRU + multiplicative"]
        for job in asked.arms.values():
            assert not job.training.stop_when_solved
            params: Any = jax.eval_shape(job.model.init, jax.random.key(0))
            assert params["head"]["kernel"].shape[1] == job.task.out_features


def test_a_character_without_a_glyph_is_drawn_all_the_same():
    figure = alignments({"a": (np.eye(2), ["年", "a"], ["月", "b"])})
    assert draw_png(figure).startswith(b"\x89PNG")


def test_each_command_has_a_folder_of_its_own():
    german = Options(preset="full", language="de", split="package")
    full = "python -m experiments.real_data.translation --preset full"
    named = {
        o.command_and_folder[1].name: o.command_and_folder[0]
        for o in (Options(), Options(preset="full"), german)
    }
    assert named == {
        "translation": "python -m experiments.real_data.translation",
        "translation-full": full,
        "translation-full-de-package": f"{full} --language de --split package",
    }
