"""What happens to a request between its arrival and its answer: who is asked, who is asked instead, when it is given up, what is kept.

Every step is a callback of the event loop, and every request ends in exactly one of `answered`, `failed`, `expired` and `cancelled`.
Requests are repeated only where nobody can be answered twice: when the server cannot have looked at the first, or, once, when
the method changes nothing (`calls.REPEATABLE`) and the connection was lost. A deadline that passed is never repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Literal, Protocol

from mlserving.gateway import calls, routing
from mlserving.gateway.calls import ABOUT, PURE, REPEATABLE, Answer, Call, Refusal, fresh_id
from mlserving.gateway.metrics import Metrics
from mlserving.gateway.model_spec import Malformed
from mlserving.gateway.settings import GatewaySettings, Limits, Track
from mlserving.gateway.timing import Wheel
from mlserving.gateway.tracks import Fleet, ModelInForce
from mlserving.predictions.exchange import Exchange

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint

_MIB = 2**20
_ATTEMPTS = 4
SHADOWS = 64
"""Shadow copies of a model under way at a time; more are dropped."""
_STABLE, _CANARY, _SHADOW = Track.STABLE.value, Track.CANARY.value, Track.SHADOW.value


class Connection(Protocol):
    """A client's connection, of either protocol."""

    def leave(self) -> None:
        """Finish what is under way, take nothing new, close."""


class Log(Protocol):
    """Where exchanges go that the sampling chose (`predictions.spool`)."""

    def append(self, exchange: Exchange) -> bool:
        """Keep one. False where it was dropped."""


StoreLabels = Callable[[bytes], Awaitable[tuple[int, bytes]]]
"""Takes the body of POST /v1/labels; gives the HTTP status and the JSON to answer with."""


class Budget:
    """Bytes of requests and answers in memory."""

    __slots__ = ("most", "used")

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0

    def take(self, size: int) -> bool:
        """Count `size` more. False where that is too much; they are counted all the same, until given back."""
        self.used += size
        return self.used <= self.most

    def give(self, size: int) -> None:
        """They are gone."""
        self.used -= size


class Relay:
    """The decisions, over what is in force."""

    def __init__(self, settings: GatewaySettings, fleet: Fleet, metrics: Metrics, log: Log | None, labels: StoreLabels) -> None:
        self.labels = labels
        self.fleet, self.metrics, self.log = fleet, metrics, log
        self.budget = Budget(0)
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.leaving = False
        """Whether callers are told to go elsewhere; what they ask is still answered."""
        self.most_body = 0
        self.limits = Limits()
        self._wheel = Wheel()
        self._tasks: set[asyncio.Task[None]] = set()
        self.apply(settings)

    def apply(self, settings: GatewaySettings) -> None:
        """Decide by `settings` from now on."""
        self.limits = settings.limits
        self.budget.most = int(settings.limits.buffered_mb * _MIB)
        self.most_body = int(settings.limits.body_mb * _MIB)
        self.fleet.apply(settings)

    def admit(self, connection: Connection, protocol: Literal["grpc", "rest"]) -> bool:
        """Count a client's connection in. False where there are too many."""
        if len(self.connections) >= self.limits.connections:
            self.metrics.cut_off(protocol, "connections")
            return False
        self.connections.add(connection)
        return True

    # -- the way of a request ---------------------------------------------------------------------------------------------

    def start(self, call: Call, timeout: float | None) -> None:
        """A request is whole. `timeout` is the caller's, in seconds."""
        call.time_us = time.time_ns() // 1000
        if not call.prediction_id:
            call.prediction_id = fresh_id()
        model = self.fleet.models.get(call.spec.name)
        if self.in_flight >= self.limits.in_flight:
            self._refuse_unrouted(call, calls.BUSY, f"{self.in_flight} requests are under way, which is the limit (limits.in_flight)")
        elif model is None:
            served = ", ".join(sorted(self.fleet.models))
            self._refuse_unrouted(call, calls.NOT_FOUND, f"no model {call.spec.name[:100]!r} is served here, only {served}")
        else:
            self._route(call, model, timeout)

    def _route(self, call: Call, model: ModelInForce, timeout: float | None) -> None:
        settings = model.settings
        call.model = model
        call.expires = time.monotonic() + (settings.deadline if timeout is None else timeout)
        name = _STABLE
        if _CANARY in model.tracks and not call.spec.version and not call.spec.label and call.method not in ABOUT:
            call.key = call.header(settings.sticky) if settings.sticky else ""
            name = routing.track_of(model.name, settings, call.key or call.prediction_id).value
        call.track = model.tracks[name]
        self.in_flight += 1
        call.track.in_flight += 1
        self._wheel.add(call)
        self._dispatch(call)

    def _dispatch(self, call: Call) -> None:
        endpoint = call.track.pick(call.tried) or self._instead(call)
        if endpoint is None:
            self.failed(call, calls.NOBODY, f"no server of {call.spec.name}'s track {call.track.track} is up")
            return
        call.endpoint = endpoint
        endpoint.in_flight += 1
        call.send(endpoint)

    def _instead(self, call: Call) -> Endpoint | None:
        """Who answers where nobody new of the track can: for a canary's request stable; else one that was tried, on a new connection."""
        stable = call.model.tracks.get(_STABLE)
        if call.track.track == _CANARY and stable is not None and (endpoint := stable.pick(call.tried)):
            self.metrics.fallback(call.spec.name, _CANARY)
            call.track.in_flight -= 1
            call.track = stable
            stable.in_flight += 1
            return endpoint
        return call.track.pick(()) if call.tried else None

    def answered(self, call: Call, answer: Answer) -> None:
        """A model server answered."""
        if call.done:
            return
        if answer.elsewhere and self._another(call):
            return
        call.answered_at = time.perf_counter()
        endpoint = call.endpoint
        version = call.version_in(answer) or (endpoint.version if endpoint else 0)
        call.deliver(answer, version)
        body = answer.body
        self._finish(call, answer.code, version)
        if answer.good and call.method in PURE:
            self._keep(call, answer, version, body)

    def lost(self, call: Call, *, sent: bool, why: str) -> None:
        """No answer will come. `sent` says whether the server may have looked at the request."""
        if call.done:
            return
        if not call.shadow and len(call.tried) < _ATTEMPTS and (not sent or (call.method in REPEATABLE and not call.resent)):
            call.resent |= sent
            self._again(call)
        else:
            self.failed(call, calls.LOST, why)

    def _another(self, call: Call) -> bool:
        """Ask another server, once, where there is one: this one said that it cannot answer."""
        if call.shadow or call.resent or call.method not in REPEATABLE or call.endpoint is None:
            return False
        tried = (*call.tried, call.endpoint)
        stable = call.model.tracks.get(_STABLE)
        if call.track.pick(tried) is None and (call.track.track != _CANARY or stable is None or stable.pick(tried) is None):
            return False
        call.resent = True
        self._again(call)
        return True

    def _again(self, call: Call) -> None:
        self.metrics.retry(call.spec.name, call.track.track)
        if call.endpoint is not None:
            call.tried += (call.endpoint,)
        self._left(call)
        self._dispatch(call)

    def failed(self, call: Call, refusal: Refusal, text: str) -> None:
        """Nobody could answer."""
        if not call.done:
            version = call.endpoint.version if call.endpoint else 0
            call.refuse(refusal, text)
            self._finish(call, call_code(call, refusal), version)

    def expired(self, call: Call) -> None:
        """The time is over. It is not asked again: a slow server would get twice the work."""
        if call.done:
            return
        call.withdraw()
        if call.endpoint is not None:
            call.endpoint.overdue()
        self.failed(call, calls.LATE, "the model server did not answer in time")

    def cancelled(self, call: Call) -> None:
        """The caller does not wait any more."""
        if call.done:
            call.release()
            return
        call.withdraw()
        version = call.endpoint.version if call.endpoint else 0
        late = call.late  # it was the deadline, and no change of mind
        if late and call.endpoint is not None:
            call.endpoint.overdue()
        self._finish(call, call_code(call, calls.LATE if late else calls.CANCELLED), version)
        call.release()

    def refused_early(self, protocol: str, refusal: Refusal) -> None:
        """A request was answered before it had a track."""
        self.metrics.unrouted("", protocol, _code(protocol, refusal))

    def _refuse_unrouted(self, call: Call, refusal: Refusal, text: str) -> None:
        known = call.spec.name if call.spec.name in self.fleet.models else ""  # a stranger's names would be endless series
        call.done = True
        self.metrics.unrouted(known, call.protocol, call_code(call, refusal))
        call.refuse(refusal, text)

    def _left(self, call: Call) -> None:
        if call.endpoint is not None:
            call.endpoint.in_flight -= 1
            call.endpoint = None

    def _finish(self, call: Call, code: str, version: int) -> None:
        call.done = True
        self._wheel.remove(call)
        self._left(call)
        if call.shadow:
            call.model.shadows -= 1
            self.metrics.shadow(call.spec.name, _shadow_outcome(code))
        else:
            self.in_flight -= 1
        call.track.in_flight -= 1
        now = time.perf_counter()
        waited = call.answered_at - call.sent_at if call.answered_at and call.sent_at else None
        self.metrics.answered(
            call, version, code, now - call.arrived, None if waited is None or call.shadow else now - call.arrived - waited
        )

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Do what takes more than a step. It is awaited when the gateway closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, seconds: float) -> None:
        """Wait for what `later` began, and for shadow copies, at most so long."""
        until = time.monotonic() + seconds
        while (self._tasks or any(model.shadows for model in self.fleet.models.values())) and time.monotonic() < until:  # noqa: ASYNC110  many events, once
            await asyncio.sleep(0.02)

    async def store_labels(self, body: bytes) -> tuple[int, bytes]:
        """POST /v1/labels: the HTTP status and the answer's JSON."""
        return await self.labels(body)

    # -- what is kept -----------------------------------------------------------------------------------------------------

    def _keep(self, call: Call, answer: Answer, version: int, body: bytes) -> None:
        model = call.model
        if self.log is not None and routing.logged(model.settings, call.prediction_id):
            try:
                self.log.append(_exchange(call, answer, version))
            except Malformed:
                self.metrics.not_logged(call.spec.name)
        if not call.shadow and _SHADOW in model.tracks and routing.shadowed(model.settings, call.prediction_id):
            self._copy(call, model, len(call.body) + len(body))

    def _copy(self, call: Call, model: ModelInForce, size: int) -> None:
        """Send the request to the shadow track too, now that its caller has an answer, if the shadow keeps up."""
        track = model.tracks[_SHADOW]
        endpoint = track.pick(())
        if (
            endpoint is None
            or model.shadows >= SHADOWS
            or self.budget.used + size > self.budget.most // 2
            or call.spec.version
            or call.spec.label
        ):
            self.metrics.shadow(call.spec.name, "dropped" if endpoint else "unavailable")
            return
        copy = call.copy()
        copy.shadow = True
        copy.model, copy.track, copy.prediction_id = model, track, call.prediction_id
        copy.time_us, copy.arrived = call.time_us, time.perf_counter()
        copy.expires = time.monotonic() + model.settings.deadline
        copy.hold(len(call.body))
        model.shadows += 1
        track.in_flight += 1
        self._wheel.add(copy)
        copy.endpoint = endpoint
        endpoint.in_flight += 1
        copy.send(endpoint)


def _exchange(call: Call, answer: Answer, version: int) -> Exchange:
    return Exchange(
        prediction_id=call.prediction_id,
        time_us=call.time_us,
        model=call.spec.name,
        version=version,
        track=call.track.track,
        protocol=call.protocol,
        method=call.method,
        latency_us=int((call.answered_at - call.arrived) * 1e6),
        request=call.logged_request(),
        response=call.logged_answer(answer),
    )


def _shadow_outcome(code: str) -> str:
    if code in {"OK", "200"}:
        return "answered"
    return "late" if code in {"DEADLINE_EXCEEDED", "504"} else "failed"


def _code(protocol: str, refusal: Refusal) -> str:
    return calls.GRPC_CODES[refusal.grpc] if protocol == "grpc" else str(refusal.http)


def call_code(call: Call, refusal: Refusal) -> str:
    """A refusal as metrics say it."""
    return _code(call.protocol, refusal)
