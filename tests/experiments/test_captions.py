"""From trained arms to the table: names, the nearest picture, intervals over roles, one emoji."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.harness import questions
from experiments.harness.record import LEFT_OUT
from experiments.real_data import captions
from experiments.real_data.captions import (
    FLOOR,
    Options,
    Preset,
    kind_table,
    kinds,
    main,
    nearest_pictures,
    verdict,
)
from experiments.real_data.captions_figures import FAINT, Seen, fade, sheet
from experiments.real_data.sentence_scores import COLUMNS, align, compare_arms, interval, lines
from longlag.cli.arguments import plain_errors
from longlag.data import emoji
from longlag.data.coders import STOP, Characters
from longlag.runs import Experiment, load, run_job
from longlag.tasks import Captions
from longlag.tasks.pairs import Pairs

ARM = "LSTM + additive"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of one arm by the command line, the sweep in this process."""
    out = tmp_path_factory.mktemp("runs")

    def sweep(jobs: dict[str, Experiment], folder: Path, *_: object):
        return {name: run_job(name, job, folder) for name, job in jobs.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "sweep", sweep)
        patch.setitem(captions.PRESETS, "quick", Preset(20, 8, 1, 3e-3, ()))
        argv = ["--preset", "smoke", "--arms", ARM, "--out", str(out)]
        assert main(argv) == 0
        trained = out / "captions-smoke" / "lstm-additive" / "results.json"
        before = trained.stat().st_mtime_ns
        assert main(argv) == 0, "the same command goes on from what is there"
        assert trained.stat().st_mtime_ns == before
    return out


def test_the_run_leaves_table_kinds_and_the_sheet(runs: Path):
    out = runs / "captions-smoke"
    results = json.loads((out / "results.json").read_text())
    table = {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines(results)}
    assert [*table] == [ARM, FLOOR] and table[ARM]["params"] and not table[FLOOR]["params"]
    # The nearest picture is another's; of the test no name is in training.
    assert table[FLOOR]["exact, %"] == "0.0" and float(table[FLOOR]["chrF"]) > 50
    pairs = Captions().pairs
    assert results["pairs"] == {part: len(rows) for part, rows in pairs.rows.items()}
    roles = {emoji.decompose(pairs.sources[i]).role for i in pairs.rows["test"]}
    assert f"over the {len(roles)} roles of the 283 pictures" in verdict(results)
    columns, text, _ = kind_table(results)
    assert [*columns[1:]] == ["a role in another gender (150)", "another tone of skin (133)"]
    assert [line[0] for line in text] == [ARM, FLOOR]
    picture = (out / "plots" / "attended.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    assert not {*results} & {*LEFT_OUT}, "record keeps all of it"


def test_one_emoji_and_one_picture_are_said_by_the_newest_run(runs: Path, tmp_path: Path, capsys):
    (rocket,) = (p for s, p in emoji.pictures().items() if s == "\U0001f680")
    file = tmp_path / "rocket.png"
    Image.fromarray(rocket).save(file)
    said = []
    for text, known in (
        ("\U0001f680", "in the train part: rocket"),
        ("\u2764\ufe0f", "in the train part: red heart"),
        (str(file), "in no part of the data"),
    ):
        assert main(["--caption", text, "--out", str(runs)]) == 0
        printed = capsys.readouterr().out
        assert known in printed
        said.append(printed.partition(f"{ARM}: ")[2].partition("\n")[0])
    assert said[0] == said[2], "it is the same picture"
    assert (runs / "captions-smoke" / "plots" / "caption.png").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--caption", "rocket"], "expected an emoji or the path of a picture, got 'rocket'"),
        (["--caption", __file__], "expected a picture, such as a PNG file"),
        (
            ["--caption", "\U0001f680", "--out", "nowhere"],
            "run `python -m experiments.real_data.captions`",
        ),
        (["--language", "english"], "unknown language"),
        (["--arms", "LSTM + aditive"], "Did you mean 'LSTM + additive'"),
    ],
)
def test_bad_input(argv: list[str], message: str, runs: Path, capsys):
    with pytest.raises(SystemExit) as error, plain_errors():
        main(["--out", str(runs), *argv])
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_a_word_has_the_mean_of_what_its_pieces_read(runs: Path):
    loaded = load(runs / "captions-smoke" / "lstm-additive")
    pairs, task = Captions().pairs, Captions()
    at = int(pairs.answer_mask.sum(axis=1).argmax())
    said = pairs.answers[at]
    seen = captions.attend(loaded, 0, pairs.inputs[at], said, "title")
    assert " ".join(seen.words).replace(" :", ":") == pairs.targets[at].replace(" :", ":")
    weights, pieces = align(loaded, 0, task.to_model_inputs(pairs.inputs[at]), said)
    assert pieces[-1] == STOP and weights.shape == (len(pieces), 64)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    first = next(
        i for i, n in enumerate(pieces[1:], 1) if pairs.writer.name_of(int(n)).startswith("▁")
    )
    np.testing.assert_allclose(seen.weights[0].ravel(), weights[:first].mean(axis=0), atol=1e-6)
    nothing = captions.attend(loaded, 0, pairs.inputs[at], np.full_like(said, STOP), "title")
    assert nothing.words == [] and nothing.weights.shape == (0, 8, 8)
    np.testing.assert_array_equal(
        seen.picture, emoji.load().pictures[emoji.load().sequences.index(pairs.sources[at])]
    )


def test_the_nearest_picture_and_what_is_new():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (9, 4, 4, 3), np.uint8)
    fire, bow = "\u200d\U0001f692", "\U0001f647"
    sources = [emoji.MAN + fire, bow, bow + "\U0001f3fb", "a", "b", "c"]
    sources += [emoji.WOMAN + fire, bow + "\U0001f3ff", "d"]
    rows = {"train": np.arange(6)[::-1], "validation": np.arange(0), "test": np.arange(6, 9)}
    pairs = Pairs.of_pictures(sources, pictures, sources, Characters.of(sources), rows)
    assert kinds(pairs).tolist() == ["gender", "tone", "gender"]
    far = ((pictures[6:, None].astype(float) - pictures[None, :6]) ** 2).sum(axis=(2, 3, 4))
    assert nearest_pictures(pairs).tolist() == far.argmin(axis=1).tolist()


def test_pictures_of_one_role_count_as_one_draw():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(10, 4, 100), 6)
    roles = np.repeat([f"role {i}" for i in range(100)], 6)
    shuffled = rng.permutation(600)
    mean, low, high = interval(values[shuffled], roles[shuffled])
    error = 1.96 * values.std() / 10
    assert mean == pytest.approx(values.mean(), abs=0.01)
    assert low == pytest.approx(mean - error, abs=0.15)
    assert high == pytest.approx(mean + error, abs=0.15)
    assert interval(values)[2] - interval(values)[1] < 0.6 * (high - low)
    # A role of many pictures weighs what its pictures do.
    assert interval(np.array([0, 6, 6]), np.array(["a", "b", "b"])) == (4.0, 0.0, 6.0)
    (apart,) = compare_arms({"a": values, "b": values + 2}, roles)
    assert (apart["mean"], apart["low"], apart["high"]) == (2.0, 2.0, 2.0)


def test_the_verdict_names_both_qualities():
    row = {"arm": "b", "than": "a", "mean": 3.04, "low": 1.0, "high": 5.0}
    results: dict[str, Any] = {"roles": 7, "pairs": {"train": 1000, "test": 12}}
    results["differences"] = [{"quality": "exact", **row}, {"quality": "chrF", **row, "low": -1.0}]
    said = verdict(results | {"meta": {"core_hours": 1.5}})
    assert "Exact names, %: b − a: +3.0 (+1.0 to +5.0), significant." in said
    assert "chrF of a name: b − a: +3.0 (-1.0 to +5.0), not significant." in said
    assert "over the 7 roles of the 12 pictures" in said and "1.50 core-hours" in said


def test_what_was_read_stays_and_the_rest_fades():
    picture = np.full((4, 4, 3), 55, np.uint8)
    shown = fade(picture, np.array([[0.5, 0.25], [0.0, 0.25]]))
    assert (shown[:2, :2] == 55).all() and (shown[2:, :2] == round(255 - FAINT * 200)).all()
    assert (shown[:2, 2:] == shown[2:, 2:]).all() and 55 < shown[0, 2, 0] < shown[2, 0, 0]
    figure = sheet([Seen(picture, "a", ["one"], np.ones((1, 2, 2))), Seen(picture, "b", [], [])])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a", "one", "b", ""]


def test_every_arm_is_possible():
    for options in (Options(), Options(preset="quick", language="fr")):
        asked = options.question
        assert [*asked.arms] == ["LSTM", ARM]
        for job in asked.arms.values():
            assert not job.training.stop_when_solved
            params: Any = jax.eval_shape(job.model.init, jax.random.key(0))
            assert params["head"]["kernel"].shape[1] == job.task.out_features


def test_each_command_has_a_folder_of_its_own():
    command = "python -m experiments.real_data.captions"
    french = Options(preset="quick", language="fr")
    named = {
        o.command_and_folder[1].name: o.command_and_folder[0]
        for o in (Options(), Options(preset="quick"), french)
    }
    assert named == {
        "captions": command,
        "captions-quick": f"{command} --preset quick",
        "captions-quick-fr": f"{command} --preset quick --language fr",
    }
