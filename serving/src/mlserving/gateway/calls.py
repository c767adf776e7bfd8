"""One request on its way: what was asked, who is asked, how long it may take, and how it is answered.

`relay.Relay` decides; a Call knows how its protocol says it. `GrpcCall` and `RestCall` (in `grpc_calls`, `rest_calls`) are the two kinds. A shadow
copy is a Call that nobody waits for.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from mlserving.gateway.model_spec import Spec

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint
    from mlserving.gateway.relay import Relay
    from mlserving.gateway.tracks import ModelInForce, TrackInForce

PURE: Final = frozenset({"Predict", "Classify", "Regress", "predict", "classify", "regress"})
"""Methods that compute a prediction and change nothing."""
ABOUT: Final = frozenset({"GetModelMetadata", "GetModelStatus", "metadata", "status"})
"""Questions about a model. They go to stable."""
REPEATABLE: Final = PURE | ABOUT
"""One of these whose answer was lost may be asked once more, elsewhere."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the gateway answers by itself, in the words of both protocols."""

    grpc: int
    http: int


CANCELLED: Final = Refusal(1, 499)
INVALID: Final = Refusal(3, 400)
NOT_FOUND: Final = Refusal(5, 404)
TOO_LARGE: Final = Refusal(8, 413)
NO_MEMORY: Final = Refusal(8, 503)
BUSY: Final = Refusal(14, 503)
NOBODY: Final = Refusal(14, 503)
LOST: Final = Refusal(14, 502)
LATE: Final = Refusal(4, 504)
UNKNOWN_METHOD: Final = Refusal(12, 404)
BROKEN_ANSWER: Final = Refusal(13, 502)

_SAME_MOMENT = 0.05

GRPC_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip


class Answer(Protocol):
    """What a model server answered."""

    body: bytes

    @property
    def code(self) -> str:
        """As metrics say it: gRPC's name, or the HTTP status."""
        ...

    @property
    def good(self) -> bool:
        """Whether it is a prediction."""
        ...

    @property
    def elsewhere(self) -> bool:
        """Whether it says that this server cannot answer now, though another might."""
        ...


class Call:
    """A request that has been read whole."""

    __slots__ = (
        "answered_at",
        "arrived",
        "body",
        "done",
        "endpoint",
        "expires",
        "held",
        "key",
        "method",
        "model",
        "prediction_id",
        "relay",
        "resent",
        "sent_at",
        "shadow",
        "slot",
        "spec",
        "time_us",
        "track",
        "tried",
        "upstream",
    )

    protocol: Literal["grpc", "rest"]
    model: ModelInForce
    track: TrackInForce

    def __init__(self, relay: Relay, method: str, spec: Spec, body: bytes) -> None:
        self.relay = relay
        self.method = method
        self.spec = spec
        self.body = body
        self.prediction_id = ""
        self.key = ""
        """What decides the track where it is not the prediction id."""
        self.arrived = 0.0
        self.time_us = 0
        self.expires = 0.0
        """When the answer must have come, by the monotonic clock."""
        self.slot = 0
        """Where `timing.Wheel` keeps it."""
        self.held = 0
        """Bytes that count against the memory for requests and answers."""
        self.endpoint: Endpoint | None = None
        self.upstream: object = None
        """What the answer comes from: a stream, a connection."""
        self.tried: tuple[Endpoint, ...] = ()
        self.resent = False
        self.sent_at = self.answered_at = 0.0
        self.done = False
        self.shadow = False

    # -- what each protocol says in its own way ---------------------------------------------------------------------------

    def send(self, endpoint: Endpoint) -> None:
        """Ask `endpoint`. Ends in one of the relay's `answered` and `lost`."""
        raise NotImplementedError

    def withdraw(self) -> None:
        """The answer is not wanted any more."""
        raise NotImplementedError

    def deliver(self, answer: Answer, version: int) -> None:
        """Give the caller its answer."""
        raise NotImplementedError

    def refuse(self, refusal: Refusal, text: str) -> None:
        """Tell the caller why there is no answer."""
        raise NotImplementedError

    def version_in(self, answer: Answer) -> int:
        """The version that the answer itself names; 0 where it names none."""
        raise NotImplementedError

    def header(self, name: str) -> str:
        """A header of the request by its name in lower case; empty where it is not there."""
        raise NotImplementedError

    def copy(self) -> Call:
        """The same request, for the shadow track."""
        raise NotImplementedError

    def logged_request(self) -> bytes:
        """The request as the log keeps it."""
        raise NotImplementedError

    def logged_answer(self, answer: Answer) -> bytes:
        """The answer as the log keeps it."""
        raise NotImplementedError

    def expire(self) -> None:
        """The deadline has passed."""
        self.relay.expired(self)

    @property
    def late(self) -> bool:
        """Whether its time is over, or nearly: a caller's clock and ours end a deadline at about the same moment."""
        return time.monotonic() > self.expires - _SAME_MOMENT

    # -- memory -----------------------------------------------------------------------------------------------------------

    def hold(self, size: int) -> bool:
        """Count `size` bytes more. False where there is no room for them."""
        self.held += size
        return self.relay.budget.take(size)

    def release(self) -> None:
        """Nothing of it is kept any more."""
        self.relay.budget.give(self.held)
        self.held = 0


def fresh_id() -> str:
    """An id that nobody else has: 128 random bits."""
    return f"{random.getrandbits(128):032x}"
