"""What the gateway hands to the recorder: one request and its answer, as the bytes that they were.

The gateway knows ids, times and bytes; what the bytes mean is the recorder's business (`mlserving.predictions.decode`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that was answered, and that the sampling chose."""

    prediction_id: str
    time_us: int
    """When the request had arrived: microseconds since 1970, UTC."""
    model: str
    version: int
    """The version that answered; 0 where the answer did not say (an error)."""
    track: str
    protocol: Literal["grpc", "rest"]
    method: str
    """gRPC: `Predict`, `Classify`, …; REST: the verb, `predict`, ….."""
    latency_us: int
    request: bytes
    """gRPC: the message without its five-byte prefix, not compressed; REST: the body."""
    response: bytes
