"""What a process of the prediction log writes for machines: JSON, one object a line, on standard error."""

from __future__ import annotations

import sys

import structlog


def configure() -> None:
    """Set structlog up."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
