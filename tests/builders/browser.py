"""A real Chromium that looks at a page which asks for a token: a forwarder on loopback adds it, as a proxy in front of the page would."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "no Chromium: apt-get install chromium"


@contextmanager
def forwarded(url: str, token: str) -> Iterator[str]:
    """An address that shows what `url` shows to the bearer of `token`."""

    class Forwarder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = urllib.request.Request(url + self.path, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=20) as answer:
                body = answer.read()
                self.send_response(answer.status)
                for name in ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options"):
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name that the library has)
            """Nothing: what matters is what the browser shows."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forwarder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look(url: str, *options: str, profile: Path) -> str:
    """What Chromium shows at `url`, as HTML; `options` such as `--screenshot=FILE` are added."""
    assert CHROMIUM is not None
    settings = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    command = [CHROMIUM, *settings, *(options or ["--dump-dom"]), url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout
