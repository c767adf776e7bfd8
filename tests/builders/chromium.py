"""A real Chromium that is driven by keys and clicks, over its DevTools protocol: what a person at a keyboard does and sees.

One browser process, and a window of its own (its own cookies) for each person. Keys are sent to the browser, not to a script on the page, so
shortcuts, focus order, forms and the Content-Security-Policy are the browser's.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from browser import CHROMIUM
from waiting import eventually

_SECONDS = 30.0
_KEYS = {
    "Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, ""), "Backspace": ("Backspace", 8, ""), "Space": (" ", 32, " "),
    "ArrowDown": ("ArrowDown", 40, ""), "ArrowUp": ("ArrowUp", 38, ""),
}  # fmt: skip


class Browser:
    """The process. Windows are opened with `window`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._count = 0
        self.heard: list[dict[str, Any]] = []
        """Events of all windows, as they came."""

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=_SECONDS))
            if answer.get("id") != self._count:
                self.heard.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            result: dict[str, Any] = answer["result"]
            return result

    def window(self, *, width: int = 1200, height: int = 900, scripts: bool = True) -> Window:
        """A window with cookies of its own."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        found = Window(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            found.ask(f"{domain}.enable")
        found.resize(width, height)
        if not scripts:
            found.ask("Emulation.setScriptExecutionDisabled", value=True)
        return found


class Window:
    """What one person looks at."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this window."""
        return self._browser.ask(method, self._session, **parameters)

    def resize(self, width: int, height: int) -> None:
        """As wide as a screen or a phone."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self) -> None:
        """As somebody has it who likes dark pages."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def go(self, url: str) -> None:
        """Type an address, and wait until it is there."""
        answer = self.ask("Page.navigate", url=url)
        assert not answer.get("errorText"), f"{url}: {answer['errorText']}"
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def press(self, key: str) -> None:
        """One key, down and up."""
        name, code, text = _KEYS.get(key, (key, ord(key.upper()[0]), key))
        down = {"key": name, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **down)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def write(self, text: str) -> None:
        """Letter by letter, where the focus is."""
        for letter in text:
            self.press("Space" if letter == " " else letter)

    def evaluate(self, expression: str) -> Any:
        """What an expression is on the page: to look, not to act. It works with scripts of the page switched off, too."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """What an expression is, once it holds; a page that is just going has no expressions."""

        def holds() -> Any:
            try:
                return self.evaluate(expression)
            except RuntimeError:
                return None

        return eventually(expression, holds, _SECONDS)

    def text(self, selector: str = "body") -> str:
        """What a person reads there, once it is there."""
        found: str = self.until(f"document.querySelector({json.dumps(selector)})?.innerText || ''")
        return " ".join(found.split())

    def shows(self, text: str) -> str:
        """All that the page shows, once `text` is among it."""
        self.until(f"document.readyState === 'complete' && document.body.innerText.replace(/\\s+/g, ' ').includes({json.dumps(text)})")
        return self.text()

    def cookies(self) -> list[dict[str, Any]]:
        """All of this window, with their flags."""
        found: list[dict[str, Any]] = self.ask("Network.getCookies")["cookies"]
        return found

    def complaints(self) -> list[str]:
        """What the browser's console complained of: scripts and styles that were refused, errors, dialogs."""
        mine = [event for event in self._browser.heard if event.get("sessionId") == self._session]
        logged = [event["params"]["entry"]["text"] for event in mine if event["method"] == "Log.entryAdded"]
        thrown = [str(event["params"]) for event in mine if event["method"] in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening")]
        return [*logged, *thrown]

    def picture(self, path: Path) -> Path:
        """What it looks like."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=False)["data"]))
        return path


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser, closed at the end."""
    assert CHROMIUM is not None
    settings = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"]
    command = [CHROMIUM, *settings, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            told = profile / "DevToolsActivePort"
            port, path = eventually("Chromium listens", lambda: told.exists() and told.read_text().split(), 60)
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=30) as socket:
                yield Browser(socket)
        finally:
            process.kill()
