"""The steady stream of requests under which `make demo` lets versions come and go: every answer is counted, and not one may fail."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any

from mlpipelines.errors import Unavailable

_ASKERS = 2
CALM, BUSY = 0.05, 0.01
"""Seconds between a request's answer and the next request: while the machine has a model to train, and otherwise."""
_QUIET = 1.0
"""A version that has not answered for so many seconds answers no more."""


class Stream:
    """Requests without an end, over a few connections; what came back, and when each version answered last."""

    def __init__(self, rest: str, model: str, questions: Sequence[Mapping[str, Any]]) -> None:
        self._rest, self._path = rest, f"/v1/models/{model}:predict"
        self._bodies: list[str] = []
        self.turn_to(questions)
        self._over = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failed = 0
        self.pause = CALM
        self.last: dict[str, float] = {}

    def turn_to(self, questions: Sequence[Mapping[str, Any]]) -> None:
        """Ask these from now on."""
        self._bodies = [json.dumps({"instances": [question]}) for question in questions]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Ask for as long as the context lasts."""
        askers = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(_ASKERS)]
        for asker in askers:
            asker.start()
        try:
            yield
        finally:
            self._over.set()
            for asker in askers:
                asker.join()

    def wait_until_gone(self, version: str, seconds: float = 60) -> None:
        """Until `version` has answered nothing for a moment.

        Raises:
            Unavailable: it still does.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() - self.last.get(version, 0.0) < _QUIET:
            if time.monotonic() > deadline:
                raise Unavailable(f"version {version} still answers after {seconds:.0f} s. Look at `millrace rollout status`.")
            time.sleep(0.05)

    def _ask(self, number: int) -> None:
        connection = HTTPConnection(self._rest, timeout=60)
        while not self._over.wait(self.pause):
            try:
                bodies = self._bodies
                connection.request("POST", self._path, bodies[number % len(bodies)])
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException):
                self.failed += 1
                connection.close()
                continue
            number += _ASKERS
            version = answer.getheader("x-model-version", "")
            self.failed += answer.status != 200  # noqa: PLR2004  HTTP's OK
            self.answers[version] += 1
            self.last[version] = time.monotonic()
        connection.close()
