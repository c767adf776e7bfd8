"""One model server: its connections, the version that it serves, and whether it is worth asking.

A server is asked each second which versions of the model are AVAILABLE, and at once after a failure. One that cannot be reached is set aside,
longer each time, until it answers again. `tracks` says which servers there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlserving.gateway.frames import literal
from mlserving.gateway.grpc_backend import GrpcPool
from mlserving.gateway.rest_backend import RestPool

PROBE_SECONDS = 1.0
PROBE_TIMEOUT = 2.0
_PATIENCE = 2  # probes in a row that may time out before a server counts as gone: one may be busy
_FIRST_ASIDE, _LONGEST_ASIDE = 0.1, 5.0


Served = Callable[["Endpoint", tuple[int, ...]], Awaitable[None]]
"""Told of a server and its AVAILABLE versions when a new one is among them, before any request is sent to it."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a model server listens."""

    host: str
    grpc_port: int
    rest_host: str
    rest_port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.grpc_port}" if ":" in self.host else f"{self.host}:{self.grpc_port}"


class Endpoint:
    """A model server, as the gateway sees it."""

    def __init__(self, address: Address, model: str, served: Served) -> None:
        self.address = address
        self.model = model
        self.versions: tuple[int, ...] = ()
        """AVAILABLE ones, ascending."""
        self.version = 0
        """The newest of them, which answers where no version is named; 0 for none."""
        self.in_flight = 0
        self.retired = False
        self.known = False
        """Whether a first question about versions has been answered, or has failed."""
        self.authority = literal(b":authority", str(address).encode())
        rest_host = f"[{address.rest_host}]" if ":" in address.rest_host else address.rest_host
        self.rest_authority = f"{rest_host}:{address.rest_port}".encode()
        self.grpc = GrpcPool(self, address.host, address.grpc_port)
        self.rest = RestPool(self, address.rest_host, address.rest_port)
        self._questions = RestPool(self, address.rest_host, address.rest_port)  # of their own: they do not queue behind requests
        self._served = served
        self.why = ""
        """Why it could not be reached last."""
        self._failures = 0
        self._aside_until = 0.0
        self._aside = 0.0
        self._wake = asyncio.Event()
        self._silent = 0
        self._fresh: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._keep_asking())

    def usable(self, now: float) -> bool:
        """Whether a request may be sent here. `now` is monotonic."""
        return self.version > 0 and now >= self._aside_until

    @property
    def up(self) -> bool:
        """Whether it is usable now."""
        return self.usable(time.monotonic())

    def unreachable(self, why: str) -> None:
        """No connection could be made: leave it alone for a while. (`why` is for whoever debugs.)"""
        self.why = why
        self._aside = min(max(self._aside * 2, _FIRST_ASIDE), _LONGEST_ASIDE)
        self._aside_until = time.monotonic() + self._aside * (0.75 + random.random() / 2)  # noqa: S311  spreads replicas
        self.ask_now()

    def connection_lost(self) -> None:
        """A connection ended: the server may be gone."""
        self.ask_now()

    def overdue(self) -> None:
        """A call had no answer in time: the server may hang."""
        self.grpc.ask_for_life()
        self.ask_now()

    def ask_now(self) -> None:
        """Ask for the versions without waiting for the next second."""
        self._wake.set()

    async def refreshed(self) -> None:
        """Returns once the versions have been asked for anew."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fresh.append(future)
        self.ask_now()
        await future

    def retire(self) -> None:
        """Take no new calls; connections go when their last answer has come."""
        self.retired = True
        self._task.cancel()
        self.grpc.close()
        self.rest.close()
        self._questions.close()

    async def _keep_asking(self) -> None:
        while True:
            waiting, self._fresh = self._fresh, []
            self._wake.clear()
            await self._ask()
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), PROBE_SECONDS * (0.9 + random.random() / 5))  # noqa: S311  spreads replicas
            await asyncio.sleep(
                min(0.02 * 2**self._failures, PROBE_SECONDS) if self._failures else 0
            )  # a crowd of failures is one question

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                status, body = await self._questions.get(f"/v1/models/{self.model}")
            versions = available(body) if status == 200 else ()  # noqa: PLR2004  HTTP's OK
            self._failures = self._silent = 0
            if versions:
                self._aside = self._aside_until = 0.0
        except TimeoutError:
            self._failures += 1
            self._silent += 1
            versions = self.versions if self._silent < _PATIENCE else ()
        except (OSError, ValueError):
            self._failures += 1
            versions = ()
        if set(versions) - set(self.versions):
            await self._served(self, versions)
        self.versions, self.version, self.known = versions, versions[-1] if versions else 0, True

    async def metadata(self, version: int) -> bytes:
        """What the server says of a version: the body of its answer to GET …/metadata.

        Raises:
            OSError: it does not say so within two seconds.
        """
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                status, body = await self._questions.get(f"/v1/models/{self.model}/versions/{version}/metadata")
        except ValueError as error:
            raise OSError(f"no HTTP: {error}") from error
        if status != 200:  # noqa: PLR2004  HTTP's OK
            raise OSError(f"the metadata of version {version} were answered {status}")
        return body


def available(status: bytes) -> tuple[int, ...]:
    """The AVAILABLE versions in an answer to GET /v1/models/M, ascending.

    Raises:
        ValueError: the bytes are no such answer.
    """
    try:
        states = json.loads(status)["model_version_status"]
        return tuple(sorted(int(each["version"]) for each in states if each["state"] == "AVAILABLE"))
    except (KeyError, TypeError) as error:
        raise ValueError("no model_version_status") from error
