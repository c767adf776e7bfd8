"""Asking a server over plain HTTP, as anybody could."""

from __future__ import annotations

import base64
import contextlib
import urllib.error
import urllib.request
from typing import Any


def ask(url: str, body: bytes | None = None, *, user: str = "", method: str = "GET", **headers: str) -> Any:
    """What it answers; `user` is NAME:PASSWORD."""
    request = urllib.request.Request(url, data=body, method=method)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    request.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def status(url: str, body: bytes | None = None, **options: Any) -> int:
    """The code of its answer; 0 without one."""
    with contextlib.suppress(OSError):
        try:
            ask(url, body, **options)
        except urllib.error.HTTPError as error:
            return error.code
        return 200
    return 0
