"""Opens pages in a headless Chromium, which is spoken to over pipes: no port, no other package.

    with open_page(path, width=390, dark=True) as page:
        assert page.evaluate("document.title") == "Run abc"

Commands are those of the Chrome DevTools Protocol.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

__all__ = ["Page", "find_browser", "open_page"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


MOST_FRAMES, STILL_FRAMES = 3000, 10
"""The frames in which a condition has to come true, and those without a movement before a click."""


def find_browser() -> str:
    """Return the path of a browser, or skip the test."""
    named = os.environ.get("HANSE_BROWSER")
    found = next((path for name in (named, *NAMES) if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed; $HANSE_BROWSER may name one")
    return found


class Page:
    """A page in a browser.

    Args:
      said: what it wrote to the console as a warning or an error, and its exceptions.
      asked: the addresses that it has asked for.
    """

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive, self._buffer = send, receive, b""
        self._last, self._session = 0, ""
        self.said: list[str] = []
        self.asked: list[str] = []

    def do(self, method: str, **about: Any) -> Any:
        """Sends a command and returns its answer; notes what the page says until then."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": about}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._next()
            if heard.get("id") == self._last:
                assert "error" not in heard, f"{method}: {heard['error']}"
                return heard["result"]

    def wait_for(self, method: str) -> None:
        """Waits for an event."""
        while self._next().get("method") != method:
            pass

    def evaluate(self, code: str) -> Any:
        """Evaluates JavaScript in the page; a promise is awaited."""
        done = self.do("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def visit(self, path: Path) -> None:
        """Loads a file, and waits until its charts are drawn."""
        self.do("Page.navigate", url=path.absolute().as_uri())
        self.wait_for("Page.loadEventFired")
        self.wait_until("document.querySelectorAll('.chart').length === " + CHARTS + ".length")

    def wait_until(self, condition: str) -> None:
        """Waits until a condition in JavaScript holds; it fails after so many frames without."""
        next_frame = f"left-- ? requestAnimationFrame(look) : fail(Error({json.dumps(condition)}))"
        ready = f"() => ({condition}) ? done(true) : {next_frame}"
        self.evaluate(
            f"new Promise((done, fail) => {{ let left = {MOST_FRAMES}; const look = {ready}; look(); }})"
        )

    def click(self, selector: str, number: int = 0) -> None:
        """Presses the middle of an element with the mouse, once the page has stopped to move."""
        element = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        self.evaluate("still = 0, place = null")
        self.wait_until(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            "const b = e.getBoundingClientRect(), now = [b.x + b.width / 2, b.y + b.height / 2];"
            "still = String(now) === String(place) ? still + 1 : 0; place = now;"
            f"return still >= {STILL_FRAMES} && e.contains(document.elementFromPoint(...now)); }})()"
        )
        x, y = self.evaluate("place")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def show(self, *, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Sets the size of the window, the reader's scheme of colours, and perhaps the medium `print`."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.wait_until(f"[...{CHARTS}].every(e => e.clientWidth <= e.closest('.chart').clientWidth + 1)")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def photograph(self, path: Path) -> None:
        """Writes an image of the whole page."""
        taken = self.do("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(taken["data"]))

    def find_overflow(self) -> list[str]:
        """Returns the elements that stick out of the window, if it can be scrolled sideways."""
        return list(self.evaluate(OVERFLOW))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._receive, 1 << 20)
            assert more, "the browser has gone"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        heard: dict[str, Any] = json.loads(line)
        about = heard.get("params", {})
        if heard.get("method") == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif heard.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(about["exceptionDetails"]))
        elif heard.get("method") == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.said.append(str(about["args"]))
        elif heard.get("method") == "Log.entryAdded":
            self.said.append(str(about["entry"]))
        return heard


CHARTS = "document.querySelectorAll('.chart svg')"

OVERFLOW = """(() => {
  const root = document.scrollingElement;
  if (root.scrollWidth <= innerWidth) return [];
  return [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + "." + e.className).slice(0, 10);
})()"""


@contextmanager
def open_page(path: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """Opens a file in a browser that ends with the block."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    program = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'  # the browser reads from 3 and writes to 4
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            ["bash", "-c", program, "browser", str(command_read), str(answer_write), find_browser(), *FLAGS,
             f"--user-data-dir={profile}"],
            pass_fds=(command_read, answer_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(command_read)
        os.close(answer_write)
        try:
            page = Page(command_write, answer_read)
            target = page.do("Target.createTarget", url="about:blank")["targetId"]
            page._session = page.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.do(f"{domain}.enable")
            page.show(width=width, dark=dark)
            page.visit(path)
            yield page
            page._session = ""
            page.do("Browser.close")
        finally:
            os.close(command_write)
            os.close(answer_read)
            try:
                browser.wait(20)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
