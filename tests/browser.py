"""Headless Chromium for tests of pages: what a user would do, and what the page says.

The devtools come over a pair of pipes, which a hundred lines can speak. Selenium or Playwright would need a driver of
the browser's very version, or bring a browser of their own, for no more than keys, clicks and values.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["Browser", "find_chromium"]

KEYS = {"Home": 36, "End": 35, "PageUp": 33, "PageDown": 34, "ArrowLeft": 37, "ArrowRight": 39, "Delete": 46, "Tab": 9}


def find_chromium() -> str | None:
    """Path of the browser, None where there is none."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return next((path for path in found if path), None)


class Browser:
    """Headless Chromium, driven through its devtools over a pair of pipes: no port, no driver, no network."""

    def __init__(self, binary: str, profile: Path) -> None:
        answers, there_writes = os.pipe()
        there_reads, commands = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        # Chromium reads commands from descriptor 3 and writes answers to 4
        plumbing = f'exec "$0" "$@" 3<&{there_reads} 4>&{there_writes}'
        self.process = subprocess.Popen(
            ["bash", "-c", plumbing, binary, *options],
            pass_fds=(there_reads, there_writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for descriptor in (there_reads, there_writes):
            os.close(descriptor)
        self.answers, self.commands = answers, commands
        self.events: list[dict[str, Any]] = []
        self.unread = b""
        self.number = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            chunk = os.read(self.answers, 1 << 16)
            if not chunk:
                raise ConnectionError("the browser is gone")
            self.unread += chunk
        message, self.unread = self.unread.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if not method.startswith("Target.") and method != "Browser.close":
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path, *, width: int, dark: bool = False, media: str = "screen") -> None:
        """Open a file in a window of this width; `events` are those since then."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; a promise's is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        """Press a key as a user would: the browser's own events, on whatever has the focus."""
        for kind in ("rawKeyDown", "keyUp") * times:
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def type(self, text: str) -> None:
        """Type a text over what is selected."""
        self.call("Input.insertText", text=text)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse with its left button down."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def click(self, x: float, y: float) -> None:
        """Click."""
        self.drag((x, y), (x, y))

    def complaints(self) -> list[str]:
        """What the console says, and what was asked of the network."""
        said = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        found = [str(e["params"]) for e in self.events if e["method"] in said]
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return found + [url[:200] for url in asked if not url.startswith(("data:", "file:///"))]

    def close(self) -> None:
        for descriptor in (self.commands, self.answers):
            os.close(descriptor)
        self.process.terminate()
        self.process.wait(timeout=30)
