"""The page of all questions: whole in a browser, wide and narrow; its charts say what they draw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.harness import recorded as recorded_module
from experiments.harness import report
from experiments.harness.discovery import recorded_questions
from experiments.memory.attention_vs_recurrence import NAME as FLAGSHIP
from experiments.published import reproduce
from experiments.published.protocols import CHOMSKY
from longlag.report.charts import Point, heat_map, line_chart
from longlag.report.style import styles
from tests.helpers import browser


def row(arm: str, seed: int, lag: int, accuracy: float, **more):
    fixed = {"kind": "dense", "train_lag": 40, "budget": 10, "parameters": 9, "state_bytes": 64}
    fixed |= {"floor": 0.5, "rate": 1e-3, "solved_at": None, "seconds": 1.0, "probe": False}
    return fixed | {"arm": arm, "seed": seed, "lag": lag, "accuracy": accuracy} | more


META = {
    "command": "made up",
    "commit": "0123abc",
    "device": "a machine",
    "versions": {"jax": "0.10.2"},
    "wall_seconds": 1.0,
    "core_hours": 0.5,
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of what is committed, and of made-up results where nothing is."""
    folder = tmp_path_factory.mktemp("page")
    made = {
        f"{FLAGSHIP}-track": {
            "rows": [
                row(arm, seed, lag, accuracy - 0.01 * seed)
                for arm, accuracy in (("GRU", 0.97), ("GRU + attention", 0.61))
                for seed in range(2)
                for lag in (40, 80, 160)
            ],
            "threshold": 0.95,
        },
        f"{FLAGSHIP}-look-up": {
            "rows": [row("GRU", 0, 40, 0.3), row("GRU, convolution", 0, 40, 0.7)],
            "threshold": 0.95,
        },
        "recall-capacity": {
            "rows": [
                row(f"LSTM, {n} features", 0, 40, n / 100, state_bytes=8 * n) for n in (16, 64)
            ]
            + [row("window of 8", 0, 40, 0.2, state_bytes=2000)],
            "threshold": 0.95,
        },
        "lag-horizon": {"rows": [row("LSTM", 0, lag, 0.9) for lag in (32, 64)], "threshold": 0.95},
        "length-generalisation": {
            "rows": [
                {"arm": "GRU", "seed": 0, "length": 2**k, "right": 200 - 9 * k, "sequences": 256}
                | {"train_length": 40, "state_bytes": 64, "seconds": 1.0}
                for k in range(7, 18)
            ]
        },
    }
    real = recorded_module.committed_results

    def found(name: str) -> dict | None:
        if name in made:
            return made[name] | {"meta": META}
        # An axis that is recorded one day changes nothing here.
        return None if name.startswith(FLAGSHIP) else real(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_module, "committed_results", found)
        report.main(folder / "report.html")
    return folder / "report.html"


SEEN = """({
    scroll: document.scrollingElement.scrollWidth, window: innerWidth,
    text: document.body.innerText.replaceAll('\\u00a0', ' '),
    images: [...document.images].map(i => [i.naturalWidth, i.width, i.alt]),
    requests: performance.getEntriesByType('resource').map(e => e.name)
        .filter(name => !name.startsWith('data:')),
})"""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_whole(page: Path, width: int):
    seen = browser.evaluate(page, SEEN, width)
    assert seen["scroll"] <= width == seen["window"] and seen["requests"] == []
    # Those that were committed, the heat map, three against a quantity, one for each language.
    committed_pictures = sum(len(question.pictures) for question in recorded_questions().values())
    assert len(seen["images"]) == committed_pictures + 4 + len(CHOMSKY)
    for natural, shown, alt in seen["images"]:
        assert natural > 0 and shown <= width - 32 and len(alt) > 30
    assert any("GRU track 0.97" in alt or "track 0.96" in alt for *_, alt in seen["images"])
    for words in ("Is attention needed at all?", "made up on a machine", "How far back?"):
        assert words in seen["text"]
    assert "<!--" not in seen["text"] and "cannot" not in seen["text"]


def test_a_number_of_the_flagship_is_that_of_the_lag_it_counts_at(page: Path):
    assert "GRU + attention track 0.6" in page.read_text("utf-8")


def test_the_best_seed_is_that_of_the_best_mean_over_the_lengths_beyond():
    accuracies = {0: (1.0, 0.9, 0.4), 1: (0.3, 0.7, 0.7), 2: (1.0, 0.1, 0.8)}
    rows = [
        row("parity, GRU", seed, lag, accuracy, length=lag, train_length=40)
        for seed, of_seed in accuracies.items()
        for lag, accuracy in zip((40, 80, 160), of_seed)
    ]
    rows.append(row("even pairs, LSTM", 0, 80, 0.5, length=80, train_length=40))
    parity, even_pairs = reproduce.languages({"rows": rows})
    assert parity.sentences == ["The best seed of each, over the lengths: GRU 70.0%."]
    assert even_pairs.sentences == ["The best seed of each, over the lengths: LSTM 50.0%."]
    assert parity.heading.endswith("parity") and parity.plate is not None
    assert "GRU 0.70" in parity.plate.alt  # the median at the longest


def test_every_question_has_a_title_of_its_own():
    titles = [question.title for question in recorded_questions().values()]
    assert len(set(titles)) == len(titles)


def test_a_question_without_results_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(recorded_module, "RESULTS", tmp_path)
    for name in ("selective-copy", FLAGSHIP):
        assert recorded_questions()[name].results() is None
    (tmp_path / "family-hold").mkdir()
    results = {"rows": [row("GRU", 0, 40, 1.0)], "threshold": 0.95, "meta": META}
    (tmp_path / "family-hold" / "cpu.json").write_text(json.dumps(results))
    made = recorded_questions()["family-hold"].section(
        recorded_questions()["family-hold"].results() or {}
    )
    assert "tested at" not in made.columns and "0123abc" in made.source


def test_a_heat_map_begins_at_the_floor_and_leaves_gaps_grey():
    figure = heat_map({"a": {"x": 0.5, "y": 1.0}, "b": {"y": 0.55}}, {"x": 0.5, "y": 0.1})
    ax = figure.axes[0]
    shown = ax.images[0].get_array()
    assert shown.mask.tolist() == [[False, False], [True, False]]
    np.testing.assert_allclose(shown.compressed(), [0, 1, 0.5])
    assert [text.get_text() for text in ax.texts] == [".50", "1.00", ".55"]
    with pytest.raises(ValueError, match="floor for each task"):
        heat_map({"a": {"z": 1.0}}, {"x": 0.5})


def test_lines_are_medians_and_named_in_their_colour():
    series = {"a": [Point(2, 0.5, 0.4, 0.6), Point(4, 0.9, 0.8, 1.0)], "b": [Point(2, 0.9, 0.9, 1)]}
    look = styles(series, {})
    ax = line_chart(series, look, "bytes", floor=0.25, trained_at=2.0).axes[0]
    drawn = [line.get_ydata() for line in ax.lines]
    np.testing.assert_allclose(drawn[0], [0.5, 0.9])
    names = {text.get_text(): to_hex(text.get_color()) for text in ax.texts}
    assert names["a"] == look["a"].color and names["b"] == look["b"].color
    assert [0.25, 0.25] in [list(line.get_ydata()) for line in ax.lines]
