"""The explorer in a browser: what a reader chooses is what the committed JSON says."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from experiments.harness import explorer
from experiments.harness.recorded import RESULTS
from tests.helpers import browser

TASK, ARMS = "attention-vs-recurrence-look-up", ["LSTM", "LSTM + attention"]

# Chooses by the page's own controls, as a reader does, then reads what the page drew and wrote.
CHOOSE = """(async () => {
    const set = (id, value) => {
        const it = document.getElementById(id);
        it.value = value;
        it.dispatchEvent(new Event('change', {bubbles: true}));
    };
    await drawn;
    set('task', TASK); set('x', 'state'); set('y', 'accuracy'); set('tested', 'longest');
    for (const box of document.querySelectorAll('#arms input'))
        if (box.checked !== ARMS.includes(box.value)) box.click();
    await drawn;
    return {
        rows: [...document.querySelectorAll('#medians tbody tr')]
            .map(line => [...line.children].map(cell => cell.textContent)),
        marks: [...document.querySelectorAll('#chart svg .mark-symbol path')]
            .map(mark => mark.getAttribute('aria-label')).filter(Boolean),
        scroll: document.scrollingElement.scrollWidth,
        requests: performance.getEntriesByType('resource').map(e => e.name)
            .filter(name => !name.startsWith('data:')),
    };
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    explorer.main(path)
    assert path.stat().st_size < 3e6
    return path


def test_a_value_on_the_page_is_that_of_the_committed_results(page: Path):
    choice = CHOOSE.replace("TASK", json.dumps(TASK)).replace("ARMS", json.dumps(ARMS))
    seen = browser.evaluate(page, choice, 390)
    committed = json.loads((RESULTS / TASK / "cpu.json").read_text("utf-8"))
    far = [row for row in committed["rows"] if row["lag"] == 128 and row["arm"] in ARMS]
    assert [line[0] for line in seen["rows"]] == ARMS
    for arm, lag, state, accuracy, seeds, commit in seen["rows"]:
        mine = [row for row in far if row["arm"] == arm]
        assert (int(lag), int(seeds)) == (128, len(mine))
        assert float(state.replace(",", "")) == mine[0]["state_bytes"]
        median = statistics.median(row["accuracy"] for row in mine)
        assert float(accuracy) == pytest.approx(median, rel=1e-3)
        assert committed["meta"]["commit"].startswith(commit)
    # A mark for every seed, and one for the median of each arm; a seed names its source.
    assert len(seen["marks"]) == len(far) + len(ARMS)
    assert any(committed["meta"]["command"] in mark for mark in seen["marks"])
    assert seen["scroll"] <= 390 and seen["requests"] == []


def test_the_page_links_to_the_other_results_where_it_is_told_their_address(tmp_path: Path):
    explorer.main(tmp_path / "a.html", results="../results.html")
    explorer.main(tmp_path / "b.html")
    link = '<a href="../results.html">'
    assert [link in (tmp_path / f"{name}.html").read_text("utf-8") for name in "ab"] == [
        True,
        False,
    ]


def test_every_committed_seed_can_be_explored():
    rows, sources = explorer.rows()
    assert {"attention-vs-recurrence-hold", "demo: parity", "lag-horizon"} <= {
        row["task"] for row in rows
    }
    assert all(
        row.keys() - {"task", "arm", "seed", "times"} <= explorer.AXES.keys() for row in rows
    )
    assert all(sources[f"{row['task']}|{row['arm']}"]["commit"] for row in rows)
