"""Figures and page of the report: nothing cut, nothing hidden, and shown whole by a browser."""

from __future__ import annotations

import base64
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from longlag import report
from longlag.report import statements
from longlag.report.figures import png
from longlag.report.maps import attention_map, trace_map
from longlag.report.style import PALETTE, PLAIN, spread_out, styles
from tests.helpers import browser
from tests.helpers.made_up_results import ROLES, entries_of, made_up_results, row


class Rendered(NamedTuple):
    page: Path
    results: dict[str, Any]
    figures: dict[str, dict[str, Figure]]
    drawn: dict[Text, Bbox]  # every text that was painted, and where, as fractions of its figure


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """The report of the made-up results, written once, and what was drawn on the way."""
    results, figures, drawn = made_up_results(), {}, {}
    draw = Text.draw

    def plots(results, layout):
        figures[layout] = report.plots(results, layout)
        return figures[layout]

    def draw_text(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            box = Text.get_window_extent(text, renderer)
            drawn[text] = box.transformed(text.get_figure(root=True).transFigure.inverted())
        return draw(text, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longlag.report.page.plots", plots)
        patch.setattr(Text, "draw", draw_text)
        page = report.write(tmp_path_factory.mktemp("report"), results)
    return Rendered(page, results, figures, drawn)


# The figures


def test_every_text_is_inside_its_figure_and_touches_no_other(rendered):
    for layout, figures in rendered.figures.items():
        assert list(figures) == ["accuracy", "lag", "learning", "loss", "attention", "trace"]
        for name, figure in figures.items():
            boxes = [(t.get_text(), box) for t, box in rendered.drawn.items() if t.figure is figure]
            assert len(boxes) > 10
            for words, box in boxes:
                assert box.min.min() > -1e-3 and box.max.max() < 1 + 1e-3, (layout, name, words)
            for (one, a), (other, b) in itertools.combinations(boxes, 2):
                assert not a.padded(-1e-3).overlaps(b.padded(-1e-3)), (layout, name, one, other)


def test_an_arm_has_one_colour_in_every_figure(rendered):
    expected = {arm: style.color for arm, style in styles(ROLES, ROLES).items()}
    assert len(set(expected.values())) == len(ROLES)
    for figures in rendered.figures.values():
        for name in ("accuracy", "lag", "learning", "loss"):
            texts = [text for text in rendered.drawn if text.figure is figures[name]]
            colors = {text.get_text(): to_hex(text.get_color()) for text in texts}
            assert {arm: colors[arm] for arm in ROLES} == expected, name


def test_every_seed_is_a_mark_and_the_floor_a_line(rendered):
    ax = rendered.figures["wide"]["accuracy"].axes[1]
    marks = np.concatenate([np.asarray(c.get_offsets())[:, 0] for c in ax.collections])
    of_task = [one for one in rendered.results["rows"] if one["task"] == "parity"]
    np.testing.assert_allclose(
        sorted(marks), sorted(one["accuracy"] for one in of_task if one["seed"] is not None)
    )
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in ax.lines)


def test_colours_stay_apart_under_colour_vision_deficiencies():
    # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
    deficiencies = {
        "none": np.eye(3),
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
    }
    to_xyz = [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]]
    srgb = np.array([to_rgb(color) for color in (*PALETTE, PLAIN.color)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for name, matrix in deficiencies.items():
        seen = np.cbrt(np.clip(linear @ np.transpose(matrix), 0, 1) @ np.transpose(to_xyz))
        x, y, z = seen.T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(lab))
        assert distances.min() > 14, name  # a difference of 2 to 3 is just noticeable


def test_labels_are_moved_apart_as_little_as_needed():
    assert spread_out([0.2, 0.8], 0.1, 0, 1) == pytest.approx([0.2, 0.8])
    assert spread_out([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.4, 0.5, 0.6])
    assert spread_out([1.0, 0.99], 0.1, 0, 1) == pytest.approx([1.0, 0.9])
    crowded = spread_out([0.0, 0.01, 0.02, 0.5], 0.1, 0, 1)
    assert np.diff(crowded).min() >= 0.1 - 1e-12 and crowded[0] == 0


def test_pictures_that_do_not_fit_their_tokens_are_refused():
    tokens = {"tokens": ["a", "b"], "title": ""}
    with pytest.raises(ValueError, match=r"\[T_query, 2\], .* got \[2, 3\]"):
        attention_map(tokens | {"weights": np.ones((2, 3))}, 4)
    with pytest.raises(ValueError, match="expected 3 queries, got 2"):
        attention_map(tokens | {"weights": np.ones((3, 2))}, 4)
    with pytest.raises(ValueError, match=r"states \[2, H\], .* got \[3, 5\]"):
        trace_map(tokens | {"states": np.ones((3, 5))}, 4)
    with pytest.raises(ValueError, match="lags >= 1, got 0"):
        point = {"task": "t", "arm": "A", "seed": 0, "lag": 0, "train_lag": 4, "accuracy": 1.0}
        report.figure({"by_lag": [point]}, "lag")


# The page


def test_the_page_asks_for_nothing_beside_itself(rendered):
    html = rendered.page.read_text()
    links = re.findall(r"(?:src|href|srcset|action|poster)\s*=\s*[\"']?([^\"'\s>]+)", html)
    assert len(links) == 13  # six figures in two sizes, and the icon that there is not
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"https?://|@import|url\(|<script|<link rel=.stylesheet", html)


def test_the_plots_are_the_images_of_the_page(rendered):
    html = rendered.page.read_text()
    files = sorted((rendered.page.parent / "plots").iterdir())
    assert [file.stem for file in files] == sorted(rendered.figures["wide"])
    for file in files:
        assert base64.b64encode(file.read_bytes()).decode() in html, file


SEEN = """({
    scroll: document.scrollingElement.scrollWidth, window: innerWidth,
    text: document.body.innerText.replaceAll('\\u00a0', ' '),
    images: [...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.width, i.alt]),
    box: (b => [b.scrollWidth, b.clientWidth])(document.querySelector('.scroll')),
    requests: performance.getEntriesByType('resource').map(e => e.name)
        .filter(name => !name.startsWith('data:')),
})"""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_whole(rendered, width):
    seen = browser.evaluate(rendered.page, SEEN, width)
    assert seen["window"] == width
    assert seen["scroll"] <= width
    assert seen["requests"] == []

    assert len(seen["images"]) == 6
    for natural_width, natural_height, shown_width, alt in seen["images"]:
        assert natural_height > 0 and len(alt) > 30
        # Sharp on a screen of twice the density, and not wider than the text on a phone.
        assert natural_width >= 2 * shown_width and shown_width <= width - 32
    # A phone gets the figures that were drawn for it, and scrolls the table inside its box.
    scrolled, box = seen["box"]
    if width == 390:
        assert {image[0] for image in seen["images"]} == {1040}
        assert box <= width - 32 < scrolled
    else:
        assert scrolled == box

    cells = entries_of(rendered.results)
    expected = report.findings(cells, ROLES) + report.about_tasks(cells, ROLES)
    expected += statements.about_lag(rendered.results["by_lag"], 0.95)
    expected += statements.about_steps(cells) + statements.about_loss(cells)
    expected += [rendered.results[name]["caption"] for name in ("attention", "trace")]
    expected += ["How far back can a network remember", "make demo", "0123abc", "2 min 51 s"]
    expected += ["cpu, 2 cores", "jax 0.10.2", "16.5 KiB", "does not extrapolate", "coin flip"]
    for sentence in expected:
        assert sentence in seen["text"], sentence
    assert "cannot" not in seen["text"]


def test_the_browser_paints_every_arm(rendered, tmp_path):
    browser.screenshot(rendered.page, tmp_path / "page.png", 1280, 2400)
    painted = (255 * imread(tmp_path / "page.png")[..., :3]).round().astype(int).reshape(-1, 3)
    for arm, style in styles(ROLES, ROLES).items():
        near = np.abs(painted - (255 * np.array(to_rgb(style.color))).round()).max(axis=1) <= 6
        assert near.sum() > 50, arm


def test_a_machine_without_a_browser_is_told_how_to_get_one(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(AssertionError, match=r"\.ci/run.*apt-get install -y chromium"):
        browser.chromium()


def test_rows_alone_make_a_report_and_equal_rows_an_equal_one(tmp_path):
    results = {"rows": [row(task="<b>odd</b>"), row(task="<b>odd</b>", seed=1, accuracy=1.0)]}
    once, twice = (report.write(tmp_path / name, results) for name in "ab")
    assert once.read_bytes() == twice.read_bytes()
    assert [file.name for file in (tmp_path / "a" / "plots").iterdir()] == ["accuracy.png"]
    assert "&lt;b&gt;odd" in once.read_text() and "<b>odd" not in once.read_text()
    assert report.render(results) == once.read_text()


def test_colours_follow_the_place_of_an_arm_and_grey_its_role():
    found = styles(["mlp", *"abcdefgh", "a"], {"mlp": "feed-forward"})
    assert found["mlp"] == PLAIN and found["a"].color == PALETTE[0]
    # The eighth has the colour of the first, so it needs another marker.
    assert found["h"].color == found["a"].color and found["h"].marker != found["a"].marker


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_a_task_on_which_every_seed_diverged_at_once_is_drawn(layout):
    results = made_up_results()
    for curve in results["curves"]:
        if curve["task"] == "recall":
            curve.update(loss=[None], accuracy=[None], steps=[0])
    made = report.plots(results, layout)
    assert png(made["learning"], layout) and png(made["loss"], layout)
    assert [text.get_text() for ax in made["loss"].axes for text in ax.texts] == ["diverged"] * 5
