"""A browser in hand: Chromium over its DevTools pipe, for tests that press keys, change size or colours, and see requests."""

import base64
import fcntl
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
DEADLINE_S = 60.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
CONTROL = 2  # of `modifiers`


class Browser:
    """One headless Chromium with one page. Commands and events are JSON between NUL bytes, on its descriptors 3 and 4."""

    def __init__(self, program: str, flags: Sequence[str], folder: Path) -> None:
        theirs, self._write = _pipe()
        self._read, answers = _pipe()
        sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
        command = [program, *flags, *sandbox, "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        pipes = f'exec "$@" 3<&{theirs} 4>&{answers} {theirs}<&- {answers}>&-'  # bash: descriptors of two digits
        self._process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command], pass_fds=(theirs, answers), stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(answers)
        self._numbers, self._rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        self._session = ""
        pages = self.until(lambda: [each for each in self._targets() if each["type"] == "page"], "a page")
        target = pages[0]["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.ask(f"{domain}.enable")

    def _targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("Target.getTargets")["targetInfos"]
        return found

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers; events that come meanwhile are kept."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": parameters} | session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next())["id"] != number:
            pass
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        """The next answer."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
                assert ready, "the browser does not answer"
                piece = os.read(self._read, 1 << 20)
                assert piece, "the browser has ended"
                self._rest += piece
            message, _, self._rest = self._rest.partition(b"\0")
            told: dict[str, Any] = json.loads(message)
            if "id" in told:
                return told
            self.events.append(told)

    def open(self, url: str, width: int = 1200, height: int = 1700, *, scheme: str = "light") -> None:
        """A page in a window of that size, on a phone below 600 pixels, in light or dark colours."""
        is_phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=url)
        self.until(lambda: self.value("Number(document.body?.dataset.shown ?? 0)") >= 1, "the page has shown a status")

    def value(self, expression: str) -> Any:
        """Of JavaScript."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, *, control: bool = False) -> None:
        """Down and up again."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": CONTROL if control else 0}
        text = {"text": "\r"} if key == "Enter" and not control else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **about, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def write(self, text: str) -> None:
        """Into what has the focus."""
        self.ask("Input.insertText", text=text)

    def tree(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader meets, in order."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    def picture(self, path: Path) -> None:
        """The whole page, as PNG."""
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def until(self, claim: Callable[[], T], what: str, timeout_s: float = DEADLINE_S) -> T:
        """What `claim` returns once it is true."""
        deadline = time.monotonic() + timeout_s
        while not (found := claim()):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(0.05)
        return found

    def close(self) -> None:
        """End the process."""
        with suppress(AssertionError, OSError):
            self._session = ""
            self.ask("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        os.close(self._read)
        os.close(self._write)


def _pipe() -> list[int]:
    """Both ends, with numbers above those that the browser asks for."""
    low = os.pipe()
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in low]
    for each in low:
        os.close(each)
    return high
