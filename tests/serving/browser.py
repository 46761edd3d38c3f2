"""A page in chromium that a test can use: the DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pictures import OPTIONS, browser


class Page:
    """One tab."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.rest, self.receive = send, b"", receive
        self.number, self.session = 0, ""
        self.said: list[str] = []  # errors of the console, of scripts and of the policy
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
            entry = answer.get("params", {})
            if answer.get("method") == "Runtime.exceptionThrown":
                self.said.append(str(entry["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and entry["entry"]["level"] == "error":
                self.said.append(str(entry["entry"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            self.rest += os.read(self.receive, 1 << 20)
        message, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, url: str, width: int, dark: bool) -> None:
        """Show ``url`` in a window of this width, in one colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, (script, self.said, self.run("document.body.innerText"))
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A tab of a browser that ends with the block."""
    there, back = os.pipe(), os.pipe()
    command = [str(browser()), *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]

    def connect() -> None:  # the browser reads at 3 and writes at 4
        os.dup2(there[0], 60)
        os.dup2(back[1], 61)
        os.dup2(60, 3)
        os.dup2(61, 4)

    process = subprocess.Popen(
        command, preexec_fn=connect, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        os.close(there[0])
        os.close(back[1])
        yield Page(there[1], back[0])
    finally:
        process.kill()
        process.wait()
        os.close(there[1])
        os.close(back[0])
