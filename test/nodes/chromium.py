"""Headless Chromium for tests of pages, over the Chrome DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
DEADLINE_S = 90.0


def executable() -> str | None:
    """Return the browser's path, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab.

    Args:
        url: of its DevTools socket.
    """

    def __init__(self, url: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(url, max_size=None, open_timeout=DEADLINE_S)
        self._number = 0

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        self._socket.send(json.dumps(message))
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        """Open a page."""
        self.call("Page.enable")
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def text(self) -> str:
        """Return all text that the page shows."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def wait_for_text(self, *wanted: str) -> str:
        """Return the page's text once it has these."""
        deadline = time.monotonic() + DEADLINE_S
        while not all(each in (text := self.text()) for each in wanted):
            assert time.monotonic() < deadline, f"no {wanted} in:\n{text}"
            time.sleep(0.3)
        return text

    def screenshot(self, path: Path, **clip: float) -> None:
        """Write a PNG of the page, or of x, y, width, height of it."""
        options = {"clip": {**clip, "scale": 1}} if clip else {}
        found = self.call("Page.captureScreenshot", format="png", **options)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Leave the tab."""
        self._socket.close()


@contextlib.contextmanager
def running_browser(folder: Path, width: int = 1600, height: int = 900) -> Iterator[Browser]:
    """Run a browser whose profile is in `folder`; SIGTERM and join in the end."""
    command = [str(executable()), *OPTIONS, f"--window-size={width},{height}"]
    command += [f"--user-data-dir={folder / 'profile'}", "about:blank"]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        browser = Browser(_tab(folder / "profile" / "DevToolsActivePort"))
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        try:
            yield browser
        finally:
            browser.close()
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tab(port_file: Path) -> str:
    """Return the socket's address of the first tab, once there is one."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, IndexError):
            port = int(port_file.read_text().split()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10.0) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.2)
    raise AssertionError("the browser did not start")
