"""The language experiment: every byte of the test counts once, in order, and the table says so."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.harness.questions import Question
from experiments.harness.rates import folder
from experiments.real_data import language
from experiments.real_data.language import Options, bits_of_test, main, question
from longlag import LSTM
from longlag.cli.arguments import plain_errors
from longlag.data import text as data
from longlag.runs import Architecture, Experiment, RunFolder, carry_out, create, load
from longlag.system.interrupt import Interruption
from longlag.tasks import NextByte
from tests.helpers.streams import drawn_like
from tests.helpers.tiny import TRAINING

pytestmark = pytest.mark.usefixtures("shared_compilations")

JOB = Experiment(
    NextByte(length=8),
    LSTM(4),
    Architecture(width=4, depth=2),
    dataclasses.replace(TRAINING, steps=4, dispatch=2, carry=True),
    seeds=2,
    test_lags=(8,),
)
WITH = dataclasses.replace(
    JOB, architecture=Architecture("window", window=3, heads=2, width=4, depth=2)
)
ASKED = Question("What next?", {"LSTM": JOB, "LSTM + attention": WITH}, 1.0)


def test_every_byte_counts_once_after_all_that_stands_before_it():
    model = WITH.model
    params = drawn_like(jax.eval_shape(model.init, jax.random.key(0)), np.random.default_rng(0))
    whole = data.load()
    text = data.Text(whole.train, whole.validation, whole.test[:5000])
    bits = bits_of_test(model, params, text)
    read = np.concatenate([whole.validation[-1025:], text.test]).astype(np.int32)[None]
    _, answers = jax.jit(model.apply)(params, jnp.asarray(read[:, :-1]))
    chances = jax.nn.log_softmax(answers)[0, np.arange(read.shape[1] - 1), read[0, 1:]]
    # An LSTM this small forgets within 1,024 bytes, so a stretch begins as if in the middle.
    np.testing.assert_allclose(bits, -chances[-5000:] / np.log(2), rtol=1e-3, atol=1e-3)


def test_the_interval_covers_the_mean_it_is_of():
    rng = np.random.default_rng(1)
    saved, counted = rng.normal(0.2, 1, 60_000), rng.random(60_000) < 0.3
    middle, low, high = language._interval(saved, counted)
    assert middle == pytest.approx(saved[counted].mean(), abs=1e-4)
    expected = 1.96 / np.sqrt(counted.sum())
    assert low == pytest.approx(middle - expected, abs=expected / 2)
    assert high == pytest.approx(middle + expected, abs=expected / 2)


def test_what_attention_costs_is_said_with_the_interval_the_right_way_round():
    rows = [{"arm": arm, "seed": 0} for arm in ("LSTM", "LSTM + attention")]
    found = {
        "rows": rows,
        "saved": {"again": (-0.2, -0.3, -0.1), "rest": (0.01, -0.02, 0.04)},
        "shares": {"again": 0.125, "bytes": 5000},
        "meta": {"core_hours": 1.0},
    }
    said = language.verdict(found)
    assert "costs 0.200 bits there (95% interval 0.100 to 0.300)" in said
    assert "no clear difference on the rest: 0.010 saved (95% interval -0.020 to 0.040)" in said
    found["saved"]["again"] = (0.2, 0.1, 0.3)
    assert "saves 0.200 bits there (95% interval 0.100 to 0.300)" in language.verdict(found)


def test_a_distance_at_which_nothing_came_again_is_no_point():
    bits, ago = np.array([1.0, 3.0, 5.0, 2.0]), np.array([0, 65, 256, 5000])
    assert language.bits_by_distance(bits, ago) == [None, 4.0, None, None, 1.0]
    figure = language.distance_figure({"LSTM": [[None, 4.0, None, None, 1.0]]})
    drawn = figure.axes[0].get_lines()[0].get_ydata()
    np.testing.assert_array_equal(drawn, [np.nan, 4.0, np.nan, np.nan, 1.0])
    plt.close(figure)
    assert language.bits_by_distance(np.where(ago == 0, np.nan, bits), ago)[-1] is None


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_both_arms_are_of_one_skeleton(preset):
    plain, attentive = question(preset).arms.values()
    assert dataclasses.replace(attentive, architecture=plain.architecture) == plain
    assert plain.training.carry and plain.seeds >= 2
    assert attentive.architecture.window == language.WINDOW


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("runs") / "language-quick"
    found = {
        arm: carry_out(job, create(job, out / folder(arm), out, "run"))
        for arm, job in ASKED.arms.items()
    }
    return out, [row | {"arm": arm} for arm, run in found.items() for row in run["rows"]]


def test_a_run_that_was_stopped_goes_on_with_the_state_that_it_carried(trained, tmp_path: Path):
    run, stop = create(JOB, tmp_path / "run", tmp_path, "run"), Interruption()

    def at_once(progress):
        stop.signal = 15

    assert carry_out(JOB, run, stop=stop, on_progress=at_once) is None
    assert carry_out(JOB, RunFolder.open(run.path)) is not None
    whole = load(trained[0] / folder("LSTM"))
    jax.tree.map(np.testing.assert_array_equal, load(run.path).params, whole.params)


def test_from_finished_runs_to_the_table_and_a_continuation(trained, monkeypatch, capsys):
    out, rows = trained
    monkeypatch.setattr(language, "question", lambda *_: ASKED)
    monkeypatch.setattr(language, "run_arms", lambda *_: (ASKED.arms, rows, []))
    assert main(Options(preset="quick", out=out.parent)) == 0
    results = json.loads((out / "results.json").read_text())
    by_seed = {(row["arm"], row["seed"]): row for row in results["rows"]}
    for row in rows:
        made = by_seed[row["arm"], row["seed"]]
        share = results["shares"]["again"]
        parts = share * made["bits_again"] + (1 - share) * made["bits_rest"]
        assert made["bits"] == pytest.approx(parts, abs=1e-3) and 0 < made["bits"] < 9
        assert made["bytes_seen"] == 4 * 4 * 8
    floors = {row["arm"]: row["bits"] for row in results["rows"] if row["seed"] is None}
    assert floors["floor: the frequencies of bytes"] == pytest.approx(4.858, abs=1e-3)
    assert floors["floor: counts of 5-grams (Witten-Bell)"] == pytest.approx(2.489, abs=1e-3)
    assert (out / "plots" / "distance.png").is_file()
    assert len(language.lines(results)) == 5 and "95% interval" in language.verdict(results)

    capsys.readouterr()
    # Neither wrapped at the width of the terminal nor taken for markup or a picture.
    prompt = "what :bug: [b]time[/b] " + "is it? " * 40
    asked = Options(preset="quick", out=out.parent, sample=prompt, bytes=30)
    assert main(asked) == 0 and capsys.readouterr().out.startswith(prompt)
    for change, message in (
        ({"sample": ""}, "expected at least one byte"),
        ({"arm": "GRU"}, "unknown arm"),
        ({"preset": "full"}, "expected a finished run"),
    ):
        with pytest.raises(SystemExit) as left, plain_errors():
            main(dataclasses.replace(asked, **change))
        assert left.value.code == 2 and message in capsys.readouterr().err


def test_enwik8_has_a_folder_of_its_own_and_what_was_published_under_it(
    trained, monkeypatch, tmp_path: Path
):
    """By models of the other text, on a little of it; one arm has diverged."""
    out, rows = trained
    shutil.copytree(out, tmp_path / "language-enwik8-quick")
    whole = data.load()
    little = data.Text(whole.train[:20_000], whole.validation[:5000], whole.test[:5000])
    monkeypatch.setattr(data, "load", lambda name="jargon", path=None: little)
    monkeypatch.setattr(language, "question", lambda *_: ASKED)
    rows = [row | ({"accuracy": None} if "attention" in row["arm"] else {}) for row in rows]
    monkeypatch.setattr(language, "run_arms", lambda *_: (ASKED.arms, rows, []))
    assert main(Options(preset="quick", text="enwik8", out=tmp_path)) == 0
    results = json.loads((tmp_path / "language-enwik8-quick" / "results.json").read_text())
    assert results["meta"]["command"].endswith("language --text enwik8 --preset quick")
    found = {line[0]: line[1:] for line in language.lines(results)}
    assert found["not comparable in budget: mLSTM, Krause et al. 2016"] == (
        "1.240", "", "", "46,000,000", "", "", "",
    )  # fmt: skip
    assert "floor: counts of 7-grams (Witten-Bell)" in found and "LSTM + attention" not in found
    assert "diverged in every seed" in language.verdict(results)


def test_an_hour_of_enwik8_is_one_seed_of_each_arm():
    asked = question("full", "enwik8")
    assert {(job.task.text, job.seeds, job.training.steps) for job in asked.arms.values()} == {
        ("enwik8", 1, 6000)
    }
