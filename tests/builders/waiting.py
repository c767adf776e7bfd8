"""Tests wait for what other processes and threads bring about: they look again and again, and say what did not come about in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")


def eventually(what: str, look: Callable[[], T | Literal[False] | None], seconds: float = 60.0, *, every: float = 0.05) -> T:
    """What `look` returns, once that is true: asked at once, and then with `every` seconds in between.

    Raises AssertionError naming `what`, the seconds and the last answer, if it was not true in `seconds`; and at once whatever `look` raises.
    """
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; the last answer was {answer!r}"
        time.sleep(every)
    return answer
