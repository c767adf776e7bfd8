"""What `gateway.yaml` may say: the models, their tracks and weights, what is logged, and how much is let in.

One file drives the gateway, wherever it runs: the chart writes it into a ConfigMap, `millrace serve --tracks` and
`millrace rollout` write it into the workspace. It is read again when it changes; a file that cannot be read leaves in force what was
read before. `routing` decides by it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from mlserving.rollout.plan import Phase, Verdict
from mlserving.settings_file import SettingsFile, Strict


class Track(StrEnum):
    """A place from which a model answers. Shadow answers are logged and thrown away."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"


class Backend(Strict):
    """Where a track's model servers listen."""

    grpc: Annotated[str, Field(pattern=r"^\S+:\d+$")]
    """`host:port`. A host name with several addresses is several endpoints."""
    rest: Annotated[str, Field(pattern=r"^\S+:\d+$")]
    """`host:port` of the same servers."""
    weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Percent of the requests that this track answers; for `shadow`, percent of all requests that are copied to it."""


class Outputs(Strict):
    """Which outputs of the model say what it thinks, for metrics and for the review queue."""

    label: str = "label"
    """The predicted class."""
    confidence: str = "confidence"
    """How sure the model is, 0 to 1."""


class Log(Strict):
    """What is kept of predictions."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the requests that are logged, chosen by the hash of their prediction id."""
    features: tuple[str, ...] = ()
    """Inputs that are kept. An input that is not named here is never written: name no personal data that is not needed."""
    outputs: Outputs = Outputs()


class Rollout(Strict):
    """The rollout that sets the weights, in the words of whoever drives it. The gateway decides nothing by it; it tells Prometheus."""

    id: Annotated[str, Field(max_length=100)]
    """Of the rollout, as `millrace rollout history` names it."""
    from_version: int
    """The version that answered before."""
    to_version: int
    """The version that takes over."""
    phase: Phase
    """Where it stands."""
    step: Annotated[int, Field(ge=0)] = 0
    """Which of its steps, from 0."""
    steps: Annotated[int, Field(ge=0)] = 0
    """How many steps its plan has, the promotion with them."""
    verdict: Verdict | None = None
    """What the last look of this step showed; null before the first one."""


class Model(Strict):
    """One model and its tracks."""

    tracks: dict[Track, Backend]
    sticky: str | None = None
    """A header (gRPC: a metadata key), in lower case, whose value decides the track: the same value, the same track. Without it, the prediction id decides."""
    deadline: Annotated[float, Field(gt=0)] = 10.0
    """Seconds that an answer may take where the caller names no deadline."""
    log: Log = Log()
    rollout: Rollout | None = None
    """The rollout under way, or the last one."""

    @model_validator(mode="after")
    def _weights_add_up(self) -> Self:
        if Track.STABLE not in self.tracks:
            raise ValueError("tracks.stable is missing: name where the model answers from")
        total = sum(backend.weight for track, backend in self.tracks.items() if track is not Track.SHADOW)
        if abs(total - 100) > 1e-6:  # noqa: PLR2004  percent
            raise ValueError(f"the weights of stable and canary add up to {total:g}, not 100")
        if self.sticky is not None and self.sticky != self.sticky.lower():
            raise ValueError(f"sticky {self.sticky!r}: headers are written in lower case")
        return self


class Limits(Strict):
    """How much is let in."""

    body_mb: Annotated[float, Field(gt=0)] = 16.0
    """The largest request, in MiB; a larger one is refused (413, RESOURCE_EXHAUSTED)."""
    in_flight: Annotated[int, Field(gt=0)] = 1024
    """Requests under way at a time; more are refused at once (503, UNAVAILABLE)."""
    buffered_mb: Annotated[float, Field(gt=0)] = 256.0
    """Bytes of requests and answers held in memory at a time, in MiB; what would go beyond is refused (503, RESOURCE_EXHAUSTED)."""
    connections: Annotated[int, Field(gt=0)] = 4096
    """Connections of clients at a time, of both protocols; more are closed at once. Each may hold 128 KiB beside what `buffered_mb` counts."""
    head_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long a request's line and headers (REST), or a connection's first bytes (gRPC), may take to arrive."""
    body_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long the rest of a request may take."""
    answer_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long a client may leave a part of an answer unread; then its connection is cut."""
    idle_seconds: Annotated[float, Field(gt=0)] = 75.0
    """How long a REST connection is kept without a request."""
    resets: Annotated[int, Field(gt=0)] = 500
    """Calls that a client may cancel on one gRPC connection within half a minute, beyond as many as it lets be answered; then the connection ends (GOAWAY, ENHANCE_YOUR_CALM)."""


class Spool(Strict):
    """Between the gateway and the recorder."""

    most_mb: Annotated[float, Field(gt=0)] = 512.0
    """Exchanges beyond so many MiB that the recorder has not taken yet are dropped, and counted. Read when the gateway starts."""


class GatewaySettings(Strict):
    """The file as a whole."""

    models: Annotated[dict[str, Model], Field(min_length=1)]
    """By the name under which callers ask."""
    limits: Limits = Limits()
    spool: Spool = Spool()


FILE = SettingsFile(GatewaySettings, "docs/reference/gateway.md", "Name the file with --config.")
