"""Callers that ask a gateway without a pause while a test changes things, and check every answer against its own request."""

from __future__ import annotations

import threading
from collections import Counter
from http.client import HTTPConnection
from typing import Self

from gateways import Server, ask, call, channel
from waiting import eventually


class Stream:
    """Callers that ask all the time, over gRPC and REST, each checking its answers."""

    def __init__(self, front: Server, timeout: float = 20) -> None:
        self.failures: list[str] = []
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self.since: list[tuple[float, str]] = []
        self._front, self._timeout, self._ending = front, timeout, threading.Event()
        self._threads = [threading.Thread(target=target, args=(n,)) for n in range(3) for target in (self._grpc, self._rest)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 60) -> None:
        """Return once so many more answers have come from both protocols."""
        before = self._by_protocol()

        def enough() -> bool:
            now = self._by_protocol()
            return all(now[protocol] >= before[protocol] + count for protocol in ("grpc", "rest"))

        eventually(f"{count} more answers of each protocol, after {self.answers} {self.failures[-3:]}", enough, 60)

    def _by_protocol(self) -> Counter[str]:
        found = Counter[str]()
        for (protocol, *_), number in dict(self.answers).items():  # a copy: the callers go on
            found[protocol] += number
        return found

    def versions(self) -> set[int]:
        return {version for _, _, version in dict(self.answers)}

    def _grpc(self, number: int) -> None:
        with channel(self._front.grpc) as opened:
            for n in range(1_000_000):
                if self._ending.is_set():
                    return
                answer = ask(opened, f"{number}/{n}", timeout=self._timeout)
                if answer.code == "OK":
                    assert answer.headers["x-model-version"] == str(answer.version)
                    self.answers["grpc", answer.headers["x-track"], answer.version] += 1
                else:
                    self.failures.append(f"gRPC {answer.code}: {answer.details}")

    def _rest(self, number: int) -> None:
        connection = HTTPConnection(self._front.rest, timeout=self._timeout)
        for n in range(1_000_000):
            if self._ending.is_set():
                break
            try:
                status, headers, answer = call(connection, "POST", "/v1/models/m:predict", {"instances": [number, n]})
            except OSError as error:
                self.failures.append(f"REST {error!r}")
                connection.close()
                continue
            if status == 200:
                assert answer["predictions"] == [number, n]
                assert headers["x-model-version"] == str(answer["version"])
                self.answers["rest", headers["x-track"], answer["version"]] += 1
            else:
                self.failures.append(f"REST {status}: {answer}")
        connection.close()
