"""Intent recognition: pooling over the folds, scores of counts, a whole run, and questions."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("home_assistant_intents", reason='pip install "longlag[data]"')
pytest.importorskip("sklearn", reason='pip install "longlag[data]"')

from sklearn.metrics import f1_score

from experiments.harness import questions
from experiments.harness.rates import folder as named
from experiments.real_data import intents, intents_ask, intents_pooled, intents_scores
from experiments.real_data.intents import (
    COLUMNS,
    Options,
    Preset,
    difference_table,
    lines,
    main,
    verdict,
)
from experiments.real_data.intents_figures import confusion, reading
from experiments.real_data.intents_scores import (
    MEASURES,
    accuracy,
    by_template,
    decide,
    differences,
    macro_f1,
    tally,
)
from longlag.cli.arguments import plain_errors
from longlag.data import intents as data
from longlag.runs import Experiment, load, run_job
from longlag.runs import jobs as jobs_module
from longlag.tasks import Intents

ARMS = ("LSTM", "LSTM + additive", "LSTM, words shuffled", "LSTM + additive, words shuffled")
# Of each kind one, in the run: what they share with the others is tested apart.
RAN = ARMS[1:3]
FLOORS = ("majority class", "bag of words", "bag of words and bigrams")


ARGV = ("--language", "af", "--arms", *RAN)


def here(jobs: dict[str, Experiment], folder: Path, *_: object):
    return {name: run_job(name, job, folder) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def small():
    """Presets of a few steps, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(intents.PRESETS, "quick", Preset(4, 2, 1))
        patch.setitem(intents.PRESETS, "full", Preset(4, 2, 5))
        patch.setattr(intents, "WIDTH", 4)
        patch.setattr(questions, "sweep", here)
        yield


@pytest.fixture(scope="module")
def run(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert main([*ARGV, "--out", str(out)]) == 0
    return out / "intents-af"


def found_in(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def test_a_run_has_arms_floors_and_seeds_each_tested_on_the_held_out_fold(run: Path):
    results = found_in(run)
    seeds = [(row["arm"], row["seed"]) for row in results["rows"]]
    assert seeds == [(arm, seed) for arm in RAN for seed in range(2)] + [
        (f"floor: {floor}", None) for floor in FLOORS
    ]
    # By another way: the model itself on the fold, and the scores of predictions.
    for arm, folder in zip(RAN, ("lstm-additive", "lstm-words-shuffled")):
        loaded = load(run / f"{folder}-fold-0")
        corpus, task = loaded.experiment.task.corpus, loaded.experiment.task
        assert (task.fold, task.folds, task.shuffled) == (0, 5, "shuffled" in arm)
        held = corpus.parts.held
        tokens, mask = corpus.tokens[held], corpus.mask[held]
        if task.shuffled:
            tokens, _ = Intents("af", shuffled=True, part="held").full_utterances()
        nothing, apply = np.zeros((len(held), 1), np.int32), jax.jit(loaded.model.apply)
        truth = corpus.utterances.labels[held]
        for seed in range(2):
            answers = apply(loaded.of_seed(seed), tokens, nothing, mask=mask)
            said = np.asarray(answers[:, 0].argmax(-1))
            (row,) = (r for r in results["rows"] if (r["arm"], r["seed"]) == (arm, seed))
            assert row["macro_f1"] == pytest.approx(macro_f1_of(truth, said), abs=1e-4)
            assert row["accuracy"] == pytest.approx(np.mean(said == truth), abs=1e-4)
    assert results["data"]["utterances"] == len(held)
    assert (
        results["data"]["intents"] == len(np.unique(truth)) and len(corpus.utterances.intents) == 12
    )


def test_a_run_says_which_differences_there_are_and_leaves_pictures(run: Path):
    results = found_in(run)
    pairs = list(dict.fromkeys((row["arm"], row["than"]) for row in results["differences"]))
    assert pairs == [(arm, "floor: bag of words") for arm in (*RAN, f"floor: {FLOORS[2]}")]
    # Four steps do not teach it: the sentence must say so.
    assert "LSTM + additive − bag of words: −0." in verdict(results)
    assert ", behind." in verdict(results) and "ahead" not in verdict(results)
    assert {path.name for path in (run / "plots").iterdir()} == {"confusion.png", "reading.png"}
    counts = np.array(results["confused"]["counts"])
    assert counts.sum() == 2 * results["data"]["utterances"], "both seeds of the arm with attention"
    assert counts.sum(1).tolist() == [2 * n for n in results["data"]["per_intent"]]
    assert results["meta"]["command"] == "python -m experiments.real_data.intents --language af"


def test_the_same_command_trains_nothing_twice(run: Path, monkeypatch: pytest.MonkeyPatch):
    before = found_in(run)
    (run / "results.json").unlink()  # as if it had been stopped while it was tested

    def trained(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished arm was trained again")

    monkeypatch.setattr(jobs_module, "carry_out", trained)
    assert main([*ARGV, "--out", str(run.parent)]) == 0
    after = found_in(run)
    assert {k: v for k, v in after.items() if k != "meta"} == {
        k: v for k, v in before.items() if k != "meta"
    }


def test_a_question_is_answered_with_what_was_read(run: Path, capsys: pytest.CaptureFixture[str]):
    trained = run / "lstm-additive-fold-0"
    loaded = load(trained)
    assert isinstance(loaded.experiment.task, Intents)
    corpus = loaded.experiment.task.corpus
    text = corpus.utterances.texts[corpus.parts.train[0]]
    question = f"{text.capitalize()}, frobnicator?"
    said = intents_ask.answer(question, loaded.experiment, trained)
    out = capsys.readouterr().out
    assert "never seen in training: frobnicator" in out
    assert "LSTM + additive, mean of 2 seeds" in out
    chances = [float(line.split()[0]) for line in out.splitlines() if "Hass" in line]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)
    words = (*text.split(), "frobnicator")
    tokens, mask = corpus.vocabulary.encode([question], len(words))
    each = [decide(loaded.model, loaded.of_seed(s), tokens, mask)[0] for s in range(2)]
    assert chances[0] == pytest.approx(np.mean(each, 0).max(), abs=6e-4)
    assert said == corpus.utterances.intents[np.mean(each, 0).argmax()]
    bars = [line.split() for line in out.partition("what it reads")[2].splitlines()]
    weights = [float(bar[-1]) for bar in bars if bar and bar[0] in words]
    assert len(weights) == len(words) and sum(weights) == pytest.approx(1, abs=0.005 * len(words))
    assert (trained / "plots" / "ask.png").stat().st_size > 1000


def test_a_question_is_for_a_model_of_all_templates(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Experiment, Path]] = []

    def sweep(jobs: dict[str, Experiment], folder: Path, workers: int) -> None:
        ((name, job),) = jobs.items()
        asked.append((job, folder / name))
        raise KeyboardInterrupt

    monkeypatch.setattr(intents_ask, "sweep", sweep)
    for options in (["--language", "af"], ["--language", "af", "--preset", "full"]):
        with pytest.raises(KeyboardInterrupt):
            main(["--ask", "hoe laat is dit", *options, "--out", str(tmp_path)])
    (job, path), again = asked
    assert again == (job, path), "one model for all presets"
    assert path == tmp_path / "intents-all-af"
    assert isinstance(job.task, Intents) and not job.task.shuffled
    assert job.architecture.attention == "additive" and job.training.steps == 4
    every = data.load("af")
    assert len(job.task.rows) == len(every) and job.task.out_features == len(every.intents)


def test_a_question_needs_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for argv, expected in (
        (("--language", "af", "--ask", " ?! "), "expected a question in words"),
        (("--cell", "lstn"), "Did you mean 'lstm'"),
        (("--language", "af", "--arms", "LSTN"), "Did you mean 'LSTM'"),
        (("--language", "xx"), "xx"),
        (("--language", "ja"), "one with spaces between words"),
        (("--language", "id"), "two intents of 3 templates or more; this one has 0, of 2"),
    ):
        with pytest.raises(SystemExit) as leave, plain_errors():
            main([*argv, "--out", str(tmp_path)])
        assert leave.value.code == 2
        assert expected in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_presets_are_of_folds_of_one_cross_validation():
    for name, folds in (("quick", 1), ("full", 5)):
        options = Options(name, language="af")  # type: ignore[arg-type]
        preset = intents.PRESETS[name]
        assert preset.held == folds and preset.seeds >= 2
        jobs = [options.job(preset, "none", fold=fold) for fold in range(folds)]
        assert [job.task.folds for job in jobs] == [5] * folds  # type: ignore[attr-defined]
    command, folder = Options("full", cell="gru", language="pt-BR").command_and_folder()
    assert command.endswith("intents --preset full --language pt-BR --cell gru")
    assert folder == Path("runs/intents-full-pt-br-gru")


class Knows:
    """In place of a trained run: answers by the intents themselves, wrong in one fold."""

    def __init__(self, job: Experiment, wrong: bool) -> None:
        self.experiment, self.model, self.wrong = job, self, wrong

    def of_seed(self, seed: int | None = None) -> tuple[bool, int]:
        return self.wrong, seed or 0


def test_predictions_of_all_folds_are_pooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(intents.PRESETS, "full", Preset(4, 2, 3))
    arms = Options("full", language="af").question.arms
    jobs = {named(name): job for name, job in arms.items()}
    assert len(arms) == 12
    lost = ("LSTM, words shuffled, fold 1", 1)
    paid = {"parameters": 7, "state_bytes": 8, "steps": 4, "seconds": 1.5}
    rows = [
        {"arm": name, "seed": seed, "accuracy": None if (name, seed) == lost else 0.5} | paid
        for name in arms
        for seed in range(2)
    ]

    def decided(model: Knows, params: tuple[bool, int], tokens: np.ndarray, mask: np.ndarray):
        wrong, seed = params
        task = model.experiment.task
        assert isinstance(task, Intents) and tokens.shape == mask.shape
        truth = task.corpus.utterances.labels[task.corpus.parts.held]
        # In fold 1 the first seed says the next intent; all else is right.
        chances = np.eye(task.out_features)[(truth + (wrong and seed == 0)) % task.out_features]
        attention = model.experiment.architecture.attention != "none"
        if (task.fold, task.shuffled, seed, attention) == (2, True, 1, True):
            chances[0] = np.nan
        return chances

    monkeypatch.setattr(
        intents_pooled, "load", lambda run: Knows(jobs[run.name], jobs[run.name].task.fold == 1)
    )
    monkeypatch.setattr(intents_pooled, "decide", decided)
    monkeypatch.setattr(
        intents_pooled, "_draw_reading", lambda run: reading([["a"]], [np.ones(1)], [run.name])
    )
    results = intents_pooled.pool_folds(arms, rows, tmp_path, *ARMS[:2])

    corpora = [Intents("af", fold=fold).corpus for fold in range(3)]
    held = [corpus.parts.held for corpus in corpora]
    labels = corpora[0].utterances.labels
    truth = labels[np.concatenate(held)]
    said = np.concatenate([labels[held[0]], (labels[held[1]] + 1) % 12, labels[held[2]]])
    assert len(np.unique(np.concatenate(held))) == len(truth), "each utterance is tested once"
    of = {(row["arm"], row["seed"]): row for row in results["rows"]}
    for arm in ARMS:
        first, second = of[arm, 0], of[arm, 1]
        assert first["macro_f1"] == pytest.approx(macro_f1_of(truth, said), abs=1e-4)
        assert first["accuracy"] == pytest.approx(np.mean(said == truth), abs=1e-4)
        # One that was lost in a fold, one that answered NaN in another.
        assert second["macro_f1"] == (None if "shuffled" in arm else 1)
        assert (second.get("nan", 0) > 0) == (arm == "LSTM + additive, words shuffled")
        assert first["seconds"] == 4.5 and first["parameters"] == 7
    floor = np.concatenate([[*data.floors(c.utterances, c.parts).values()][1] for c in corpora])
    words = of["floor: bag of words", None]
    assert words["macro_f1"] == pytest.approx(macro_f1_of(truth, floor), abs=1e-4)
    assert results["data"]["utterances"] == len(truth) and results["data"]["held"] == 3
    pairs = list(dict.fromkeys((row["arm"], row["than"]) for row in results["differences"]))
    assert pairs == [
        *((arm, "floor: bag of words") for arm in ARMS),
        ("floor: bag of words and bigrams", "floor: bag of words"),
        ("LSTM + additive", "LSTM"),
        ("LSTM", "LSTM, words shuffled"),
        ("LSTM + additive", "LSTM + additive, words shuffled"),
    ]
    # Of the seed that was lost in one fold nothing is left in the differences.
    (row,) = (
        row
        for row in results["scores"]
        if (row["arm"], row["measure"]) == ("LSTM, words shuffled", "accuracy")
    )
    assert row["mean"] == pytest.approx(np.mean(said == truth), abs=1e-4)
    counts = np.array(results["confused"]["counts"])
    assert counts.trace() == np.sum(said == truth) + len(truth)


def macro_f1_of(truth: np.ndarray, said: np.ndarray) -> float:
    return f1_score(truth, said, labels=np.unique(truth), average="macro")


def utterances_of(labels: Sequence[int], templates: Sequence[int]) -> Any:
    return types.SimpleNamespace(
        labels=np.array(labels),
        templates=np.array(templates),
        intents=[f"I{i}" for i in range(max(labels) + 1)],
        sentences=[f"s{i}" for i in range(max(templates) + 1)],
    )


def test_scores_of_counts_are_those_of_the_predictions():
    rng = np.random.default_rng(0)
    templates = np.sort(np.concatenate([np.arange(9), rng.integers(0, 9, 200)]))
    label_of = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    labels = label_of[templates]
    said = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(0, 3, len(labels)))
    counts = tally(utterances_of(labels, templates), np.arange(len(labels)), said)
    assert counts.sum(1).tolist() == np.bincount(templates).tolist()
    # A weight of a template is so many copies of its utterances; here intent 2 is not drawn.
    weights = np.array([np.ones(9), [2, 0, 1, 3, 1, 0, 1, 1, 0], [1, 0, 2, 3, 3, 0, 0, 0, 0]])
    for row, drawn in enumerate(weights.astype(int)):
        copies = np.repeat(np.arange(len(labels)), drawn[templates])
        right = said[copies] == labels[copies]
        expected = macro_f1_of(labels[copies], said[copies])
        assert macro_f1(weights, counts, label_of)[row] == pytest.approx(expected)
        assert accuracy(weights, counts, label_of)[row] == pytest.approx(right.mean())
        shares = [
            np.mean((said == labels)[templates == t]) for t in range(9) for _ in [0] * drawn[t]
        ]
        assert by_template(weights, counts, label_of)[row] == pytest.approx(np.mean(shares))


def test_differences_are_paired_over_templates_and_the_mean_of_the_seeds():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 15)
    right = rng.integers(0, 30, 60)
    worse = right - 1 * (right > 0)

    def counts(hits: np.ndarray) -> np.ndarray:
        found = np.zeros((60, 4), int)
        found[np.arange(60), labels] = hits
        found[np.arange(60), (labels + 1) % 4] = 30 - hits
        return found

    of = {"a": [counts(right), counts(right)], "b": [counts(worse)]}
    rows = differences(of, labels, [("a", "b"), ("a", "a"), ("a", None)])
    assert [row["measure"] for row in rows] == [*MEASURES] * 3
    (ahead,) = (r for r in rows if (r["than"], r["measure"]) == ("b", "accuracy"))
    assert ahead["mean"] == pytest.approx((right - worse).mean() / 30, abs=1e-4)
    # Templates differ by far more than the two arms do on each of them.
    assert 0 < ahead["low"] and ahead["high"] - ahead["low"] < 0.01
    same = [row for row in rows if row["than"] == "a"]
    assert all(row["low"] == row["mean"] == row["high"] == 0 for row in same)
    (own,) = (r for r in rows if (r["than"], r["measure"]) == (None, "accuracy"))
    assert own["high"] - own["low"] > 0.05
    (mixed,) = differences({"m": [counts(right), counts(worse)]}, labels, [("m", None)])[1:2]
    assert mixed["mean"] == pytest.approx((right + worse).mean() / 60, abs=1e-4)


def test_answers_are_the_same_however_many_are_asked_at_once(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded = load(run / "lstm-additive-fold-0")
    corpus = loaded.experiment.task.corpus  # type: ignore[attr-defined]
    tokens, mask, params = corpus.tokens[:11], corpus.mask[:11], loaded.of_seed(1)
    whole = decide(loaded.model, params, tokens, mask)
    assert whole.shape == (11, 12)
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-5)
    monkeypatch.setattr(intents_scores, "ROWS", 4)
    np.testing.assert_allclose(decide(loaded.model, params, tokens, mask), whole, rtol=1e-4)


def test_a_confusion_matrix_has_shares_of_rows():
    figure = confusion(np.array([[6, 2, 0], [0, 99, 1], [0, 0, 0]]), ["HassA", "B", "C"], "me")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B", "C"]
    image = axes.images[0].get_array()
    np.testing.assert_allclose(image[:2].data, [[0.75, 0.25, 0], [0, 0.99, 0.01]])
    assert image.mask[2].all() and not image.mask[:2].any(), "an intent that nothing was asked of"
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (1, 1): "99"}


def test_a_picture_of_what_is_read_has_every_word_with_its_weight():
    figure = reading([["what", "time"], ["stop"]], [np.array([0.25, 0.75]), np.ones(1)], ["A", "B"])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["what\n.25", "time\n.75", "stop\n1.00"]
    assert axes.images[0].get_array().mask.tolist() == [[False, False], [False, True]]


def difference(arm: str, than: str, mean: float, low: float, high: float) -> list[dict[str, Any]]:
    row = {"arm": arm, "than": than, "mean": mean, "low": low, "high": high}
    return [row | {"measure": measure} for measure in MEASURES]


RESULTS = {
    "rows": [
        {"arm": "GRU", "seed": seed, "parameters": 1234, "state_bytes": 2048, "seconds": 3.0}
        | {"macro_f1": f1, "by_template": 0.9, "accuracy": 0.8}
        for seed, f1 in ((0, 0.7), (1, 0.72))
    ]
    + [
        {"arm": "floor: bag of words", "seed": None}
        | {"macro_f1": 0.75, "by_template": 0.95, "accuracy": 0.85}
    ],
    "scores": difference("GRU", "", 0.71, 0.65, 0.75),
    "differences": [
        *difference("GRU", "floor: bag of words", -0.04, -0.06, -0.01),
        *difference("GRU + additive", "GRU", 0.01, -0.02, 0.03),
        *difference("GRU", "GRU, words shuffled", 0.05, 0.01, 0.09),
    ],
    "data": {"held": 5, "folds": 5, "utterances": 4321, "templates": 800, "intents": 31}
    | {"language": "en"},
    "meta": {"core_hours": 0.5},
}  # TEST DATA, not a measurement


def test_a_line_has_medians_and_the_interval_over_templates():
    gru, floor = (dict(zip(COLUMNS, line)) for line in lines(RESULTS))
    assert gru == {
        "arm": "GRU",
        "macro-F1": "0.710 (0.700–0.720)",
        "95%": "0.650–0.750",
        "by template": "0.900",
        "by utterance": "0.800",
        "params": "1,234",
        "state": "2.0 KiB",
        "time": "3 s",
    }
    assert floor["macro-F1"] == "0.750" and floor["params"] == floor["95%"] == ""


def test_every_difference_is_told_whichever_its_sign():
    said = verdict(RESULTS)
    assert "GRU − bag of words: −0.040 (−0.060 to −0.010), behind." in said
    assert "GRU + additive − GRU: +0.010 (−0.020 to +0.030), not significant." in said
    assert "GRU − GRU, words shuffled: +0.050 (+0.010 to +0.090), ahead." in said
    assert "5 of 5 folds: 4,321 utterances of 800 templates of 31 intents (en)" in said
    columns, rows, _ = difference_table(RESULTS)
    assert columns == ("difference", "macro-F1", "by template", "by utterance")
    assert [row[0] for row in rows] == [
        *("GRU − bag of words", "GRU + additive − GRU", "GRU − GRU, words shuffled")
    ]
    assert all(len(row) == 4 for row in rows)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("longlag.data.templates", raising=False)
    monkeypatch.setitem(sys.modules, "longlag.data.templates", None)
    with pytest.raises(ImportError, match=r'pip install "longlag\[data\]"'):
        data.load()
