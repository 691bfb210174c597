"""A headless Chromium, for the tests that must see a page as a reader does."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def chromium() -> str:
    """Path of the browser; a machine without one cannot check the report, and says so."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise AssertionError(
        "the report is tested in a real browser, and there is none: run `.ci/run`, or install it "
        "with `apt-get update && apt-get install -y chromium`"
    )


def run(page: Path, *options: str, seconds: float = 60) -> str:
    """Opens a page in a browser with a new, empty profile and returns what it prints."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(page: Path, image: Path, width: int, height: int) -> None:
    """Saves what a window of that size shows, in CSS pixels."""
    framed = frame(page, width, height)
    run(framed, f"--screenshot={image}", f"--window-size={max(width, 500)},{height}")


def evaluate(page: Path, expression: str, width: int, height: int = 900) -> Any:
    """The value of a JavaScript expression, awaited, in a page that is `width` CSS pixels wide."""
    script = (
        "<script>addEventListener('load', async () => parent.postMessage("
        f"JSON.stringify(await {expression}), '*'))</script>"
    )
    dom = run(frame(page, width, height, script), "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r'<output id="value">(.*?)</output>', dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found[1]))


def frame(page: Path, width: int, height: int, script: str = "") -> Path:
    """A copy of the page in a frame of that width, since a window cannot be as narrow as a phone.

    The copy and the page around it lie beside the original.
    """
    copy = page.with_name(f"{page.stem}.copy.html")
    copy.write_text(page.read_text(encoding="utf-8") + script, encoding="utf-8")
    around = page.with_name(f"{page.stem}.{width}.html")
    around.write_text(
        '<!doctype html><meta charset="utf-8"><style>body { margin: 0 }</style>'
        '<output id="value"></output><script>addEventListener("message", event => '
        'document.getElementById("value").textContent = event.data)</script>'
        f'<iframe src="{copy.name}" style="width: {width}px; height: {height}px; border: 0">'
        "</iframe>",
        encoding="utf-8",
    )
    return around
