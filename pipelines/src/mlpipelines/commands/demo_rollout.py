"""The second half of `make demo`: a second version takes over under a steady stream of requests, and is taken back.

The commands are those that a person types. The stream is kept up by this process, which counts every answer: not one may fail.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any

from mlpipelines.commands import screen
from mlpipelines.errors import Unavailable

_ASKERS = 2
_PAUSE = 0.01
"""Seconds between a request's answer and the next request."""
_QUIET = 1.0
"""A version that has not answered for so many seconds answers no more."""


class Stream:
    """Requests without an end, over a few connections; what came back, and when each version answered last."""

    def __init__(self, rest: str, model: str, questions: Sequence[Mapping[str, Any]]) -> None:
        self._rest, self._path = rest, f"/v1/models/{model}:predict"
        self._bodies = [json.dumps({"instances": [question]}) for question in questions]
        self._over = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failed = 0
        self.last: dict[str, float] = {}

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
        while not self._over.wait(_PAUSE):
            try:
                connection.request("POST", self._path, self._bodies[number % len(self._bodies)])
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


def show(millrace: Sequence[str], project: Sequence[str], model: str, workspace: str, stream: Stream) -> Mapping[str, str]:
    """Canary, promotion and rollback, by the commands. Returns what to tell of it.

    Raises:
        Unavailable: a command failed.
    """
    where = ["--workspace", workspace]
    with stream.flowing():
        _type(millrace, "start", *project, "--reason", "make demo", *where)
        _type(millrace, "run", model, *where)
        state = json.loads(_type(millrace, "status", model, "--json", *where, quiet=True))["rollout"]
        new = str(state["to_version"])
        began = time.monotonic()
        _type(millrace, "rollback", model, "--reason", "make demo shows it", *where)
        stream.wait_until_gone(new)
        took = stream.last[new] - began
    counted = ", ".join(f"{count:,} by version {version}" for version, count in sorted(stream.answers.items()))
    return {
        "under a steady stream": f"canary {' → '.join(f'{share:g}' for share in state['plan']['steps'])} %, promotion, rollback",
        "requests": f"{sum(stream.answers.values()) + stream.failed:,}: {counted}",
        "failed": f"{stream.failed}",
        "rollback": f"the last request answered by version {new} came {took:.1f} s after the command was typed",
    }


def _type(millrace: Sequence[str], verb: str, *words: str, quiet: bool = False) -> str:
    command = [*millrace, "rollout", verb, *words]
    if not quiet:
        screen.console().print(f"\n$ millrace rollout {verb} {' '.join(words)}", style="bold", soft_wrap=True)
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if not quiet:
                screen.console().print(line.rstrip(), soft_wrap=True, markup=False)
    if process.returncode != 0:
        raise Unavailable(f"`millrace rollout {verb}` failed:\n{said}")
    return said
