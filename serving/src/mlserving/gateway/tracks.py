"""What is in force: the models of the settings, their tracks, and the model servers behind each, kept up to date by name resolution.

New settings are compared with what runs: a track whose address stays keeps its servers and their connections, so changing weights touches
no connection, and a track that is gone finishes what it was asked. A track that has moved is answered by where it was until somebody answers where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import structlog

from mlserving.gateway.endpoints import Address, Endpoint, Served
from mlserving.gateway.settings import Backend, GatewaySettings, Model, Track

RESOLVE_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
"""How long the servers that a track had answer for it while those that it has now do not."""

_log = structlog.get_logger()


class TrackInForce:
    """One track's servers."""

    def __init__(self, model: str, track: Track, backend: Backend, served: Served, before: TrackInForce | None = None) -> None:
        self.model, self.track, self.backend = model, str(track.value), backend
        self.endpoints: tuple[Endpoint, ...] = ()
        self.in_flight = 0
        self.resolved = False
        self._served = served
        self._turn = 0
        self._before = before
        """What answers for the track until one of its own servers can: no request fails while a promotion takes hold."""
        if before is not None:
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._take_over)
        self._task = asyncio.get_running_loop().create_task(self._keep_resolving())

    def pick(self, tried: tuple[Endpoint, ...]) -> Endpoint | None:
        """The usable server with the fewest requests under way that is not among `tried`; those with equally few take turns."""
        now, endpoints = time.monotonic(), self.endpoints
        if self._before is not None:
            if not any(each.usable(now) for each in endpoints):
                return self._before.pick(tried)
            self._take_over()
        if len(endpoints) == 1:
            only = endpoints[0]
            return only if only.usable(now) and only not in tried else None
        self._turn += 1
        best: Endpoint | None = None
        for step in range(len(endpoints)):
            each = endpoints[(self._turn + step) % len(endpoints)]
            if each.usable(now) and each not in tried and (best is None or each.in_flight < best.in_flight):
                best = each
        return best

    def _take_over(self) -> None:
        if self._before is not None:
            self._before.retire()
            self._before = None

    @property
    def known(self) -> bool:
        """Whether each of its servers has been asked once."""
        return self.resolved and all(each.known for each in self.endpoints)

    def retire(self) -> None:
        """Look for no servers any more, and let those there are finish."""
        self._task.cancel()
        self._take_over()
        for endpoint in self.endpoints:
            endpoint.retire()
        self.endpoints = ()

    async def _keep_resolving(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RESOLVE_SECONDS):
                    self._take(await addresses(self.backend))
            except (OSError, TimeoutError) as error:  # what was found before stays: a name server that is down is no reason to stop
                _log.warning("a name cannot be resolved", model=self.model, track=self.track, backend=self.backend.grpc, error=str(error))
            self.resolved = True
            await asyncio.sleep(RESOLVE_SECONDS)

    def _take(self, found: list[Address]) -> None:
        there = {endpoint.address: endpoint for endpoint in self.endpoints}
        if set(there) == set(found):
            return
        self.endpoints = tuple(there.get(address) or Endpoint(address, self.model, self._served) for address in found)
        for address, endpoint in there.items():
            if address not in found:
                endpoint.retire()


class ModelInForce:
    """A model and its tracks."""

    def __init__(self, name: str, settings: Model) -> None:
        self.name = name
        self.settings = settings
        self.tracks: dict[str, TrackInForce] = {}
        self.weights_changed = 0.0
        """When (seconds since 1970) the weights in force became so."""
        self.shadows = 0
        """Shadow copies under way."""


class Fleet:
    """All models in force."""

    def __init__(self, served: Served) -> None:
        self.models: dict[str, ModelInForce] = {}
        self._served = served

    def apply(self, settings: GatewaySettings) -> None:
        """Make `settings` what is in force."""
        for name in set(self.models) - set(settings.models):
            for track in self.models.pop(name).tracks.values():
                track.retire()
        for name, wanted in settings.models.items():
            model = self.models.get(name)
            if model is None:
                model = self.models[name] = ModelInForce(name, wanted)
            model.settings = wanted
            self._apply_tracks(model, wanted)

    def _apply_tracks(self, model: ModelInForce, wanted: Model) -> None:
        before, now = model.tracks, dict[str, TrackInForce]()
        if {name: track.backend.weight for name, track in before.items()} != {track: each.weight for track, each in wanted.tracks.items()}:
            model.weights_changed = time.time()
        for track, backend in wanted.tracks.items():
            same = before.get(track.value)
            if same is not None and (same.backend.grpc, same.backend.rest) == (backend.grpc, backend.rest):
                same.backend = backend
                now[track.value] = same
            else:
                now[track.value] = TrackInForce(model.name, track, backend, self._served, same)
        model.tracks = now
        for name, old in before.items():
            if name not in now:
                old.retire()

    async def known(self, seconds: float) -> None:
        """Returns once every server has been asked which versions it has, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(track.known for model in self.models.values() for track in model.tracks.values()):  # noqa: ASYNC110  many events, once
                    await asyncio.sleep(0.02)

    def close(self) -> None:
        """Let everything finish and go."""
        for model in self.models.values():
            for track in model.tracks.values():
                track.retire()
        self.models = {}


async def addresses(backend: Backend) -> list[Address]:
    """The servers behind a track's names. Where both names have the same addresses, they are paired by address, otherwise in order.

    Raises:
        OSError: a name cannot be resolved.
    """
    (grpc_host, grpc_port), (rest_host, rest_port) = _parted(backend.grpc), _parted(backend.rest)
    grpc = await resolved(grpc_host)
    rest = grpc if rest_host == grpc_host else await resolved(rest_host)
    if set(grpc) <= set(rest):
        rest = grpc
    return [Address(one, grpc_port, other, rest_port) for one, other in zip(grpc, rest, strict=False)]


async def resolved(host: str) -> list[str]:
    """The addresses of a name.

    Raises:
        OSError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    every = sorted({str(each[4][0]) for each in found})
    if host == "localhost":  # both families are the same server, which may listen on one only
        return [each for each in every if "." in each][:1] or every[:1]
    return every


def _parted(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
