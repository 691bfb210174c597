"""The site: what it is made of, and a build of it that is opened page by page in a browser."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from sphinx.util.inventory import InventoryFile

import longlag
from tests.helpers import site_check
from tests.helpers.devtools import open_page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module", autouse=True)
def extensions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "extensions"))
        yield


def test_every_public_name_is_on_one_page_of_the_reference():
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")]
    groups = re.findall(r"^```\{group\} (.+)$", "\n".join(pages), re.MULTILINE)
    modules = re.findall(r"^```\{exports\} (.+)$", "\n".join(pages), re.MULTILINE)
    assert sorted(groups) == sorted(longlag.GROUPS)
    shown = {name for names in longlag.GROUPS.values() for name in names}
    shown |= {name for module in modules for name in importlib.import_module(module).__all__}
    for room in ("attention", "models", "nn", "tasks", "cells", "training", "runs", "report"):
        assert set(importlib.import_module(f"longlag.{room}").__all__) <= shown, room


def test_a_docstring_is_read_as_plain_text_with_backticks():
    from site_docstrings import to_restructuredtext

    docstring = """A cell with |λ| = exp(-ν*) and `*steps` of h_.

    h' = |λ| ⊙ h       * no list

The paragraph `a_` after it.

Attributes:
    features: H.
    other: the *first*.

        y = |x|
"""
    made = to_restructuredtext(docstring.split("\n"))
    assert made[2:5] == ["::", "", "    h' = |λ| ⊙ h       * no list"]
    assert r"    features: H\." in made
    assert r"    other: the \*first\*." in made
    # The section is napoleon's to read. What stands before it must be without a fault.
    text = "\n".join(made[: made.index("Attributes:")])
    document = publish_doctree(text, settings_overrides={"report_level": 1, "halt_level": 2})
    assert document[0].astext() == "A cell with |λ| = exp(-ν*) and *steps of h_."
    assert document[1].astext() == "h' = |λ| ⊙ h       * no list"
    assert document[2].astext() == "The paragraph a_ after it."


def test_links_lead_to_the_page_that_includes_a_file():
    from site_links import PAGES, rewrite

    made = rewrite("[a](../CONTRIBUTING.md#rules) `[b](../README.md)` [c](https://x.org)", DOCS)
    assert made == "[a](/how-to/extend.md#rules) `[b](../README.md)` [c](https://x.org)"
    assert rewrite("[a](docs/cells.md) [b](src) [c](gone.md)", ROOT) == (
        "[a](/cells.md) b [c](gone.md)"
    )
    assert rewrite("![a](experiments/results/demo/lag.png)", ROOT) == (
        "![a](/../experiments/results/demo/lag.png)"
    )
    for file, page in PAGES.items():
        assert (ROOT / file).is_file() and (DOCS / f"{page}.md").is_file(), page


def test_the_best_arm_has_the_most_seeds_then_the_farther_reach_then_the_smaller_state():
    from site_tables import NEEDS, best_arms

    def rows(arm, kind, near, far, state):
        shared = {"arm": arm, "kind": kind, "train_lag": 8, "state_bytes": state}
        return [
            {**shared, "seed": seed, "lag": lag, "accuracy": accuracy}
            for lag, each in ((8, near), (32, far))
            for seed, accuracy in enumerate(each)
        ]

    made_up = [
        *rows("feed-forward", "dense", [1, 1], [1, 1], 0),
        *rows("far", "dense", [1, 0.5], [1, 1], 8),
        *rows("small", "linear", [1, 1], [0.4, 0.6], 16),
        *rows("large", "matrix", [1, 1], [0.4, 0.6], 3200),
        *rows("hybrid", "dense + attention", [1, 0.96], [0.2, 0.3], 1600),
        *rows("attention only", "attention", [0.5, 0.5], [0.1, 0.1], 99),
    ]
    results = {name: {"rows": made_up, "threshold": 0.95} for name in NEEDS}
    of_one = best_arms(results)[:3]
    assert [row[1:] for row in of_one] == [
        ("recurrence", "small", "2 of 2", "0.50", "16 B"),
        ("recurrence + attention", "hybrid", "2 of 2", "0.25", "1,600 B"),
        ("attention only", "attention only", "0 of 2", "0.10", "99 B"),
    ]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    one.write_text("")
    other.write_text('<h1 id="there">')
    links = ["other.html#there", "#here", "https://x.org/a?b#c", "mailto:a@b.org", "one.html"]
    assert not list(site_check.broken_links({one: (links, ["here"])}, tmp_path))
    bad = ["other.html#gone", "#gone", "gone.html", "https://", "/etc/hostname"]
    faults = list(site_check.broken_links({one: (bad, ["here"])}, tmp_path))
    assert len(faults) == len(bad) and all(link in f for link, f in zip(bad, faults, strict=True))


@pytest.mark.deep
def test_the_site_is_built_without_a_warning_and_every_page_is_whole(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html"]
    options = ["-D", f"nb_execution_cache_path={ROOT / 'build' / 'notebooks'}"]
    done = subprocess.run(
        [*command, *options, str(DOCS), str(site)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    described = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    names = {name for objects in described.data.values() for name in objects}
    promised = {name for group in longlag.GROUPS.values() for name in group}
    assert {f"longlag.{name}" for name in promised} <= names
    for module in ("models", "training", "runs", "report"):
        exported = set(importlib.import_module(f"longlag.{module}").__all__) - promised
        assert {f"longlag.{module}.{name}" for name in exported} <= names
    files = site_check.pages_of(site)
    assert len(files) > 30
    with open_page() as page:
        faults = list(site_check.check_site(page, site.resolve(), files, None))
    assert not faults, "\n".join(faults)


@pytest.mark.deep
def test_the_reference_compiles_nothing(tmp_path):
    program = """
import sys
import jax
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if "compile" in event else None
)
from sphinx.cmd.build import main
code = main(["-q", "-E", "-b", "html", "-D", "nb_execution_mode=off", *sys.argv[1:]])
assert code == 0 and not compiled, (code, compiled[:5])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(DOCS), str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.deep
def test_a_page_with_every_fault_is_found_out(tmp_path):
    (tmp_path / "bad.html").write_text(
        '<!doctype html><body><article><p style="width: 2000px">wide</p></article>'
        '<img src="gone.png"><a href="gone.html">gone</a>'
        '<script>console.error("oh"); undefined_name()</script>'
    )
    with open_page() as page:
        files = [tmp_path / "bad.html"]
        faults = "\n".join(site_check.check_site(page, tmp_path.resolve(), files, None))
    for part in ("2000", "no picture", "no file for gone.html", "console", "undefined_name"):
        assert part in faults, (part, faults)
