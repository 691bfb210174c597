"""A headless Chromium driven over a pipe by the DevTools protocol: many pages, one browser.

`browser.py` opens one page for each process. Here one process opens any number of pages at any
width, in light or dark, and says what the console printed and which addresses were asked for.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tests.helpers.browser import FLAGS, chromium

__all__ = ["Page", "open_page"]

Scheme = Literal["light", "dark"]


class Page:
    """One tab of a browser.

    Attributes:
        problems: what went wrong since the last `visit`: exceptions, errors in the console, files
            that could not be loaded.
        requests: addresses asked for since the last `visit`.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self._loaded: set[str] = set()
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        message = {"id": next(self._ids), "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(30)
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def visit(self, url: str, width: int, height: int = 900, scheme: Scheme = "light") -> None:
        """Opens an address in a window of that size in CSS pixels, and waits until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        # An address with another anchor alone would not be loaded.
        self._load("about:blank")
        self.problems, self.requests = [], []
        self._load(url)
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def _load(self, url: str) -> None:
        # The event of this page, and not of one that was loading before.
        page = self.call("Page.navigate", url=url)["loaderId"]
        end = time.monotonic() + 60
        while page not in self._loaded:
            assert time.monotonic() < end, f"{url} was not loaded within a minute"
            self._receive(60)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, image: Path) -> None:
        """Saves what the window shows."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        image.write_bytes(base64.b64decode(data))

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next message; what an event says is kept."""
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], seconds)[0], "the browser does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        first, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(first)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Page.lifecycleEvent" and about["name"] == "load":
            self._loaded.add(about["loaderId"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Network.loadingFailed":
            self.problems.append(f"not loaded: {about['errorText']}")
        elif event == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.problems.append(details.get("exception", details).get("description", str(details)))
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.problems.append(f"console: {about['args']}")
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.problems.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")


@contextlib.contextmanager
def open_page() -> Iterator[Page]:
    """A tab of a browser with a new, empty profile, which ends with the context."""
    # The browser reads from its file 3 and writes to its file 4.
    to_read, to_browser = os.pipe()
    from_browser, to_write = os.pipe()
    start = 'exec 3<&"$0" 4>&"$1" && shift && exec "$@"'
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        process = subprocess.Popen(
            ["bash", "-c", start, str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        try:
            yield Page(to_browser, from_browser)
        finally:
            os.close(to_browser)  # its end of the pipe closed, the browser ends
            os.close(from_browser)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
