"""A headless browser that does what a person would, over its debugging pipe."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# The browser reads commands at descriptor 3 and answers at 4.
_LAUNCHER = (
    "import os, sys; r, w = int(sys.argv[1]), int(sys.argv[2]);"
    "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find():
    """Return the path of a browser, None where none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a headless browser; a context manager.

    Attributes:
      told: errors and warnings of the console, and exceptions, in their order.
      asked: addresses that the page asked for.
    """

    def __init__(self, path, profile, *, timeout=60):
        self.told, self.asked = [], []
        self._timeout, self._number, self._rest = timeout, 0, b""
        command_read, self._write = os.pipe()
        self._read, answer_write = os.pipe()
        # Above 4, so that one does not overwrite the other.
        ends = [
            fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (command_read, answer_write)
        ]
        flags = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-SEc", _LAUNCHER, *map(str, ends), path, *flags],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (command_read, answer_write, *ends):
            os.close(fd)
        self._session = None
        targets = self("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._session = None
            self("Browser.close")
        except (OSError, TimeoutError):
            self._process.kill()
        self._process.wait(self._timeout)
        os.close(self._write)
        os.close(self._read)

    def __call__(self, method, **params):
        """Send a command and return its result; events on the way are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def open(self, file: Path):
        """Load a file, and wait until all of it is there."""
        self("Page.navigate", url=Path(file).absolute().as_uri())
        self.wait(
            "document.readyState === 'complete' && location.href !== 'about:blank'"
        )
        self.settle()

    def run(self, code):
        """Return the value of an expression in the page."""
        found = self("Runtime.evaluate", expression=code, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{code}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, code):
        """Wait until an expression is true."""
        deadline = time.monotonic() + self._timeout
        while not self.run(code):
            if time.monotonic() > deadline:
                raise TimeoutError(code)
            time.sleep(0.05)

    def settle(self):
        """Wait until what has been asked for is drawn."""
        self(
            "Runtime.evaluate",
            expression="new Promise(r => requestAnimationFrame(() => "
            "requestAnimationFrame(() => r(1))))",
            awaitPromise=True,
        )

    def screen(self, width, height, *, is_dark=False, is_phone=False):
        """Take the place of a screen."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )
        scheme = {
            "name": "prefers-color-scheme",
            "value": "dark" if is_dark else "light",
        }
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        self.settle()

    def mouse(self, kind, x, y, **params):
        """Move the mouse, press it, or turn its wheel, in pixels of the window."""
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def touch(self, kind, *points):
        """Put fingers on the screen, move them, or take them off."""
        places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        self("Input.dispatchTouchEvent", type=kind, touchPoints=places)

    def picture(self, path):
        """Write a picture of the whole page."""
        self.settle()
        found = self("Page.captureScreenshot", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def _receive(self):
        deadline = time.monotonic() + self._timeout
        while b"\0" not in self._rest:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise BrokenPipeError("the browser has gone")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.told.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            if params["type"] in ("error", "warning", "assert"):
                self.told.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded":
            self.told.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
