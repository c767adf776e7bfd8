"""How many calls a client may cancel: a pure count that grows with each, and shrinks with answers and time.

A call that is cancelled costs us and the model server as much as any other, and the client next to nothing: HTTP/2's rapid reset, CVE-2023-44487.
Good clients cancel too: hedged requests whose twin was faster, users who went away. They let most of their calls be answered.
"""

from __future__ import annotations

from typing import Final

SECONDS: Final = 30.0
"""In which time alone makes up for as many cancelled calls as are allowed."""


class Resets:
    """Of one connection. Times are monotonic seconds."""

    __slots__ = ("_at", "_count")

    def __init__(self, now: float) -> None:
        self._count, self._at = 0.0, now

    def cancelled(self, now: float, most: int) -> bool:
        """Count one. False where it is more than `most` beyond what answers and time have made up for."""
        self._count = max(self._count - (now - self._at) * most / SECONDS, 0.0) + 1
        self._at = now
        return self._count <= most

    def answered(self) -> None:
        """A call was answered, which makes up for one that was cancelled."""
        if self._count:
            self._count = max(self._count - 1, 0.0)
