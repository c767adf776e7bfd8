"""Exchanges for tests of the prediction log: what a gateway would have spooled."""

from __future__ import annotations

from typing import Any

from mlserving.predictions.exchange import Exchange

NOON = 1_767_182_400_000_000
"""2025-12-31T12:00:00Z in microseconds."""


def an_exchange(number: int = 0, **changes: Any) -> Exchange:
    """One of a series: each number has its own id, a second after the one before."""
    fields: dict[str, Any] = {
        "prediction_id": f"id-{number}", "time_us": NOON + number * 1_000_000, "model": "transactions", "version": 1, "track": "stable",
        "protocol": "rest", "method": "predict", "latency_us": 1500, "request": b'{"instances": [{}]}', "response": b'{"predictions": [1]}',
    }  # fmt: skip
    return Exchange(**fields | changes)
