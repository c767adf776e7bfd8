"""`millrace trigger serve`: the address for alerts, and the rounds that look, fire what the calendar says, and start runs. Wiring.

The parts share nothing but the database and the last look: the address answers from memory; `looking` looks at each model anew, tells of what nobody
posts and of dates that have come; `starting` takes wanted runs to wherever they go; `rolling` takes the versions that they bring to all requests; `telling` sends notices to people. A part that ends by a bug ends the process, and whoever runs it
starts it anew: every step is safe to be killed in.
"""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.triggers.decide import Cause, Decision
from mlpipelines.triggers.facts import Known, Look
from mlpipelines.triggers.ledger import Ledger
from mlpipelines.triggers.metrics import Metrics
from mlpipelines.triggers.notices import Notice
from mlpipelines.triggers.outbox import Outbox
from mlpipelines.triggers.roller import Roller
from mlpipelines.triggers.rollouts import Rollouts
from mlpipelines.triggers.starter import Starter
from mlpipelines.triggers.timetable import Timetable
from mlpipelines.triggers.tokens import Tokens
from mlpipelines.triggers.watch import Watch
from mlpipelines.triggers.webhook import Parts, build_app
from mlserving.errors import Unavailable as DatabaseUnavailable

STUCK_SECONDS = 900.0
"""A round may take long where something does not answer, but not as long as this."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the rounds are made of."""

    ledger: Ledger
    known: Known
    watch: Watch
    timetable: Timetable
    starter: Starter
    roller: Roller
    rollouts: Rollouts
    outbox: Outbox
    send: Callable[[str, Notice], None]
    """How a notice goes its way."""
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], float] = time.time

    def look(self) -> None:
        """One round of `looking`.

        Raises:
            Unavailable: the ledger does not answer. What was not told will be told in the next round.
        """
        looks = self.known.look()
        self.metrics.only(looks)
        for model, look in looks.items():
            self.metrics.looked_at(look)
            if model not in self.known.troubles:
                self._tell(model, look)

    def start(self) -> None:
        """One round of `starting`. Raises as `look` does."""
        self.starter.turn()
        self.metrics.take_stock(self.ledger)

    def roll(self) -> None:
        """One round of `rolling`. Raises as `look` does."""
        self.roller.turn()
        self.metrics.rollouts(self.rollouts.due())

    def tell(self) -> None:
        """One round of `telling`. Raises as `look` does."""
        self.outbox.deliver(self.send, self.clock())
        self.metrics.notices(self.outbox.waiting())

    def settle(self, cause: Cause) -> Decision:
        """Have one cause decided on. Raises as `look` does."""
        (decision,) = self.ledger.settle([cause], self.known.facts, self.clock())
        self.metrics.decided(cause, decision)
        return decision

    def _tell(self, model: str, look: Look) -> None:
        for cause in self.watch.causes(look):
            self.settle(cause)
        if look.trained.project.schedule is not None:
            self.timetable.tell(model, look.trained.project.schedule, self.settle, self.clock())


class Service:
    """The rounds in threads, and the address in front."""

    def __init__(self, machine: Machine, tokens: Tokens, *, every: float) -> None:
        """`every` is how many seconds lie between two rounds."""
        self._machine, self._every = machine, every
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._turned = dict.fromkeys(("looking", "starting", "rolling", "telling"), time.monotonic())
        self._bug: BaseException | None = None
        parts = Parts(
            ledger=machine.ledger,
            facts=machine.known.facts,
            tokens=tokens,
            woken=self._woken.set,
            trouble=self.trouble,
            metrics=machine.metrics,
            clock=machine.clock,
        )
        self.app = build_app(parts)

    def run(self, server: uvicorn.Server) -> None:
        """Serve until the server is told to end. Runs that were started go on.

        Raises:
            Exception: a bug ended one of the parts.
        """
        self._round("looking", self._machine.look)  # once before anybody is answered
        machine = self._machine
        parts = (
            ("looking", machine.look, self._stopped),
            ("starting", machine.start, self._woken),
            ("rolling", machine.roll, self._stopped),
            ("telling", machine.tell, self._stopped),
        )
        threads = [threading.Thread(target=self._rounds, args=(*part, server), name=part[0], daemon=True) for part in parts]
        for thread in threads:
            thread.start()
        try:
            server.run()
        finally:
            self._stopped.set()
            self._woken.set()
            for thread in threads:
                thread.join(timeout=self._every)
        if self._bug is not None:
            raise self._bug

    def trouble(self) -> str:
        """Which part is stuck."""
        late = [part for part, at in self._turned.items() if time.monotonic() - at > STUCK_SECONDS]
        return f"{late[0]} has not come round for {STUCK_SECONDS:.0f} s" if late else ""

    def _rounds(self, part: str, work: Callable[[], None], bell: threading.Event, server: uvicorn.Server) -> None:
        try:
            while not self._stopped.is_set():
                self._round(part, work)
                bell.wait(self._every)
                if bell is self._woken:
                    bell.clear()
        except Exception as error:  # noqa: BLE001  a bug in a thread must end the process, not only the thread
            self._bug, server.should_exit = error, True

    def _round(self, part: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (Unavailable, DatabaseUnavailable, ConfigError) as error:
            log.error("trigger.round_failed", part=part, error=str(error))
        else:
            self._machine.metrics.turned.labels(part).set(time.time())
        self._turned[part] = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The server's own certificate, and whose clients it lets in."""

    certificate: Path
    key: Path
    clients: Path | None = None
    """The authority that must have signed a client's certificate; None: the bearer token alone says who one is."""


def uvicorn_server(
    app: object, host: str, port: int, told: Sequence[Callable[[uvicorn.Server], None]] = (), tls: Tls | None = None
) -> uvicorn.Server:
    """A server for the app that calls each of `told` once it listens."""

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """SIGTERM is how a trigger ends well; uvicorn would raise it again once it has ended."""
            before = signal.signal(signal.SIGTERM, self.handle_exit)
            try:
                yield
            except KeyboardInterrupt:
                self.should_exit = True
                raise
            finally:
                signal.signal(signal.SIGTERM, before)

        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets)  # type: ignore[arg-type]  # uvicorn's own argument, passed on
            for each in told:
                each(self)

    encrypted: dict[str, Any] = {}
    if tls is not None:
        encrypted = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
        if tls.clients is not None:
            encrypted |= {"ssl_ca_certs": str(tls.clients), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return Server(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, lifespan="off", **encrypted))  # type: ignore[arg-type]  # any ASGI app
